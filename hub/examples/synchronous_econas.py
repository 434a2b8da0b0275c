"""EcoNAS in cycles, on cells; `accuracy` stands for the training of a network."""

import optuna
import optunahub

module = optunahub.load_module("samplers/synchronous_econas")
space = module.CellSpace(nodes=2)


def accuracy(network, epochs):
    """Replace this: train the network for so many epochs and return its held-out accuracy."""
    convolutions = network.to_json().count("sep_conv_3x3")
    return (0.5 + 0.05 * convolutions) * (1 - 0.5**epochs)


def objective(trial):
    network = space.suggest(trial)
    epochs = trial.suggest_int("epochs", 1, 1_000_000)  # The sampler says how many.
    return accuracy(network, epochs)


sampler = module.SynchronousEcoNASSampler(space, epochs=2, initial=10, cycles=2, seed=0)
pruner = optuna.pruners.NopPruner()
study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
study.optimize(objective)
print(sampler.found(study))
