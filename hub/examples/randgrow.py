"""RandGrow; `train` stands for the training of a network from its parent's weights."""

import optuna
import optunahub

module = optunahub.load_module("samplers/randgrow")
space = module.GrowthSpace(cells=3, channels=8)


def train(network, parent):
    """Replace this: start from the weights of the trial `parent` (-1: from random ones) and train.

    Returns:
        The held-out accuracy, and the multiply-adds of one image.
    """
    increments = len(network.increments)
    return 1 - 0.5 * 0.9**increments, 1000 * (1 + increments)


def objective(trial):
    network = space.suggest(trial)
    accuracy, multiply_adds = train(network, trial.params["parent"])
    trial.set_user_attr("multiply_adds", multiply_adds)
    return accuracy


sampler = module.RandGrowSampler(space, seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler)
study.optimize(objective, n_trials=20)
print(sampler.found(study))
