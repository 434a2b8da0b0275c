"""Trials queued to go on with lost ones that no strategy takes up."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from optnas.trials.attributes import CONTINUES
from optnas.trials.claims import Claim, queued_params
from optnas.trials.failures import failed_attempts, is_lost


def queue_lost(study: optuna.Study, trials: Sequence[FrozenTrial], max_retries: int) -> bool:
    """Queue the lost trials that no strategy takes up: of stock samplers, and people's own.

    Several workers may queue the same one; all but the first copy end when they begin.

    Returns:
        Whether there were any.
    """
    is_any = False
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    for trial in trials:
        given = {**queued_params(trial), **trial.params}
        if (
            is_lost(trial)
            and given
            and Claim.of(trial) is None
            and trial.number not in continued
            and failed_attempts(trial, trials) <= max_retries
        ):
            study.enqueue_trial(given, user_attrs={CONTINUES: trial.number})
            is_any = True
    return is_any


def is_repeated(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial was queued for a lost one with which an earlier trial goes on."""
    lost = trial.user_attrs.get(CONTINUES)
    if lost is None or not queued_params(trial):
        return False
    return any(other.user_attrs.get(CONTINUES) == lost for other in trials[: trial.number])
