"""Searches whose storage fails between any two of its calls, held to undisturbed ones.

Faults are raised where the driver would raise them: at a statement, a commit or a connection of a
database, at an operation on the file of a journal. Time stands still but for those who wait.
"""

import contextlib
import dataclasses
import datetime
import errno
import functools
import itertools
import os
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from optuna.storages.journal import _file as journal_files
from optuna.trial import FrozenTrial, TrialState
from servers import PostgreSQL
from sqlalchemy.engine.default import DefaultDialect

import optnas
from optnas.errors import RunError, UserError
from optnas.trials.attributes import CANDIDATE, FAILURE, PHASE
from optnas.trials.lineage import parent_of

STUDY = """\
study: faulty
objective: {name: "napping:Nap", seconds: 0, epochs: 2}
"""
STRATEGIES = {
    "macro-micro": """\
space: {depth: [2, 2], width: [4, 6]}
sampler: {name: macro_micro, patience: 0.2, search_operations: false}
""",
    "econas": """\
space: {name: cell, nodes: 2}
sampler: {name: econas, initial: 4, cycles: 1, parents: [2, 1, 1], patience: 0.2}
budget: {trials: 6}
""",
    "randgrow": """\
space: {name: growth, cells: 1}
sampler: {name: randgrow, increments: 1, patience: 0.2}
budget: {trials: 5}
""",
}
WAITING = (
    "optnas.storage.retrying",
    "optnas.storage.opening",
    "optnas.running.loop",
    "optnas.study.record",
    "optuna.storages._rdb.storage",
    "optuna.storages.journal._file",
)
"""Modules that wait for a storage."""
STORAGES = ("sqlite", "journal", "postgresql")
SQLITE: Mapping[str, Callable[[], Exception]] = {
    "locked": lambda: sqlite3.OperationalError("database is locked"),
    "full": lambda: sqlite3.OperationalError("database or disk is full"),
    "broken": lambda: sqlite3.OperationalError("disk I/O error"),
    "away": lambda: sqlite3.OperationalError("unable to open database file"),
    "read-only": lambda: sqlite3.OperationalError("attempt to write a readonly database"),
    "misused": lambda: sqlite3.InterfaceError("bad parameter or other API misuse"),
    "internal": lambda: sqlite3.InternalError("unknown error"),
    "closed": lambda: sqlite3.ProgrammingError("Cannot operate on a closed database."),
    "driver": lambda: sqlite3.DatabaseError("not an error"),
    "pool": lambda: sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached"),
}


def _postgresql() -> Mapping[str, Callable[[], Exception]]:
    from psycopg import errors

    closed = "server closed the connection unexpectedly"
    return {
        "gone": lambda: errors.OperationalError(closed),
        "shut down": lambda: errors.AdminShutdown("terminating connection due to administrator"),
        "starting": lambda: errors.CannotConnectNow("the database system is starting up"),
        "crowded": lambda: errors.TooManyConnections("too many connections for role"),
        "deadlock": lambda: errors.DeadlockDetected("deadlock detected"),
        "collision": lambda: errors.SerializationFailure("could not serialize access"),
        "full": lambda: errors.DiskFull("could not extend file: No space left on device"),
        "broken": lambda: errors.IoError("could not read block 0: Input/output error"),
        "cancelled": lambda: errors.QueryCanceled("canceling statement due to statement timeout"),
        "locked": lambda: errors.LockNotAvailable("canceling statement due to lock timeout"),
        "aborted": lambda: errors.InFailedSqlTransaction("current transaction is aborted"),
        "read-only": lambda: errors.ReadOnlySqlTransaction("in a read-only transaction"),
        "closed": lambda: errors.InterfaceError("the connection is closed"),
        "internal": lambda: errors.InternalError_("cache lookup failed"),
        "pool": lambda: sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10"),
    }


