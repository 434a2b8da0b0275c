"""Opening the storages that hold studies, and the folders that hold their files."""

import sqlite3
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
    try:
        if url.startswith("journal:"):
            return JournalStorage(JournalFileBackend(str(path)))
        if url.startswith("grpc:"):
            return _open_grpc(url)
        return _open_sqlite(url) if path is not None else RDBStorage(url)
    except ImportError as error:
        raise StorageError(
            f"{hide_password(url)}: the database driver is missing ({error}); install it."
        ) from None
    except (
        OSError,
        ValueError,
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        cause = getattr(error, "orig", None) or error
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else repr(cause)
        raise StorageError(
            f"{hide_password(url)}: the storage cannot be opened: {_without(reason, url)}"
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


def open_artifacts(folder: str | Path) -> FileSystemArtifactStore:
    """The artifact store in ``folder``, which is created."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(path)


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
