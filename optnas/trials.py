"""What optnas writes on a trial: its claim, its worker's lease, and why it failed.

Claims and leases are system attributes (not for readers); everything a person may want to see
is a user attribute.
"""

import contextlib
import dataclasses
import functools
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

CLAIM = "optnas:claim"
LEASE = "optnas:lease"
RUNG = "optnas:rung"
"""Number of multiples of its epochs that a hierarchical pruner saw the trial reach."""

CONTINUES = "continues"
SCHEDULE = "schedule_epochs"
"""Epochs of the learning rate's schedule, where a trial trains only the beginning of it."""
FAILURE = "failure"
FAILURE_REASON = "failure_reason"
PHASE = "phase"
"""What a trial does: a user attribute; where trials are of several kinds, a parameter too."""
TOPOLOGY = "topology"
OPERATORS = "operators"
ARCHITECTURE = "architecture"
PHASES = (TOPOLOGY, OPERATORS, ARCHITECTURE)
"""The values of the parameter: a search for edges, one for operations, a network's training."""
EDGE_WEIGHTS = "edge_weights"
"""How strong a super-network's edges are: by kind of cell, node and predecessor."""
OPERATION_WEIGHTS = "operation_weights"
"""How strong the operations of every edge are, in the space's order; softmaxed."""
HUMAN_DESIGNED = "human_designed"
"""What a network is called that people designed and no strategy proposed."""
STAGE_IMPORTANCE = "stage_importance"
"""How important each stage is: a list of numbers, which the stage-wise search reads."""
TRAIN_ACCURACY = "train_accuracy"
TRAIN_SECONDS = "train_seconds"
TRAIN_JOULES = "train_joules"
"""Energy of a training that came to its end, where the device counted that of every epoch."""
DEVICE_MEMORY = "device_memory"
"""What a GPU's memory held when a training ended: see `optnas.objectives.memory.device_memory`."""

MAX_EPOCHS = 1_000_000
"""The parameter ``epochs`` is suggested from 1 to this."""

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
        attrs: The user attributes given with them.
        continues: Number of the lost trial that this one goes on from.
    """

    index: int
    params: Mapping[str, Any]
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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


def renew_lease(
    storage: BaseStorage, trial_id: int, seconds: float | None, *, decides: bool = False
) -> dict[str, Any]:
    """Say that this process works on a trial.

    Args:
        storage: The study's storage.
        trial_id: The storage's id of the trial.
        seconds: The lease is renewed, or the trial finished, within this time; a worker on
            another host that does not keep the promise is taken for dead. None promises nothing.
        decides: Whether the trial has no candidate yet. It may have been asked for and forgotten
            by a process that lives, so that a broken promise says nothing of its worker.

    Returns:
        The lease.
    """
    pid = os.getpid()
    lease: dict[str, Any] = {
        "host": _host(),
        "pid": pid,
        "started": _process_start(pid),
        "until": None if seconds is None else time.time() + seconds,
        "decides": decides,
    }
    storage.set_trial_system_attr(trial_id, LEASE, lease)
    return lease


def lease_expired(trial: FrozenTrial) -> bool:
    """Whether the promise in the lease of ``trial`` is broken."""
    until: float | None = trial.system_attrs.get(LEASE, {}).get("until")
    return until is not None and time.time() > until


def worker_is_dead(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial is known to be gone.

    On this host its process is looked up; on another host a broken promise decides.
    """
    lease = trial.system_attrs.get(LEASE)
    if lease is None:
        return False
    if is_local(trial):
        return bool(_process_start(lease["pid"]) != lease["started"])
    has_candidate = CLAIM in trial.system_attrs or not lease.get("decides", False)
    return has_candidate and lease_expired(trial)


def is_local(trial: FrozenTrial) -> bool:
    """Whether the lease of ``trial`` is that of a process on this host."""
    lease = trial.system_attrs.get(LEASE)
    return lease is not None and lease["host"] == _host()


@functools.cache
def _host() -> str:
    """Where process numbers mean the same: a machine, and on Linux a namespace of its own."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _process_start(pid: int) -> str | None:
    """An identity of the process beyond its number, which is reused; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # No such process, no /proc, or no permission.
        return "exists" if _process_exists(pid) else None
    state, *fields = stat.rpartition(")")[2].split()
    # A zombie is dead: only its parent has not looked yet. Field 22 is the start time.
    return None if state in "ZX" else fields[18]


def _process_exists(pid: int) -> bool:
    if os.name == "nt":  # There is nothing harmless to send.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether ``trial`` violates no constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())


def queued_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The parameters that a trial was queued with."""
    fixed: Mapping[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed


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
