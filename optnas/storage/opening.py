"""Opening the storages that hold studies."""

import contextlib
import os
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock

from optnas.errors import UserError
from optnas.storage.checking import LineCheckedBackend
from optnas.storage.file_systems import NETWORK, STALE, WITHOUT_LINKS, file_system
from optnas.storage.reading import is_writable, read_database
from optnas.storage.retrying import (
    Outage,
    PatientDatabase,
    PatientJournal,
    PatientProxy,
    SQLiteStorage,
    StorageGone,
    is_full,
    may_pass,
)
from optnas.storage.soundness import damage_of_file
from optnas.storage.urls import (
    Absent,
    StorageError,
    hide_password,
    parse_url,
    reason_of,
    storage_file,
)

GRPC_TIMEOUT = 10.0
"""Seconds for which a storage proxy may take to answer the first time."""

Opener = Callable[[str], BaseStorage]
T = TypeVar("T")

_BUSY = ("locked", "too many", "connection slots", "starting up", "shutting down")
"""Words about a storage that is there, but for others at the moment."""
_EXTRAS = ("postgresql", "mysql", "grpc")


def open_storage(
    url: str,
    *,
    create: bool = True,
    patient: bool = False,
    reading: bool = False,
    lenient: bool = False,
) -> BaseStorage:
    """Open the storage at ``url``.

    Database servers and proxies that go away later are waited for: see
    :mod:`optnas.storage.retrying`.

    Args:
        url: ``sqlite:///PATH``, ``journal:///PATH`` (a journal file), the SQLAlchemy URL of a
            database server, such as ``postgresql+psycopg://USER@HOST/NAME`` or
            ``mysql+pymysql://USER@HOST/NAME``, or ``grpc://HOST:PORT`` (Optuna's storage proxy).
        create: Whether a file that does not exist yet is created, and the tables of a database.
        patient: Whether a server that does not answer is waited for, as one that goes away later.
            A file that somebody has locked, or a server without a free connection, is waited for
            anyway.
        reading: Whether it is only looked at: it may lie where nobody can write, and of long
            studies only that is read which is asked for.
        lenient: Whether damaged lines of a journal are left out, and noted in the storage's
            `optnas.storage.checking.Checks`.

    Raises:
        StorageError: If the URL is malformed or the storage cannot be opened, or its tables are
            those of another version of Optuna. No message holds a password.
        StorageGone: If it was waited for in vain.
        Absent: If it does not exist and is not created.
    """
    path = storage_file(url)
    if path is not None:
        if not path.parent.is_dir():
            raise StorageError(f"{url}: the folder {path.parent} does not exist; create it.")
        if not create and not path.exists():
            raise Absent(f"{url}: there is no such file.")
    with explained(url):
        if path is None:
            is_proxy = url.startswith("grpc:")
            open_it: Opener = _open_proxy if is_proxy else PatientDatabase
            if not (create or is_proxy):
                open_it = _existing(open_it, reading=reading)
            return _first_come(lambda: open_it(url), url, patient=patient)
        kind = file_system(path)
        if url.startswith("journal:"):
            return _open_journal(path, kind, lenient=lenient)
        return _open_file(url, kind, create=create, reading=reading)


def ask_study(
    url: str, name: str, ask: Callable[[optuna.Study], T], *, patient: bool = False
) -> T | None:
    """What there is to say of a study, if it exists; nothing is created.

    Args:
        url: The URL of its storage, which is left again.
        name: The study's name.
        ask: What says it.
        patient: Whether a server that does not answer is waited for.

    Raises:
        StorageError: If the storage cannot be opened.
    """
    with explained(url), contextlib.suppress(Absent, KeyError):
        storage = open_storage(url, create=False, patient=patient, reading=True)
        try:
            return ask(optuna.load_study(study_name=name, storage=storage))
        finally:
            release(storage)
    return None