JOURNAL: Mapping[str, Callable[[], Exception]] = {
    name: functools.partial(OSError, number, name)
    for name, number in {
        "No space left on device": errno.ENOSPC,
        "Disk quota exceeded": errno.EDQUOT,
        "Input/output error": errno.EIO,
        "Stale file handle": errno.ESTALE,
        "Connection timed out": errno.ETIMEDOUT,
        "No locks available": errno.ENOLCK,
        "Interrupted system call": errno.EINTR,
        "Transport endpoint is not connected": errno.ENOTCONN,
        "Host is down": errno.EHOSTDOWN,
        "No route to host": errno.EHOSTUNREACH,
        "Read-only file system": errno.EROFS,
        "Permission denied": errno.EACCES,
        "Too many open files": errno.EMFILE,
        "Cannot allocate memory": errno.ENOMEM,
    }.items()
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong in a storage.

    Args:
        share: Where: the share of the undisturbed search's calls that come before it.
        kind: What: one of its storage's errors, ``hang``, or ``cut`` (the connection is closed).
        is_late: Whether the call was done, and only its answer is lost.
        seconds: How long it lasts, in the time of those who wait.
    """

    share: float
    kind: str
    is_late: bool
    seconds: float


def kinds(storage: str) -> Mapping[str, Callable[[], Exception]]:
    """What may be raised in a storage, by name."""
    return {"sqlite": lambda: SQLITE, "postgresql": _postgresql, "journal": lambda: JOURNAL}[
        storage
    ]()


def faults(storage: str) -> st.SearchStrategy[list[Fault]]:
    """Some faults of a storage during one search."""
    names = [*kinds(storage), "hang", *(["cut"] if storage == "postgresql" else [])]
    fault = st.builds(
        Fault,
        share=st.floats(0, 1, exclude_max=True),
        kind=st.sampled_from(names),
        is_late=st.booleans(),
        seconds=st.sampled_from((0.0, 3.0, 50.0, 90.0, 250.0, 400.0)),
    )
    return st.lists(fault, min_size=2, max_size=4)


class Clock:
    """Time that passes only where somebody waits; takes the place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def time(self) -> float:
        return time.time()


class Injector:
    """Counts the calls of a storage, and has faults happen.

    Args:
        storage: Which kind.
        clock: The time that faults last.
        calls: How many calls an undisturbed search makes.
        planned: The faults.
    """

    def __init__(self, storage: str, clock: Clock, calls: int, planned: list[Fault]) -> None:
        self._kinds = kinds(storage)
        self._clock = clock
        self._pending = sorted(((int(f.share * calls), f) for f in planned), key=lambda p: p[0])
        self._lasting: Fault | None = None
        self._until = 0.0
        self.calls = 0
        self.injected = 0

    def call(self, method: Callable[[], Any], cut: Callable[[], None] = lambda: None) -> Any:
        """Call something of the storage, unless it fails."""
        self.calls += 1
        fault = self._current()
        if fault is None:
            return method()
        if fault.kind == "hang":
            self._clock.sleep(fault.seconds)
            self._lasting = None
            return method()
        if fault.kind == "cut":
            cut()
            self._lasting = None
            return method()
        if fault.is_late:
            method()
        raise self._kinds[fault.kind]()

    def is_over(self) -> None:
        """What lasts ends."""
        self._lasting = None

    def _current(self) -> Fault | None:
        if self._lasting is not None and self._clock.now >= self._until:
            self._lasting = None
        if self._lasting is None and self._pending and self._pending[0][0] < self.calls:
            self._lasting = self._pending.pop(0)[1]
            self._until = self._clock.now + self._lasting.seconds
            self.injected += 1
            return self._lasting
        # A call that was done is not undone: only the first answer is lost.
        return None if self._lasting is None else dataclasses.replace(self._lasting, is_late=False)


@contextlib.contextmanager
def injected(injector: Injector, clock: Clock) -> Iterator[None]:
    """Have storages fail inside, and whoever waits for them not wait."""
    unleased = datetime.timedelta(seconds=0.2)
    with contextlib.ExitStack() as stack:
        for module in WAITING:
            stack.enter_context(mock.patch(f"{module}.time", clock))
        stack.enter_context(mock.patch("optnas.running.loop.UNLEASED", unleased))
        # Drawings take longer than all the rest.
        stack.enter_context(mock.patch("optnas.running.runner.with_drawings", lambda o, *_: o))
        for dialect, name in _driver_calls():
            faulty = _faulty(getattr(dialect, name), injector)
            stack.enter_context(mock.patch.object(dialect, name, faulty))
        replaced = {"open": functools.partial(_open, injector, open), "os": _System(injector)}
        for name, value in replaced.items():
            stack.enter_context(mock.patch.object(journal_files, name, value, create=True))
        opening = functools.partialmethod(_open_path, injector)
        stack.enter_context(mock.patch.object(Path, "open", opening))
        yield


def _driver_calls() -> Iterator[tuple[type, str]]:
    """Through which SQLAlchemy asks its drivers for something."""
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    for name in ("connect", "do_execute", "do_executemany", "do_execute_no_params", "do_commit"):
        for dialect in (DefaultDialect, PGDialect_psycopg):
            if name in vars(dialect):
                yield dialect, name


def _faulty(method: Callable[..., Any], injector: Injector) -> Callable[..., Any]:
    def call(dialect: Any, *args: Any, **kwargs: Any) -> Any:
        def cut() -> None:
            if args and hasattr(args[0], "close"):
                getattr(args[0], "connection", args[0]).close()

        return injector.call(lambda: method(dialect, *args, **kwargs), cut)

    return call


class _System:
    """The module ``os``, whose calls may fail."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in ("fsync", "symlink", "stat", "rename", "unlink"):
            return function
        return lambda *args: self._injector.call(lambda: function(*args))


class _File:
    """A file of a journal; a disk that is full takes half of what is written."""

    def __init__(self, file: Any, injector: Injector) -> None:
        self._file = file
        self._injector = injector

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._injector.call(lambda: self._file))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> int:
        try:
            return self._injector.call(lambda: self._file.write(content))
        except OSError:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise


def _open(injector: Injector, function: Callable[..., Any], *args: Any) -> Any:
    return _File(injector.call(lambda: function(*args)), injector)


def _open_path(path: Path, injector: Injector, *args: Any, **kwargs: Any) -> Any:
    """What a journal's lock opens."""
    if path.suffix != ".log":
        return open(path, *args, **kwargs)
    return _open(injector, open, path, *args)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a search ended.

    Args:
        found: The architecture found.
        results: Every candidate with what it came to.
        calls: How often it called its storage.
        injected: How many faults happened.
        runs: How often it was started.
    """

    found: Any
    results: frozenset[tuple[Any, ...]]
    calls: int
    injected: int
    runs: int


class Wrong(AssertionError):
    """A search that was disturbed did not end as it should."""


class Ground:
    """Where searches run: a folder, and a server that is there while it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._server: PostgreSQL | None = None
        self._undisturbed: dict[tuple[str, str], Ended] = {}

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.remove()

    def undisturbed(self, storage: str, strategy: str) -> Ended:
        """The search of a strategy that nothing disturbs."""
        if (storage, strategy) not in self._undisturbed:
            self._undisturbed[storage, strategy] = self._search(storage, strategy, 0, [])
        return self._undisturbed[storage, strategy]

    def check(self, storage: str, strategy: str, planned: list[Fault]) -> Ended:
        """Search with faults.

        Raises:
            Wrong: If it does not end like the undisturbed one.
        """
        alone = self.undisturbed(storage, strategy)
        ended = self._search(storage, strategy, alone.calls, planned)
        if ended.found != alone.found:
            raise Wrong(f"found {ended.found} instead of {alone.found}")
        if ended.results != alone.results:
            more, fewer = ended.results - alone.results, alone.results - ended.results
            raise Wrong(f"more: {list(more)}, fewer: {list(fewer)}")
        return ended

    def _search(self, storage: str, strategy: str, calls: int, planned: list[Fault]) -> Ended:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        shutil.copy(Path(__file__).parents[1] / "benchmarks" / "napping.py", folder)
        file = folder / "faulty.yaml"
        file.write_text(f"{STUDY}{STRATEGIES[strategy]}storage: {self._url(storage, folder)}\n")
        clock = Clock()
        injector = Injector(storage, clock, calls, planned)
        with injected(injector, clock), warnings.catch_warnings(action="ignore"):
            outcome, runs = _persist(file, injector, len(planned))
        trials = outcome.study.get_trials(deepcopy=False)
        _check(trials)
        found = outcome.study.sampler.found(outcome.study)  # type: ignore[attr-defined]
        shutil.rmtree(folder)
        space = outcome.opened.config.search_space
        results = [_result(space, trials, trial) for trial in filter(_has_result, trials)]
        if len(set(results)) < len(results):
            raise Wrong(f"candidates were trained twice: {results}")
        return Ended(found, frozenset(results), injector.calls, injector.injected, runs)

    def _url(self, storage: str, folder: Path) -> str:
        if storage != "postgresql":
            return f"{storage}:///{folder}/faulty.{'log' if storage == 'journal' else 'db'}"
        if self._server is None:
            self._server = PostgreSQL()
        return self._server.new_database()


def check_many(
    ground: Ground, storage: str, strategies: Sequence[str], *, searches: int, number: int = 0
) -> tuple[int, int]:
    """Search with faults, of which hypothesis chooses where and what.

    Args:
        ground: Where.
        storage: In which kind of storage.
        strategies: Which strategies.
        searches: How often.
        number: Another number is another choice.

    Returns:
        How many faults happened, and how many runs they ended.

    Raises:
        Wrong: About a search that ended otherwise than undisturbed, made as simple as can be.
    """
    counts = [0, 0]

    @seed(number)
    @settings(max_examples=searches, deadline=None, database=None, report_multiple_bugs=False)
    @given(st.sampled_from(strategies), faults(storage))
    def check(strategy: str, planned: list[Fault]) -> None:
        ended = ground.check(storage, strategy, planned)
        counts[0] += ended.injected
        counts[1] += ended.runs - 1

    check()
    return counts[0], counts[1]


def _persist(file: Path, injector: Injector, most: int) -> tuple[Any, int]:
    """Run a search to its end, with the same command again when the machine stopped it."""
    for runs in itertools.count(1):
        try:
            return optnas.run(file), runs
        except (RunError, UserError) as error:
            if "\n" in str(error) or runs > most:
                raise Wrong(f"run {runs}: {error}") from error
            injector.is_over()
    raise AssertionError


def _check(trials: list[FrozenTrial]) -> None:
    running = [trial.number for trial in trials if not trial.state.is_finished()]
    if running:
        raise Wrong(f"trials {running} are left running")
    for trial in trials:
        if trial.user_attrs.get(FAILURE) == CANDIDATE:
            raise Wrong(f"trial {trial.number} counts as failed: {trial.user_attrs}")


def _has_result(trial: FrozenTrial) -> bool:
    return bool(trial.params) and trial.state == TrialState.COMPLETE


def _result(space: Any, trials: list[FrozenTrial], trial: FrozenTrial) -> tuple[Any, ...]:
    """What a candidate came to, without the numbers of trials, which losses shift."""
    parent = parent_of(trial)
    before = None if parent is None else space.named_by(trials[parent])
    curve = tuple(sorted(trial.intermediate_values.items()))
    return trial.user_attrs.get(PHASE), space.named_by(trial), before, trial.value, curve
