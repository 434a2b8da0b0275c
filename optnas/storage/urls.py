"""URLs of storages, whose passwords are nobody's business, and what goes wrong there."""

import shlex
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from sqlalchemy.engine import URL, make_url

from optnas.config.paths import storage_url
from optnas.errors import UserError

_SECRET_KEYS = ("password", "passwd", "passphrase", "secret", "token")


class StorageError(UserError):
    """A storage cannot be opened or used; the message says which, why, and what to do."""


class Absent(StorageError):
    """There is no such storage, or no such study in it."""


def not_started(file: str, error: UserError) -> UserError:
    """What is said to whoever names a study file, if the study of it does not exist.

    Args:
        file: The study file.
        error: Why the study could not be opened.
    """
    if not isinstance(error, Absent):
        return error
    return Absent(f"{file}: not started: optnas run {shlex.quote(file)}")


def asked_url(text: str) -> str:
    """The URL of a storage that a person names, its path from the current folder.

    Raises:
        StorageError: If it is none.
    """
    try:
        return storage_url(text, Path.cwd())
    except ValueError as error:
        raise StorageError(f"{hide_password(text)}: {error}") from None


def storage_file(url: str) -> Path | None:
    """The file behind a sqlite or journal URL; None for a server.

    Raises:
        StorageError: If ``url`` is no URL of a storage.
    """
    if url.startswith("journal:///"):
        return Path(url.removeprefix("journal:///"))
    if not _is_sqlite(url):
        parse_url(url)
        return None
    path = _sqlite_path(url)
    if path in ("", ":memory:"):
        raise StorageError(f"{url}: a study needs a file, as in sqlite:///study.db.")
    return Path(path)


def identity_of_file(url: str) -> tuple[int, int] | None:
    """Which file is behind a sqlite or journal URL; None for a server.

    Who has it open writes to it still after it was deleted, moved, or another one put in its
    place, and nobody reads it.

    Raises:
        OSError: If there is none.
    """
    path = storage_file(url)
    if path is None:
        return None
    state = path.stat()
    return state.st_dev, state.st_ino


def engine_url(url: str) -> str:
    """``url`` in the words of Optuna, which fills in braces, and SQLAlchemy, which may decode %.

    A path is taken as it is: ``my%20project`` is no other folder than the one of this name.
    """
    if _is_sqlite(url):
        path, query = _sqlite_path(url), url.partition("?")[2]
        scheme = url.partition(":")[0]
        texts = [f"{scheme}:///{quoted}" for quoted in (quote(path), path)]
        url = next((text for text in texts if make_url(text).database == path), texts[0])
        url += f"?{query}" if query else ""
    return url.replace("{", "{{").replace("}", "}}")


def _is_sqlite(url: str) -> bool:
    return url.partition(":")[0].partition("+")[0] == "sqlite"


def _sqlite_path(url: str) -> str:
    return url.partition(":///")[2].partition("?")[0]


def parse_url(url: str) -> URL:
    """The parts of the URL of a database server or proxy.

    Raises:
        StorageError: If ``url`` is no URL of a storage. The message holds no password.
    """
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise StorageError(
            f"{hide_password(url)}: not the URL of a storage; expected for example "
            "sqlite:///study.db, journal:///study.log or postgresql+psycopg://USER@HOST/NAME."
        ) from None
    if "@" in (parsed.host or ""):
        raise StorageError(
            f"{hide_password(url)}: '@' in a user's name or password is written as %40."
        )
    return parsed


def hide_password(url: str) -> str:
    """``url`` with a password replaced by asterisks, wherever it stands."""
    if _is_sqlite(url) or url.startswith("journal:"):
        return url
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return url.split("@")[-1].split("?")[0]
    # A password that holds '@' ends up in the host.
    host = (parsed.host or "").rpartition("@")[2] or None
    query = {key: "***" if _is_secret(key) else value for key, value in parsed.query.items()}
    shown = parsed.set(host=host, query=query).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", "***")


def reason_of(error: BaseException, url: str) -> str:
    """What the driver of the storage at ``url`` says went wrong: one line without a password."""
    # Optuna wraps what SQLAlchemy raises, which wraps what the driver says.
    reason = repr(error)
    cause: BaseException | None = error
    while cause is not None:
        lines = _text(cause).strip().splitlines()
        reason = lines[0] if lines else reason
        cause = cause.__cause__
    for secret in sorted(_secrets(url), key=len, reverse=True):
        reason = reason.replace(secret, "***")
    return reason


def _text(error: BaseException) -> str:
    details = getattr(error, "details", None)  # gRPC's errors are pages long otherwise.
    if callable(details):
        return str(details())
    return str(getattr(error, "orig", None) or error)


def _secrets(url: str) -> set[str]:
    """The passwords in a URL, as they are and as they are written."""
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return set()
    written = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    in_query = (value for key, value in parsed.query.items() if _is_secret(key))
    return {str(secret) for secret in (written, parsed.password, *in_query) if secret}


def _is_secret(key: str) -> bool:
    return key.lower().endswith(_SECRET_KEYS)
