"""The hierarchical pruner with geometric rungs; `accuracy` stands for a training."""

import optuna
import optunahub

module = optunahub.load_module("pruners/hierarchical")


def accuracy(width, epoch):
    """Replace this: train for an epoch more and return the held-out accuracy."""
    return (1 - 1 / width) * (1 - 0.7**epoch)


def objective(trial):
    width = trial.suggest_int("width", 2, 64)
    best = 0.0
    for epoch in range(1, 28):
        best = max(best, accuracy(width, epoch))
        trial.report(best, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return best


pruner = module.HierarchicalPruner(first=3, factor=3)
sampler = optuna.samplers.RandomSampler(seed=0)
study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
study.optimize(objective, n_trials=30)
print(study.best_value, study.best_params)
