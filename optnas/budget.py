"""Budgets: totals of a whole study, counted from its storage."""

import dataclasses

import optuna
from optuna.trial import TrialState

from optnas.studies import counted_trials
from optnas.study_keys import Budget
from optnas.trials import Claim


@dataclasses.dataclass(frozen=True)
class Used:
    """What a study has used.

    Args:
        trials: Trials that trained something to an end.
        epochs: Epochs reported, each once, however often a candidate was continued.
        hours: Training time of the trials that ended, summed.
    """

    trials: int
    epochs: int
    hours: float


def used(study: optuna.Study) -> Used:
    """What ``study`` has used, counted from its storage."""
    trials = study.get_trials(deepcopy=False)
    ended = counted_trials(study)
    claims = {trial.number: Claim.of(trial) for trial in trials}
    # A trial that goes on from another reports the epochs of that one again.
    continued = {claim.continues for claim in claims.values() if claim is not None}
    epochs = sum(len(t.intermediate_values) for t in trials if t.number not in continued)
    seconds = sum(float(trial.user_attrs.get("train_seconds", 0.0)) for trial in ended)
    return Used(len(ended), epochs, seconds / 3600)


def may_start(budget: Budget, study: optuna.Study) -> bool:
    """Whether the budget allows another trial, beside those that run."""
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    spent = used(study)
    return (
        (budget.trials is None or spent.trials + running < budget.trials)
        and (budget.epochs is None or spent.epochs < budget.epochs)
        and (budget.hours is None or spent.hours < budget.hours)
    )


def may_go_on(budget: Budget, study: optuna.Study, seconds: float) -> bool:
    """Whether the budget allows a running trial another epoch.

    Args:
        budget: The budget.
        study: The study.
        seconds: Training time of the running trial.
    """
    if budget.epochs is None and budget.hours is None:
        return True
    spent = used(study)
    return (budget.epochs is None or spent.epochs < budget.epochs) and (
        budget.hours is None or spent.hours + seconds / 3600 < budget.hours
    )
