"""Databases whose tables an older Optuna made, brought up to the version that is installed."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from optuna.storages import RDBStorage

from optnas.storage.opening import explained
from optnas.storage.urls import StorageError, asked_url, engine_url, hide_password, storage_file


def upgrade(target: str, *, copy: bool = True) -> str:
    """Upgrade the tables of a database.

    Args:
        target: Its URL.
        copy: Whether a file is copied first, to ``NAME.before-upgrade`` beside it.

    Returns:
        What was done, for people.

    Raises:
        StorageError: If it is no database, or needs a copy that its own tools make.
    """
    url = asked_url(target)
    shown, path = hide_password(url), storage_file(url)
    if url.startswith(("journal:", "grpc:")):
        raise StorageError(f"{shown}: only databases have tables, and need an upgrade.")
    if path is not None and not path.exists():
        raise StorageError(f"{url}: there is no such file.")
    if path is None and copy:
        raise StorageError(
            f"{shown}: copy the database with its own tools first (pg_dump, mysqldump), then say "
            "--no-copy."
        )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with explained(url):
        storage = RDBStorage(
            engine_url(url), skip_compatibility_check=True, skip_table_creation=True
        )
        before, after = storage.get_current_version(), storage.get_head_version()
        if before == after:
            return f"{shown}: its tables are those of this version ({after}) already."
        if before not in storage.get_all_versions():
            raise StorageError(
                f"{shown}: its tables are of a version that the installed Optuna does not know "
                f"({before}); pip install -U optuna."
            )
        kept = _copied(path) if path is not None and copy else None
        storage.upgrade()
        storage.remove_session()
        storage.engine.dispose()
    message = "" if kept is None else f" The file as it was is {kept}."
    return f"{shown}: upgraded from {before} to {after}.{message}"


def _copied(path: Path) -> Path:
    """A copy of a database file beside it, under a name that nobody has."""
    for number in range(1, 1000):
        copy = Path(f"{path}.before-upgrade{'' if number == 1 else f'-{number}'}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            source = f"{path.absolute().as_uri()}?mode=ro"
            with (
                contextlib.closing(sqlite3.connect(source, uri=True)) as old,
                contextlib.closing(sqlite3.connect(copy)) as new,
            ):
                old.backup(new)
            return copy
    raise StorageError(f"{path}: there are a thousand copies beside it already.")
