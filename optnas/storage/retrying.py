"""Storages that several processes share: what collides or goes away is tried again.

Every method of a storage is a transaction of its own, so each is repeated by itself. It may have
been done already, with only the answer lost. Attributes, reports and states are then set to what
they are; parameters are ignored by Optuna where they exist. A new trial or a waiting one, though,
stays behind, running without a worker: it has no lease, and is given up like that of a worker
killed before it wrote one.
"""

import contextvars
import errno
import functools
import random
import re
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from optnas.errors import RunError
from optnas.storage.checking import (
    CheckedDatabase,
    CheckedJournal,
    CheckedProxy,
    Checks,
    LineCheckedBackend,
)
from optnas.storage.soundness import damage_of_file
from optnas.storage.transactions import transaction
from optnas.storage.urls import engine_url, hide_password, reason_of, storage_file
from optnas.trials.damage import DamagedError

SQLITE_TIMEOUT = 60.0
"""Seconds for which sqlite itself waits for the others; then it is asked again."""
PATIENCE = 300.0
"""Seconds for which a storage that is locked, or does not answer, is asked again."""
FULL_PATIENCE = 60.0
"""Seconds for which a disk that is full or broken is tried again: people must make room."""
LONGEST_PAUSE = 2.0
"""Seconds between two attempts, at most."""

_KEEP_ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
"""Seconds, and how often: a machine that was switched off says nothing for two hours otherwise."""

METHODS = (
    "create_new_study",
    "get_n_trials",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
)
DATABASE_METHODS = (  # Which Optuna calls from behind its cache.
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_attrs",
    "_get_trials",
    "_get_best_trial_id",
    "get_trial_param",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
)
_PROXY_METHODS = ("create_new_trial", "set_trial_param", "get_all_trials")

_LASTING = (
    "readonly database",
    "no such table",
    "no such column",
    "file is not a database",
    "malformed",
)
_OF_THE_MOMENT = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.InternalError,  # PostgreSQL's read-only transactions, after a failover.
    sqlalchemy.exc.TimeoutError,  # No connection of the pool is free.
)
_NO_TEXT = re.compile(r"Could not decode to UTF-8 column '(\w+)'")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_AWAY = (errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH)
_BUSY = (errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK)
_PASSING = (*_FULL, *_AWAY, *_BUSY)

_JITTER = random.Random()  # Its own, so that nobody's seeds are disturbed.
_READING = contextvars.ContextVar("_READING", default=False)

S = TypeVar("S", bound=type[BaseStorage])


def patient(names: Iterable[str], passes: Callable[[Exception], bool]) -> Callable[[S], S]:
    """Have methods of a storage called again while what they raise ``passes``."""

    def decorate(cls: S) -> S:
        for name in names:
            setattr(cls, name, _retried(getattr(cls, name), passes))
        return cls

    return decorate


def _retried(method: Callable[..., Any], passes: Callable[[Exception], bool]) -> Any:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        pause = 0.02
        while True:
            try:
                with transaction():
                    result = method(self, *args, **kwargs)
            except Exception as error:
                self.outage.check_sound(error)
                if not passes(error):
                    raise
                self.outage.lasts(error)
            else:
                self.outage.is_over()
                return result
            time.sleep(pause * _JITTER.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    return call


class StorageGone(RunError):
    """A storage was away for too long; the message says which, why, and how to go on."""


class Outage(threading.local):
    """How long a storage has not answered a thread: counted over all of its calls together.

    What others can still read says nothing of what this one cannot write: on a full disk, say.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._since: float | None = None
        self._told = self._examined = False
        self._file = storage_file(url) if url.startswith("sqlite") else None

    def __reduce__(self) -> tuple[type["Outage"], tuple[str]]:
        return Outage, (self._url,)

    def check_sound(self, error: Exception) -> None:
        """Tell damage, which does not pass, from an outage; asked once in each.

        Raises:
            DamagedError: If the storage is a file that is damaged.
        """
        text = _NO_TEXT.search(str(error.__cause__ or error))
        if text is not None:
            raise DamagedError(
                f"{hide_password(self._url)}: the database is damaged: a text in the column "
                f"{text[1]} is no UTF-8; restore a copy"
            ) from error
        if self._file is None or self._examined or not _is_of_database(error):
            return
        self._examined = True
        reason = None if "locked" in str(error) else damage_of_file(self._file)
        if reason is not None:
            raise DamagedError(f"{self._url}: {reason}") from error

    def lasts(self, error: Exception) -> None:
        """An attempt was in vain.

        Raises:
            StorageGone: If the storage has been away for too long.
        """
        now = time.monotonic()
        self._since = since = now if self._since is None else self._since
        message = f"{hide_password(self._url)}: {reason_of(error, self._url)}"
        patience = FULL_PATIENCE if is_full(error) else PATIENCE
        if now - since > patience:
            why = "no room" if is_full(error) else "no answer"
            raise StorageGone(
                f"{message}: {why} for {patience:.0f} seconds; nothing is lost: the same command "
                "goes on"
            ) from None
        if not self._told and now - since > LONGEST_PAUSE:  # Collisions are over by then.
            self._told = True
            warnings.warn(f"{message}; trying again for {patience:.0f} seconds.", stacklevel=4)

    def is_over(self) -> None:
        """An attempt succeeded."""
        self._since, self._told, self._examined = None, False, False


def is_full(error: BaseException | None) -> bool:
    """Whether a disk is full or broken, which does not pass by itself."""
    while error is not None:
        message = str(error)
        if "disk is full" in message or "disk I/O error" in message or "No space left" in message:
            return True
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_of_database(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, sqlalchemy.exc.IntegrityError):
            return False  # A row that is there already, such as that of the study.
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            return True
        error = error.__cause__ or error.__context__
    return False


def may_pass_journal(error: Exception) -> bool:
    """Whether a file's error is of the moment: not that it may not be written to at all."""
    return isinstance(error, OSError) and error.errno in _PASSING


def may_pass(error: Exception) -> bool:
    """Whether a database's error is of the moment: a collision, or a connection that broke."""
    if isinstance(error, ConnectionError):
        return True
    if not isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _OF_THE_MOMENT):
            return not any(words in str(cause) for words in _LASTING)
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return True
        # Optuna asks again in the same transaction, which is broken then.
        cause = cause.__cause__ or cause.__context__
    return False


