"""Why trials failed, and whose failure it was: the candidate's, or that of its worker."""

import contextlib
from collections.abc import Sequence
from typing import Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from optnas.trials.attributes import (
    CANDIDATE,
    CONTINUES,
    FAILURE,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
)
from optnas.trials.leases import worker_is_dead


def mark_failure(trial: Trial, kind: Literal["lost", "candidate"], reason: str) -> None:
    """Record on a running trial why it is about to fail."""
    trial.set_user_attr(FAILURE, kind)
    trial.set_user_attr(FAILURE_REASON, reason)


def is_lost(trial: FrozenTrial) -> bool:
    """Whether ``trial`` failed because of its worker, so that its candidate is tried again.

    A worker that tells of a failed candidate says so. A trial that failed without a word was
    failed by somebody else: by Optuna's heartbeat, or by hand.
    """
    return trial.state == TrialState.FAIL and trial.user_attrs.get(FAILURE) != CANDIDATE


def vain_attempts(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """How often in a row a candidate was lost before it got an epoch further.

    Args:
        trial: The last attempt: a trial that is lost, or about to be.
        trials: All trials of the study, by number.
    """
    count = 0
    attempt: FrozenTrial | None = trial
    while attempt is not None:
        number = attempt.user_attrs.get(CONTINUES)
        before = None if number is None else trials[number]
        if attempt.user_attrs.get(FAILURE_REASON) != INTERRUPTED:
            epochs = 0 if before is None else len(before.intermediate_values)
            if len(attempt.intermediate_values) > epochs:
                break
            count += 1
        attempt = before if before is not None and is_lost(before) else None
    return count


def explain_loss(
    trial: FrozenTrial, trials: Sequence[FrozenTrial], max_retries: int, reason: str
) -> tuple[Literal["lost", "candidate"], str]:
    """Whose failure it is when a trial is lost, and why: the candidate's after ``max_retries``."""
    attempts = vain_attempts(trial, trials)
    if attempts <= max_retries:
        return LOST, reason
    return CANDIDATE, f"lost {attempts} times; the last time: {reason}"


def fail_as_lost(
    storage: BaseStorage,
    trial: FrozenTrial,
    reason: str,
    kind: Literal["lost", "candidate"] = LOST,
) -> None:
    """End a running trial whose worker is gone; another worker may do so at the same time."""
    with contextlib.suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, FAILURE, kind)
        storage.set_trial_user_attr(trial._trial_id, FAILURE_REASON, reason)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def fail_dead(storage: BaseStorage, trials: Sequence[FrozenTrial], max_retries: int) -> bool:
    """End the running trials whose worker is known to be gone.

    Args:
        storage: The study's storage.
        trials: All trials of the study, by number.
        max_retries: How often a candidate is tried again that gets no further.

    Returns:
        Whether there were any.
    """
    dead = [t for t in trials if t.state == TrialState.RUNNING and worker_is_dead(t)]
    for trial in dead:
        reason = "the worker's process is gone"
        kind, reason = explain_loss(trial, trials, max_retries, reason)
        fail_as_lost(storage, trial, reason, kind)
    return bool(dead)
