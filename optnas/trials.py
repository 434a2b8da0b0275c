"""What optnas writes on a trial: its claim, its worker's lease, and why it failed.

Claims and leases are system attributes (not for readers); everything a person may want to see
is a user attribute.
"""

import contextlib
import dataclasses
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

CLAIM = "optnas:claim"
LEASE = "optnas:lease"

CONTINUES = "continues"
FAILURE = "failure"
FAILURE_REASON = "failure_reason"
PHASE = "phase"
TRAIN_ACCURACY = "train_accuracy"

LOST: Literal["lost"] = "lost"
CANDIDATE: Literal["candidate"] = "candidate"
INTERRUPTED = "interrupted"
"""The reason of a loss that was wanted (Ctrl-C, a budget's end): it is no failed attempt."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """The candidate that a trial was given.

    Args:
        index: Number of distinct candidates that the study had claimed before this one.
        params: The parameters proposed for the trial.
        continues: Number of the lost trial that this one goes on from.
    """

    index: int
    params: Mapping[str, Any]
    continues: int | None = None

    @classmethod
    def of(cls, trial: FrozenTrial) -> "Claim | None":
        """The claim of ``trial``, or None if it was not given a candidate."""
        fields = trial.system_attrs.get(CLAIM)
        return None if fields is None else cls(**fields)

    def write(self, storage: BaseStorage, trial: FrozenTrial) -> None:
        """Store the claim, and show it on ``trial`` itself."""
        fields = dataclasses.asdict(self)
        storage.set_trial_system_attr(trial._trial_id, CLAIM, fields)
        trial.system_attrs[CLAIM] = fields


def renew_lease(storage: BaseStorage, trial_id: int, seconds: float | None) -> None:
    """Say that this process works on a trial.

    Args:
        storage: The study's storage.
        trial_id: The storage's id of the trial.
        seconds: The lease is renewed, or the trial finished, within this time; a worker on
            another host that does not keep the promise is taken for dead. None promises nothing.
    """
    pid = os.getpid()
    lease: dict[str, Any] = {
        "host": platform.node(),
        "pid": pid,
        "started": _process_start(pid),
        "until": None if seconds is None else time.time() + seconds,
    }
    storage.set_trial_system_attr(trial_id, LEASE, lease)


def lease_expired(trial: FrozenTrial, default_seconds: float) -> bool:
    """Whether the promise in the lease of ``trial`` is broken.

    A trial without a lease is measured from its start, by ``default_seconds``.
    """
    lease = trial.system_attrs.get(LEASE)
    if lease is None:
        start = trial.datetime_start
        return start is not None and time.time() - start.timestamp() > default_seconds
    until: float | None = lease["until"]
    return until is not None and time.time() > until


def worker_is_dead(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is known to be gone.

    On this host its process is looked up; on another host a broken promise decides.
    """
    lease = trial.system_attrs.get(LEASE)
    if lease is None:
        return False
    if lease["host"] == platform.node():
        return bool(_process_start(lease["pid"]) != lease["started"])
    return CLAIM in trial.system_attrs and lease_expired(trial, 0.0)


def _process_start(pid: int) -> str | None:
    """An identity of the process beyond its number, which is reused; None if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        state, *fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        if stat.parent.parent.joinpath("self").exists():
            return None
        return _process_exists(pid)
    # A zombie is dead: only its parent has not looked yet. Field 22 is the start time.
    return None if state in "ZX" else fields[18]


def _process_exists(pid: int) -> str | None:
    """For systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "exists"


def mark_failure(trial: Trial, kind: Literal["lost", "candidate"], reason: str) -> None:
    """Record on a running trial why it is about to fail."""
    trial.set_user_attr(FAILURE, kind)
    trial.set_user_attr(FAILURE_REASON, reason)


def fail_as_lost(storage: BaseStorage, trial: FrozenTrial, reason: str) -> None:
    """End a running trial whose worker is gone; another worker may do so at the same time."""
    with contextlib.suppress(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial._trial_id, FAILURE, LOST)
        storage.set_trial_user_attr(trial._trial_id, FAILURE_REASON, reason)
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