def _is_unavailable(error: Exception) -> bool:
    """Whether a proxy's error means that nobody listens, or that the connection broke."""
    code = getattr(error, "code", None)
    return callable(code) and getattr(code(), "name", None) in ("UNAVAILABLE", "CANCELLED")


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        token = _READING.set(True)
        try:
            return method(*args, **kwargs)
        finally:
            _READING.reset(token)

    return call


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer not wait for each other, in this database from now on."""
    deadline = time.monotonic() + SQLITE_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # A switch fails at once while somebody writes: sqlite waits in transactions only.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class _FinishesOnce(BaseStorage):
    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        try:
            return super().set_trial_state_values(trial_id, state, values)  # type: ignore[safe-super]
        except UpdateFinishedTrialError:
            trial = self.get_trial(trial_id)
            if trial.state != state or trial.values != (values and list(values)):
                raise
            return True  # The answer to the attempt before was lost.


@patient((*METHODS, *DATABASE_METHODS), may_pass)
class SQLiteStorage(_FinishesOnce, CheckedDatabase):
    """A database in a file that several processes can write to.

    Optuna reads before it writes within a transaction, which two sqlite writers cannot do at
    once; so a transaction that may write takes the write lock at its start, and waits for it.
    Those that read long keep nobody waiting.

    Args:
        url: Its URL.
    """

    _get_trials = _reading(CheckedDatabase._get_trials)
    get_trial = _reading(CheckedDatabase.get_trial)
    get_all_studies = _reading(RDBStorage.get_all_studies)
    get_study_user_attrs = _reading(CheckedDatabase.get_study_user_attrs)
    get_study_system_attrs = _reading(CheckedDatabase.get_study_system_attrs)

    def __init__(self, url: str) -> None:
        self.checks, self.outage = Checks(), Outage(url)
        options = {"connect_args": {"timeout": SQLITE_TIMEOUT}}
        super().__init__(engine_url(url), engine_kwargs=options)
        self._configure()

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._configure()

    def _configure(self) -> None:
        @sqlalchemy.event.listens_for(self.engine, "connect")
        def connect(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # Transactions begin where the next listener says.
            _use_wal(connection)
            # A commit survives the death of any process, and is not waited for on the disk: when
            # the power fails, the last few may be undone, and the file is whole.
            connection.execute("PRAGMA synchronous=NORMAL")

        @sqlalchemy.event.listens_for(self.engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN" if _READING.get() else "BEGIN IMMEDIATE")

        self.engine.dispose()  # Connections made before the listeners.


def _alive_options(url: str) -> dict[str, int]:
    """Options of a client that notices when its server is gone; the URL's own count more."""
    parsed = sqlalchemy.make_url(engine_url(url))
    if parsed.drivername not in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        return {}  # Others call them otherwise.
    return {name: value for name, value in _KEEP_ALIVE.items() if name not in parsed.query}


@patient((*METHODS, *DATABASE_METHODS), may_pass)
class PatientDatabase(_FinishesOnce, CheckedDatabase):
    """A database on a server that may restart, or have one of two that collide try again.

    Args:
        url: Its URL.
    """

    def __init__(self, url: str) -> None:
        self.checks, self.outage = Checks(), Outage(url)
        # No ping before each use of a connection: what fails on one that is gone is done again.
        options = {"pool_pre_ping": False, "connect_args": _alive_options(url)}
        super().__init__(engine_url(url), engine_kwargs=options)


@patient((*METHODS, *_PROXY_METHODS, "get_best_trial"), may_pass_journal)
class PatientJournal(_FinishesOnce, CheckedJournal):
    """A journal on a disk that may be full, or away, for a while.

    Args:
        path: The file.
        backend: What reads and writes it.
        lenient: Whether damaged lines are left out, and noted.
    """

    def __init__(self, path: Path, backend: LineCheckedBackend, *, lenient: bool = False) -> None:
        self.checks, self.outage = backend.checks, Outage(f"journal:///{path}")
        self.checks.lines = [] if lenient else None
        super().__init__(backend)


@patient((*METHODS, *_PROXY_METHODS), _is_unavailable)
class PatientProxy(_FinishesOnce, CheckedProxy):
    """A storage proxy that may restart.

    Args:
        host: Its host.
        port: Its port.
    """

    def __init__(self, *, host: str, port: int) -> None:
        self.checks, self.outage = Checks(), Outage(f"grpc://{host}:{port}")
        super().__init__(host=host, port=port)
