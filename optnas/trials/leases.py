"""Which process works on a trial, and whether it is alive."""

import contextlib
import functools
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optnas.trials.attributes import CLAIM, LEASE

_UNKNOWN = "exists"


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
    lease = new_lease(seconds, decides=decides)
    storage.set_trial_system_attr(trial_id, LEASE, lease)
    return lease


def new_lease(seconds: float | None, *, decides: bool = False) -> dict[str, Any]:
    """The lease that `renew_lease` writes."""
    pid = os.getpid()
    return {
        "host": this_host(),
        "boot": _boot(),
        "card": _card(),
        "pid": pid,
        "started": _process_start(pid),
        "thread": threading.get_ident(),
        "until": None if seconds is None else time.time() + seconds,
        "decides": decides,
    }


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
    if _was_rebooted(lease):
        return True
    if is_local(trial):
        started = _process_start(lease["pid"])
        if started is None:
            return True
        if _UNKNOWN not in (started, lease["started"]):
            return bool(started != lease["started"])
        # Nobody can tell: alive, until the promise is broken.
    has_candidate = CLAIM in trial.system_attrs or not lease.get("decides", False)
    return has_candidate and lease_expired(trial)


def is_own(trial: FrozenTrial, thread: int | None = None) -> bool:
    """Whether the lease of ``trial`` is that of this very thread of this process, or another."""
    lease = trial.system_attrs.get(LEASE)
    return (
        lease is not None
        and is_local(trial)
        and lease["pid"] == os.getpid()
        and lease["started"] == _process_start(os.getpid())
        and lease.get("thread") == (threading.get_ident() if thread is None else thread)
    )


def is_local(trial: FrozenTrial) -> bool:
    """Whether the lease of ``trial`` is that of a process on this host."""
    lease = trial.system_attrs.get(LEASE)
    return (
        lease is not None
        and lease["host"] == this_host()
        and lease.get("boot", _boot()) == _boot()  # Version 0.1.0 does not say it.
    )


def is_of_process(trial: FrozenTrial, host: str, pid: int) -> bool:
    """Whether the lease of ``trial`` is that of the process with a number on a host."""
    lease = trial.system_attrs.get(LEASE)
    return lease is not None and (lease["host"], lease["pid"]) == (host, pid)


def _was_rebooted(lease: dict[str, Any]) -> bool:
    """Whether a lease is from before this very machine was started the last time.

    Machines made from one image have one name and one identity, but not one network card.
    """
    restarted = lease["host"] == this_host() and lease.get("boot", _boot()) != _boot()
    return bool(restarted and lease.get("card", "") == _card() != "")


@functools.cache
def _boot() -> str:
    """What tells a start of a machine from all others; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@functools.cache
def _card() -> str:
    """The address of the machine's network card; empty where it has none."""
    node = uuid.getnode()
    return "" if node >> 40 & 1 else f"{node:012x}"  # The bit says that it was drawn.


@functools.cache
def this_host() -> str:
    """Where process numbers mean the same: a machine, and on Linux a namespace of its own."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/etc/machine-id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _process_start(pid: int) -> str | None:
    """An identity of the process beyond its number, which is reused.

    On Linux it is when the process started, in clock ticks from the machine's start on: the time
    of day would be another one once the clock is set. ``_UNKNOWN`` where nothing of that kind is
    to be had, None if the process is gone.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None  # Only its parent has not looked yet.
        if not psutil.LINUX:
            return _UNKNOWN
        seconds = process.create_time() - psutil.boot_time()
        return str(round(seconds * os.sysconf("SC_CLK_TCK")))
    except psutil.NoSuchProcess:
        return _UNKNOWN if _is_hidden(pid) else None
    except psutil.AccessDenied:
        return _UNKNOWN


def _is_hidden(pid: int) -> bool:
    """Whether there is a process after all, of a user whose processes the system hides."""
    if os.name != "nt":  # On Windows there is nothing harmless to send.
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        except ProcessLookupError:
            pass
    return False
