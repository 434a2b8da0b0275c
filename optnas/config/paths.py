"""Where a study's storage and artifacts are, from what a study file says about them."""

import os
import os.path
import re
from pathlib import Path

from optnas.extensions.importing import nearest

_LONGEST = 255
"""Bytes of a name in a path, for most file systems."""
STORAGES = ("sqlite", "journal", "postgresql", "mysql", "grpc")


def absolute(text: str, folder: Path) -> str:
    """``text`` as an absolute path: ``~`` is the home folder, and others start in ``folder``.

    Raises:
        ValueError: If no file system has such a path.
    """
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(text)))
    if "\0" in path or any(len(os.fsencode(part)) > _LONGEST for part in path.split(os.sep)):
        raise ValueError(f"a name in a path has 1 to {_LONGEST} bytes, and none of them is NUL")
    return path


def default_storage(study: str) -> str:
    """An SQLite database named after the study, in the study file's folder."""
    return f"sqlite:///{file_name(study)}.db"


def storage_url(text: str, folder: Path) -> str:
    """The URL of a storage with the path of a file made absolute.

    Args:
        text: As in the study file.
        folder: Where relative paths start.

    Raises:
        ValueError: If this is no storage that several processes can share. The message does not
            repeat the URL, which may hold a password.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(
            "expected a URL, such as 'sqlite:///study.db' for a database in a file or "
            "'journal:///study.log' for a journal file"
        )
    dialect = scheme.partition("+")[0]
    _check_scheme(dialect)
    if dialect not in ("sqlite", "journal"):
        return text
    path, mark, query = rest.removeprefix("/").partition("?")
    if path in ("", ":memory:"):
        raise ValueError("a database in memory is lost with its process; name a file")
    if not rest.startswith("/"):
        raise ValueError(f"a URL of a file needs three slashes, as in '{scheme}:///study.db'")
    if path.startswith("file:") or (mark and not re.fullmatch(r"(?:\w+=[^&]*&?)+", query)):
        raise ValueError(
            "a path cannot begin with 'file:' or hold a question mark, after which options such "
            "as 'timeout=60' may stand; name another"
        )
    path = absolute(path, folder)
    if "?" in path:
        raise ValueError("a URL cannot hold a path with a question mark; name another")
    return f"{scheme}:///{path}{mark}{query}"


def artifacts_location(text: str, folder: Path) -> str:
    """Where checkpoints are: a bucket as it is, a folder with its path made absolute.

    Raises:
        ValueError: If this is another URL. The message does not repeat it.
    """
    bucket = split_bucket(text)
    if bucket is not None:
        scheme, name, prefix = bucket
        return f"{scheme}://{name}/{prefix}".rstrip("/")
    if "://" in text:
        raise ValueError(
            "expected a folder that every worker can write to, 's3://BUCKET/PREFIX' or "
            "'gs://BUCKET/PREFIX'; credentials and endpoints come from the environment, not "
            "from the URL"
        )
    return absolute(text, folder)


def split_bucket(text: str) -> tuple[str, str, str] | None:
    """Scheme, bucket and prefix of ``s3://bucket/prefix`` or ``gs://bucket/prefix``, or None.

    The prefix is empty or ends in a slash.
    """
    match = re.fullmatch(r"(s3|gs)://([a-z0-9][a-z0-9._-]+[a-z0-9])(?:/([^?#]*))?", text)
    if match is None:
        return None
    prefix = (match[3] or "").strip("/")
    return match[1], match[2], f"{prefix}/" if prefix else ""


def default_artifacts(study: str, storage: str, folder: Path) -> str:
    """A folder beside the storage's file, or beside the study file for database servers.

    Args:
        study: The study's name.
        storage: As ``storage_url`` returned it.
        folder: The study file's folder.
    """
    file = storage_path(storage)
    if file is not None:
        folder = file.parent
    return absolute(f"{file_name(study)}.artifacts", folder)


def storage_path(storage: str) -> Path | None:
    """The file of a storage, whose URL is as ``storage_url`` returned it; None for a server."""
    scheme, _, rest = storage.partition("://")
    if scheme.partition("+")[0] not in ("sqlite", "journal"):
        return None
    return Path(rest.removeprefix("/").partition("?")[0])


def _check_scheme(scheme: str) -> None:
    if scheme not in STORAGES:
        match = nearest(scheme, STORAGES)
        raise ValueError(
            f"unknown kind of storage '{scheme}://'"
            + (f"; did you mean '{match}://'?" if match else ".")
            + f" Known: {', '.join(f'{name}://' for name in STORAGES)}"
        )


def file_name(study: str) -> str:
    """The study's name without the characters that file systems or URLs do not take."""
    return re.sub(r'[?#%*:|<>"]', "_", study)
