"""Why trials failed, and whose failure it was: the candidate's, or that of the ground under it.

The candidate's own, final, and the worst result: a loss that is not finite; a network that
cannot be built or trained; out of the device's memory (on the CPU, memory refused inside the
training); an exception of the objective that is none of the following; a worker killed from
outside more than ``max_retries`` times in a row.

The ground's, wherever it is raised: `OSError`; the errors of Optuna's storages, of SQLAlchemy and
of the drivers; CUDA's errors but for want of memory; a worker killed from outside. Its trial is
"lost": another goes on with the candidate.
"""

import contextlib
import sys
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from optnas.errors import RunError
from optnas.trials.attributes import (
    CANDIDATE,
    CONTINUES,
    FAILURE,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
    MACHINE,
)
from optnas.trials.leases import is_of_process, is_own, worker_is_dead

_DRIVERS = frozenset(
    {
        *("sqlalchemy", "sqlite3", "psycopg", "psycopg2", "pymysql", "MySQLdb", "mysql"),
        *("mariadb", "asyncpg", "grpc", "redis", "boto3", "botocore", "google", "urllib3"),
    }
)
"""Packages whose errors are of storages, databases, connections and buckets."""
_STORAGES = ("StorageInternalError", "ArtifactNotFound")
_CUDA = ("CUDA error", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "NCCL")


def is_grounds(error: BaseException) -> bool:
    """Whether an error is the ground's fault, and says nothing of a candidate.

    What caused it counts, too, where it was raised from that on purpose.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | RunError) or _is_driver(cause) or _is_cuda(cause):
            return True
        cause = cause.__cause__
    return False


def _is_driver(error: BaseException) -> bool:
    kinds = type(error).__mro__
    return any(
        kind.__module__.partition(".")[0] in _DRIVERS or kind.__name__ in _STORAGES
        for kind in kinds
    )


def _is_cuda(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names or "out of memory" in str(error):
        return False
    message = isinstance(error, RuntimeError) and any(words in str(error) for words in _CUDA)
    return message or "AcceleratorError" in names


def one_line(error: BaseException) -> str:
    """Kind and message of an error, on a line."""
    if type(error).__name__ == "StorageInternalError" and error.__cause__ is not None:
        error = error.__cause__  # Optuna's own message guesses at the reason, and misleads.
    message = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {message}"


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


def failed_attempts(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
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
        reason = str(attempt.user_attrs.get(FAILURE_REASON, ""))
        if reason != INTERRUPTED and not reason.startswith(MACHINE):
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
    attempts = failed_attempts(trial, trials)
    if attempts <= max_retries:
        return LOST, reason
    return CANDIDATE, f"lost {attempts} times; the last time: {reason}"


def explain_failure(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Say on a trial that its own worker fails why it does, unless the objective has."""
    if trial.state != TrialState.FAIL or FAILURE in trial.user_attrs:
        return
    cause = _cause_of_failure()
    if isinstance(cause, KeyboardInterrupt):
        attrs = {FAILURE: LOST, FAILURE_REASON: INTERRUPTED}
    elif cause is not None and is_grounds(cause):
        attrs = {FAILURE: LOST, FAILURE_REASON: f"{MACHINE}{one_line(cause)}"}
    else:
        reason = "the value is not a number" if cause is None else repr(cause)
        attrs = {FAILURE: CANDIDATE, FAILURE_REASON: reason}
    for name, value in attrs.items():
        storage.set_trial_user_attr(trial._trial_id, name, value)
    trial.user_attrs = trial.user_attrs | attrs


def _cause_of_failure() -> BaseException | None:
    """What the objective raised, when Optuna tells of it; None if that cannot be known.

    Optuna does not pass it on, but Ctrl-C must not count against a candidate; so this looks into
    Optuna's own frame. Under ask and tell there is none.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run_trial":
            cause: BaseException | None = frame.f_locals.get("func_err")
            return cause
        frame = frame.f_back
    return None


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


def fail_own(
    storage: BaseStorage, trials: Sequence[FrozenTrial], reason: str, thread: int | None = None
) -> bool:
    """End the running trials of a thread of this process, by default of this one, as lost.

    Returns:
        Whether there were any.
    """
    own = [t for t in trials if t.state == TrialState.RUNNING and is_own(t, thread)]
    for trial in own:
        fail_as_lost(storage, trial, reason)
    return bool(own)


def fail_dead(storage: BaseStorage, trials: Sequence[FrozenTrial], max_retries: int) -> bool:
    """End the running trials whose worker is known to be gone.

    Args:
        storage: The study's storage.
        trials: All trials of the study, by number.
        max_retries: How often a candidate is tried again that gets no further.

    Returns:
        Whether there were any.
    """
    running = (trial for trial in trials if trial.state == TrialState.RUNNING)
    return _fail(storage, filter(worker_is_dead, running), trials, max_retries)


def fail_those_of(
    storage: BaseStorage, trials: Sequence[FrozenTrial], max_retries: int, host: str, pid: int
) -> bool:
    """The same of a process of which somebody else knows that it is gone.

    Should it live, it finds its trial ended, and drops what it has.
    """
    own = (trial for trial in trials if is_of_process(trial, host, pid))
    return _fail(storage, own, trials, max_retries)


def _fail(
    storage: BaseStorage,
    dead: Iterable[FrozenTrial],
    trials: Sequence[FrozenTrial],
    max_retries: int,
) -> bool:
    """End those that are running."""
    found = [trial for trial in dead if trial.state == TrialState.RUNNING]
    for trial in found:
        reason = "the worker's process is gone"
        kind, reason = explain_loss(trial, trials, max_retries, reason)
        fail_as_lost(storage, trial, reason, kind)
    return bool(found)
