"""EcoNAS with its pruner, on cells; `accuracy` stands for the training of a network."""

import optuna
import optunahub

module = optunahub.load_module("samplers/econas")
space = module.CellSpace(nodes=2)


def accuracy(network, epoch):
    """Replace this: train the network for an epoch more and return its held-out accuracy."""
    convolutions = network.to_json().count("sep_conv_3x3")
    return (0.5 + 0.05 * convolutions) * (1 - 0.5**epoch)


def objective(trial):
    network = space.suggest(trial)
    best = 0.0
    for epoch in range(1, 7):
        best = max(best, accuracy(network, epoch))
        trial.report(best, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return best


sampler = module.EcoNASSampler(space, seed=0)
pruner = module.HierarchicalPruner(epochs=2)
study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
study.optimize(objective, n_trials=40)
print(sampler.found(study))
