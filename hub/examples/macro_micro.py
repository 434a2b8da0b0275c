"""Macro-micro search on chains; `accuracy` stands for the training of a network."""

import optuna
import optunahub

module = optunahub.load_module("samplers/macro_micro")
space = module.ChainSpace(depth=(3, 12), width=(8, 16))


def accuracy(network):
    """Replace this: train the network and return its held-out accuracy."""
    layers = network.depth
    return 0.9 - 0.01 * abs(layers - 8) + 0.0001 * network.width


def objective(trial):
    network = space.suggest(trial)
    trial.suggest_int("epochs", 1, 1_000_000)  # The sampler says how many.
    return accuracy(network)


sampler = module.MacroMicroSampler(space, in_channels=3, classes=10, seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler)
study.optimize(objective)
print(sampler.found(study))
