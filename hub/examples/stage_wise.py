"""Stage-wise search; `train` stands for the training of a network."""

import optuna
import optunahub

module = optunahub.load_module("samplers/stage_wise")
space = module.StageSpace(stages=3, block="basic")


def train(network):
    """Replace this: train the network.

    Returns:
        The held-out accuracy, and how important the features of each stage are: the paper's
        figure is computed with partial least squares.
    """
    importance = [1 - 1 / modules**power for power, modules in enumerate(network.modules, 1)]
    return sum(importance) / 3, [round(each, 2) for each in importance]


def objective(trial):
    accuracy, importance = train(space.suggest(trial))
    trial.set_user_attr("stage_importance", importance)
    return accuracy


sampler = module.StageWiseSampler(space, seed=0)
pruner = optuna.pruners.NopPruner()
study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
study.optimize(objective)
print(sampler.found(study))
