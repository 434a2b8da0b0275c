"""Budgets: totals of a whole study, counted from its storage."""

import dataclasses
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas.config.keys import Budget
from optnas.study.opening import is_counted
from optnas.trials.attributes import CONTINUES, TRAIN_SECONDS


@dataclasses.dataclass(frozen=True)
class UsedBudget:
    """What a study has used.

    Args:
        trials: Trials that trained something to an end.
        epochs: Epochs reported, each once, however often a candidate was continued.
        hours: Training time of these epochs, summed.
    """

    trials: int
    epochs: int
    hours: float


def used_budget(study: optuna.Study) -> UsedBudget:
    """What ``study`` has used, counted from its storage."""
    return budget_used_by(study.get_trials(deepcopy=False))


def budget_used_by(trials: Sequence[FrozenTrial]) -> UsedBudget:
    """What ``trials``, all of a study, have used."""
    spent: dict[int, tuple[int, float]] = {}
    continued = set()
    for trial in trials:
        if trial.state == TrialState.PRUNED and not trial.params:
            continue  # It ended before it began.
        epochs, seconds = trial_epochs(trial), float(trial.user_attrs.get(TRAIN_SECONDS, 0.0))
        before = trial.user_attrs.get(CONTINUES)
        if before in spent and trial.state != TrialState.WAITING:
            # A trial that goes on from another reports again what that one did, but not at once.
            continued.add(before)
            epochs, seconds = max(epochs, spent[before][0]), max(seconds, spent[before][1])
        spent[trial.number] = (epochs, seconds)
    latest = [amounts for number, amounts in spent.items() if number not in continued]
    return UsedBudget(
        trials=sum(map(is_counted, trials)),
        epochs=sum(epochs for epochs, _ in latest),
        hours=sum(seconds for _, seconds in latest) / 3600,
    )


def trial_epochs(trial: FrozenTrial) -> int:
    """Epochs of a trial: those it reported, or what an objective without reports recorded."""
    return len(trial.intermediate_values) or int(trial.user_attrs.get("epochs_trained", 0))


def has_room(budget: Budget, trials: Sequence[FrozenTrial], number: int, *, more: int = 0) -> bool:
    """Whether the budget of trials has room for one trial beside those that came before it.

    Storages give out numbers one by one, so of several trials that start at once every one sees
    those with lower numbers, which have precedence. That makes the total exact for any number of
    workers, without a word between them.

    Args:
        budget: The study's budget.
        trials: All trials of the study, by number.
        number: Number of the trial that starts, or of the next one.
        more: Trials beyond ``trials`` that may have come before it.
    """
    if budget.trials is None:
        return True
    taken = sum(
        is_counted(trial) or (trial.number < number and not trial.state.is_finished())
        for trial in trials
    )
    return taken + more < budget.trials


def may_start(budget: Budget, trials: Sequence[FrozenTrial]) -> bool:
    """Whether the budget allows another trial, beside those that run."""
    waiting = (trial.number for trial in trials if trial.state == TrialState.WAITING)
    return has_room(budget, trials, next(waiting, len(trials))) and may_go_on(budget, trials)


def limits_epochs(budget: Budget) -> bool:
    """Whether a running trial may have to end before its last epoch."""
    return budget.epochs is not None or budget.hours is not None


def may_go_on(budget: Budget, trials: Sequence[FrozenTrial]) -> bool:
    """Whether the budget allows a running trial another epoch."""
    if not limits_epochs(budget):
        return True
    spent = budget_used_by(trials)
    return (budget.epochs is None or spent.epochs < budget.epochs) and (
        budget.hours is None or spent.hours < budget.hours
    )
