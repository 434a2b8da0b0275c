"""DARTS on cells; two functions stand for the trainings."""

import optuna
import optunahub

module = optunahub.load_module("samplers/darts")
space = module.CellSpace(nodes=4)


def operation_weights():
    """Replace this: train a super-network; return how strong the operations of its edges are.

    For each kind of cell a list per node, for each of its predecessors a list with a number for
    each of the space's eight operations.
    """
    strengths = [(index + 1) / 36 for index in range(8)]
    return {
        kind: [[strengths for source in range(2 + node)] for node in range(4)]
        for kind in ("normal", "reduce")
    }


def accuracy(network):
    """Replace this: train the network and return its held-out accuracy."""
    return 0.9


def objective(trial):
    phases = ["topology", "operators", "architecture"]
    if trial.suggest_categorical("phase", phases) == "operators":
        trial.set_user_attr("operation_weights", operation_weights())
        raise optuna.TrialPruned  # So that a super-network is never the best trial.
    return accuracy(space.suggest(trial))


sampler = module.DARTSSampler(space, seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler)
study.optimize(objective)
print(sampler.found(study))
