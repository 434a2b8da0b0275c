"""A search over cells of NAS-Bench-201; `accuracy` stands for the training of a network."""

import optuna
import optunahub

module = optunahub.load_module("samplers/nas_surrogate")
space = module.NasBench201Space()


def accuracy(network):
    """Replace this: train the network and return its held-out accuracy."""
    return 0.5 + 0.05 * network.to_json().count("nor_conv_3x3")


def objective(trial):
    return accuracy(space.suggest(trial))


sampler = module.SurrogateSampler(space, seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler)
study.optimize(objective, n_trials=30)
print(study.best_value, study.best_params)