def release(storage: BaseStorage) -> None:
    """Give the connections of a storage back that is not used for now: servers have few."""
    backend = getattr(storage, "_backend", storage)  # Behind Optuna's cache.
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what goes wrong with the storage at ``url`` into a ``StorageError`` of one line."""
    try:
        yield
    except UserError:
        raise
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise StorageError(_other_version(url, str(error))) from None
    except ImportError:
        kind = url.partition(":")[0].partition("+")[0]
        advice = f"pip install 'optnas[{kind}]'" if kind in _EXTRAS else "install it"
        raise StorageError(f"{hide_password(url)}: the driver is missing; {advice}.") from None
    except (
        OSError,
        ValueError,
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        reason = None
        if url.startswith("sqlite") and "locked" not in str(error):
            reason = damage_of_file(Path(storage_file(url) or ""))
        if reason is None and is_full(error):
            message = f"{hide_password(url)}: {reason_of(error, url)}"
            raise StorageGone(f"{message}; make room, and try again") from None
        reason = reason or _read_only(url)
        reason = reason or f"the storage cannot be used: {reason_of(error, url)}"
        raise StorageError(f"{hide_password(url)}: {reason}") from None


def _other_version(url: str, message: str) -> str:
    """What to do about tables of another version of Optuna, which says so in ``message``."""
    made = re.search(r"set up by optuna ([\w.]+)", message)
    by = f"Optuna {made[1]}" if made else "another version of Optuna"
    begin = f"{hide_password(url)}: its tables were made by {by}, and Optuna "
    begin += f"{optuna.__version__} is installed"
    if "storage upgrade" not in message:
        return f"{begin}, which does not know them; pip install -U optuna."
    return f"{begin}; `optnas storage upgrade {hide_password(url)}` upgrades them."


def _read_only(url: str) -> str | None:
    """What to do about a file that exists, where nobody may write."""
    path = storage_file(url)
    if path is None or is_writable(path) or not path.exists():
        return None
    return (
        "it, or its folder, cannot be written to; `optnas status` and `optnas best` only look "
        "at it, for all else copy it to where you may write"
    )


def _existing(otherwise: Opener, *, reading: bool) -> Opener:
    """What opens a database that has tables of studies; Optuna would make them in any other.

    Args:
        otherwise: What opens it to write to it, or if its tables are others than we know.
        reading: Whether it is only looked at.
    """

    def open_it(url: str) -> BaseStorage:
        found = read_database(url)
        if reading and found is not None:
            return found
        if found is not None:
            found.engine.dispose()
        return otherwise(url)

    return open_it


def _open_file(url: str, kind: str, *, create: bool, reading: bool) -> BaseStorage:
    if kind in NETWORK:
        raise StorageError(
            f"{url}: sqlite loses trials on a network file system ({kind}); keep the file on a "
            "local disk, or use a database server, or journal:///PATH."
        )
    open_it = SQLiteStorage if create else _existing(SQLiteStorage, reading=reading)
    return _first_come(lambda: open_it(url), url)


def _open_journal(path: Path, kind: str, *, lenient: bool) -> JournalStorage:
    if kind in STALE:
        raise StorageError(
            f"journal:///{path}: on this file system ({kind}) workers may not see what others "
            "wrote; keep the journal on a local disk or on NFS, or use a database server."
        )
    if path.exists():
        with path.open("rb") as file:
            if file.read(1) not in (b"", b"{"):  # Optuna would append to whatever it is.
                raise ValueError("this file is no journal of Optuna")
    # Both kinds of lock are a file of one name, so that workers need not agree on one.
    lock = JournalFileOpenLock if kind in WITHOUT_LINKS else JournalFileSymlinkLock
    backend = LineCheckedBackend(str(path), MendingLock(lock(str(path)), path))
    return PatientJournal(path, backend, lenient=lenient)


class MendingLock(BaseJournalFileLock):
    """A lock whose holder finds whole lines in the journal.

    A line that a full disk or a power failure cut off would swallow the next one.

    Args:
        lock: What keeps others out.
        path: The journal.
    """

    def __init__(self, lock: BaseJournalFileLock, path: Path) -> None:
        self.lock = lock
        self._path = path

    def acquire(self) -> bool:
        acquired = self.lock.acquire()
        try:
            with self._path.open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                if file.read(1) not in (b"", b"\n"):
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        except BaseException:
            self.release()
            raise
        return acquired

    def release(self) -> None:
        # What was written is written. A lock that cannot be removed is removed by others, after
        # Optuna's 30 seconds; so was one that is gone, of a process that was suspended.
        with contextlib.suppress(RuntimeError):
            self.lock.release()


def _open_proxy(url: str) -> BaseStorage:
    parsed = parse_url(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls the class experimental.
        storage = PatientProxy(host=parsed.host or "localhost", port=parsed.port or 13000)
    try:
        storage.wait_server_ready(GRPC_TIMEOUT)
    except Exception as error:  # gRPC's own, without being imported here.
        raise ConnectionError(reason_of(error, url)) from error
    return storage


def _first_come(
    make: Callable[[], BaseStorage], url: str, *, patient: bool = False
) -> BaseStorage:
    """A database; its tables are made by the first of several processes that open it at once."""
    races, outage = 50, Outage(url)
    while True:
        try:
            return make()
        except (
            sqlalchemy.exc.DBAPIError,
            optuna.exceptions.StorageInternalError,
            ConnectionError,
        ) as error:
            cause = error.__cause__ if not hasattr(error, "orig") else error
            message = str(cause).lower()
            # Another process was faster with a table, or is about to be.
            raced = isinstance(cause, sqlalchemy.exc.IntegrityError) or any(
                words in message for words in ("already exists", "deadlock")
            )
            if raced and races > 0:
                races -= 1
            elif any(words in message for words in _BUSY) or (patient and may_pass(error)):
                outage.lasts(error)
            else:
                raise
        time.sleep(0.1)
