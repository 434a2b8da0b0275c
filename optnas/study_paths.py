"""Where a study's storage and artifacts are, from what a study file says about them."""

import os.path
import re
from pathlib import Path

from optnas.plugins import nearest

DATABASES = ("sqlite", "postgresql", "mysql", "grpc")
BUCKETS = ("s3", "gs")


def absolute(text: str, folder: Path) -> str:
    """``text`` as an absolute path: ``~`` is the home folder, relative paths start in ``folder``."""
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def default_storage(study: str) -> str:
    """An SQLite database named after the study, in the study file's folder."""
    return f"sqlite:///{_file_name(study)}.db"


def storage_url(text: str, folder: Path) -> str:
    """The storage with its path made absolute: a database URL or the path of a journal file.

    Args:
        text: As in the study file.
        folder: Where relative paths start.

    Raises:
        ValueError: If this is no storage that several processes can share. The message does not
            repeat the URL, which may hold a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        if Path(text).suffix in (".db", ".sqlite", ".sqlite3"):
            raise ValueError(
                f"a path means a journal file; for a database write 'sqlite:///{text}'"
            )
        return absolute(text, folder)
    dialect = scheme.partition("+")[0]
    _check_scheme(dialect, DATABASES, "storage", "the path of a journal file")
    if dialect != "sqlite":
        return text
    path, mark, query = rest.removeprefix("/").partition("?")
    if path in ("", ":memory:"):
        raise ValueError("a database in memory is lost with its process; name a file")
    if not rest.startswith("/"):
        raise ValueError("a URL of SQLite needs three slashes: 'sqlite:///study.db'")
    if not path.startswith("file:"):
        path = absolute(path, folder)
    if "?" in path:
        raise ValueError("a URL of SQLite cannot hold a path with a question mark; name another")
    return f"{scheme}:///{path}{mark}{query}"


def artifacts_location(text: str, folder: Path) -> str:
    """The store of checkpoints with its path made absolute: a folder, or the URL of a bucket.

    Raises:
        ValueError: If the URL is not one of a supported bucket.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        return absolute(text, folder)
    _check_scheme(scheme, BUCKETS, "artifact store", "a folder")
    return text


def default_artifacts(study: str, storage: str, folder: Path) -> str:
    """A folder beside the storage's file, or beside the study file for database servers.

    Args:
        study: The study's name.
        storage: As ``storage_url`` returned it.
        folder: The study file's folder.
    """
    scheme, separator, rest = storage.partition("://")
    if not separator:
        folder = Path(storage).parent
    elif scheme.partition("+")[0] == "sqlite" and not rest.startswith("/file:"):
        folder = Path(rest.removeprefix("/").partition("?")[0]).parent
    return absolute(f"{_file_name(study)}.artifacts", folder)


def _check_scheme(scheme: str, known: tuple[str, ...], what: str, otherwise: str) -> None:
    if scheme not in known:
        match = nearest(scheme, known)
        raise ValueError(
            f"unknown kind of {what} '{scheme}://'"
            + (f"; did you mean '{match}://'?" if match else ".")
            + f" Known: {', '.join(f'{name}://' for name in known)}, or {otherwise}"
        )


def _file_name(study: str) -> str:
    """The study's name without the characters that file systems or URLs do not take."""
    return re.sub(r'[?#%*:|<>"]', "_", study)
