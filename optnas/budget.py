"""Budgets: totals of a whole study, counted from its storage."""

import dataclasses

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas.studies import counted_trials
from optnas.study_keys import Budget
from optnas.trials import CONTINUES, TRAIN_SECONDS


@dataclasses.dataclass(frozen=True)
class Used:
    """What a study has used.

    Args:
        trials: Trials that trained something to an end.
        epochs: Epochs reported, each once, however often a candidate was continued.
        hours: Training time of these epochs, summed.
    """

    trials: int
    epochs: int
    hours: float


def used(study: optuna.Study) -> Used:
    """What ``study`` has used, counted from its storage."""
    trials = study.get_trials(deepcopy=False)
    # A trial that goes on from another reports what that one did again.
    continued = {t.user_attrs.get(CONTINUES) for t in trials if t.state != TrialState.WAITING}
    latest = [trial for trial in trials if trial.number not in continued]
    epochs = sum(trial_epochs(trial) for trial in latest)
    seconds = sum(float(trial.user_attrs.get(TRAIN_SECONDS, 0.0)) for trial in latest)
    return Used(len(counted_trials(study)), epochs, seconds / 3600)


def trial_epochs(trial: FrozenTrial) -> int:
    """Epochs of a trial: those it reported, or what an objective without reports recorded."""
    return len(trial.intermediate_values) or int(trial.user_attrs.get("epochs_trained", 0))


def may_start(budget: Budget, study: optuna.Study) -> bool:
    """Whether the budget allows another trial, beside those that run."""
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    trials = used(study).trials + running
    return (budget.trials is None or trials < budget.trials) and may_go_on(budget, study)


def may_go_on(budget: Budget, study: optuna.Study) -> bool:
    """Whether the budget allows a running trial another epoch."""
    if budget.epochs is None and budget.hours is None:
        return True
    spent = used(study)
    return (budget.epochs is None or spent.epochs < budget.epochs) and (
        budget.hours is None or spent.hours < budget.hours
    )
