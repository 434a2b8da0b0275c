"""Opening the storages that hold studies, and the folders that hold their files."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import URL, make_url

from optnas.errors import UserError

SQLITE_TIMEOUT = 60.0
"""Seconds for which a writer waits for the others."""


class StorageError(UserError):
    """A storage cannot be opened; the message says which, why, and what to do."""


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """Open the storage at ``url``.

    Args:
        url: ``sqlite:///PATH``, ``journal:///PATH`` (a journal file), or the SQLAlchemy URL of a
            database server, such as ``postgresql+psycopg://USER@HOST/NAME``, or
            ``grpc://HOST:PORT`` (Optuna's storage proxy).
        create: Whether a file that does not exist yet is created.

    Raises:
        StorageError: If the URL is malformed or the storage cannot be opened. No message holds a
            password.
    """
    path = storage_file(url)
    if path is not None:
        if not path.parent.is_dir():
            raise StorageError(f"{url}: the folder {path.parent} does not exist; create it.")
        if not create and not path.exists():
            raise StorageError(f"{url}: there is no such file.")
    with explained(url):
        if url.startswith("journal:"):
            assert path is not None
            return _open_journal(path)
        if url.startswith("grpc:"):
            return _open_grpc(url)
        return _open_database(url, is_file=path is not None)


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what goes wrong with the storage at ``url`` into a ``StorageError`` of one line."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise StorageError(
            f"{hide_password(url)}: the driver is missing ({error}); install it."
        ) from None
    except (
        OSError,
        ValueError,
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        # Optuna wraps what SQLAlchemy raises, which wraps what the driver says.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        cause = getattr(cause, "orig", None) or cause
        reason = (str(cause).strip() or repr(cause)).splitlines()[0]
        raise StorageError(
            f"{hide_password(url)}: the storage cannot be used: {_without(reason, url)}"
        ) from None


def storage_file(url: str) -> Path | None:
    """The file behind a sqlite or journal URL; None for a server.

    Raises:
        StorageError: If ``url`` is no URL of a storage.
    """
    if url.startswith("journal:///"):
        return Path(url.removeprefix("journal:///"))
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:":
        raise StorageError(f"{url}: a study needs a file, as in sqlite:///study.db.")
    return Path(parsed.database)


def hide_password(url: str) -> str:
    """``url`` with a password replaced by asterisks."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url.split("@")[-1]


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that cannot be made or written to, without making it.

    Raises:
        StorageError: If it is no folder, or its place does not allow it.
    """
    path = Path(folder)
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise StorageError(f"{path}: {nearest} is not a folder; name another place.")
    if not os.access(nearest, os.W_OK):
        raise StorageError(f"{path}: {nearest} cannot be written to; name another place.")


def open_artifacts(folder: str | Path) -> FileSystemArtifactStore:
    """The artifact store in ``folder``, which is created."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(path)


def _open_journal(path: Path) -> JournalStorage:
    if path.exists():
        with path.open("rb") as file:
            if file.read(1) not in (b"", b"{"):  # Optuna would append to whatever it is.
                raise ValueError("this file is no journal of Optuna")
    return JournalStorage(JournalFileBackend(str(path)))


def _open_grpc(url: str) -> BaseStorage:
    parsed = _parse(url)
    return GrpcStorageProxy(host=parsed.host or "localhost", port=parsed.port or 13000)


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise StorageError(
            f"{hide_password(url)}: not the URL of a storage; expected for example "
            "sqlite:///study.db, journal:///study.log or postgresql+psycopg://USER@HOST/NAME."
        ) from None


def _without(reason: str, url: str) -> str:
    password = _parse(url).password if "://" in url else None
    return reason.replace(str(password), "***") if password else reason


def _open_database(url: str, *, is_file: bool) -> RDBStorage:
    """A database; its tables are made by the first of several processes that open it at once."""
    attempts = 20
    while True:
        try:
            return _open_sqlite(url) if is_file else RDBStorage(url)
        except sqlalchemy.exc.DBAPIError as error:
            attempts -= 1
            # Another process was faster with a table, or is about to be.
            raced = isinstance(error, sqlalchemy.exc.IntegrityError) or any(
                words in str(error.orig) for words in ("already exists", "database is locked")
            )
            if not raced or attempts == 0:
                raise
            time.sleep(0.1)


def _open_sqlite(url: str) -> RDBStorage:
    """A sqlite storage that several processes can write to.

    Optuna reads before it writes within a transaction, which two sqlite writers cannot do at
    once; so every transaction takes the write lock at its start, and waits for it.
    """
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_TIMEOUT}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Transactions begin where the next listener says.
        connection.execute("PRAGMA journal_mode=WAL")

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # Connections made before the listeners.
    return storage
