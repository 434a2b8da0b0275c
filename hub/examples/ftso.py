"""FTSO on cells; two functions stand for the trainings."""

import optuna
import optunahub

module = optunahub.load_module("samplers/ftso")
space = module.CellSpace(nodes=4)


def edge_weights():
    """Replace this: train a super-network of skip connections; return how strong its edges are.

    For each kind of cell a list per node, with a number for each of its predecessors.
    """
    return {
        kind: [[1 / (1 + source) for source in range(2 + node)] for node in range(4)]
        for kind in ("normal", "reduce")
    }


def accuracy(network):
    """Replace this: train the network and return its held-out accuracy."""
    return 0.9


def objective(trial):
    if trial.suggest_categorical("phase", ["topology", "operators", "architecture"]) == "topology":
        trial.set_user_attr("edge_weights", edge_weights())
        raise optuna.TrialPruned  # So that a super-network is never the best trial.
    return accuracy(space.suggest(trial))


sampler = module.FTSOSampler(space, seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler)
study.optimize(objective)
print(sampler.found(study))
