"""Whether a file of sqlite is damaged, which no waiting mends."""

import contextlib
import shlex
import sqlite3
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

HEADER = b"SQLite format 3\0"
PATIENCE = 5.0
"""Seconds for which a file is looked through; a large one is not looked through to its end."""
_NOT_SOUND = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LEFT_OVER = ("-wal", "-journal")
"""Files beside a database of sqlite in which there may be a part of it."""
_CUT_OFF = 522
"""What sqlite says of a page that ends before its end: SQLITE_IOERR_SHORT_READ."""


_HELD: dict[tuple[int, int], BinaryIO] = {}
_TURN = threading.Lock()


def read_beside_sqlite(path: Path, start: int, length: int) -> bytes:
    """Bytes of a file that sqlite may have open in this process.

    It stays open for good. Closing any descriptor of a file takes all locks from this process
    that it has on it (POSIX), sqlite's too: then others think that nobody uses the database, and
    delete the log that this process goes on writing to.

    Source: *How To Corrupt An SQLite Database File*, section 2.2.

    Args:
        path: The file.
        start: Where to begin.
        length: How many bytes; fewer where the file ends before.

    Raises:
        OSError: If it cannot be read.
    """
    state = path.stat()
    with _TURN:
        key = (state.st_dev, state.st_ino)
        if key not in _HELD:
            _HELD[key] = cast(BinaryIO, path.open("rb", buffering=0))
        _HELD[key].seek(start)
        return _HELD[key].read(length)


def damage_of_file(path: Path) -> str | None:
    """What is wrong with a file of sqlite, and what to do.

    Args:
        path: The file, which may be in use.

    Returns:
        None if it is sound, or new, or nobody can tell at present.
    """
    try:
        size = path.stat().st_size
        start = read_beside_sqlite(path, 0, 100)
    except IsADirectoryError:
        return "it is a folder; name a file"
    except OSError:
        return None
    if size == 0:
        return None
    if not start.startswith(HEADER):
        return f"it is {_kind(start)}, not a database of sqlite; name another file"
    # The end of a file that a full disk cut off may still be in the log, whole.
    what = (None if parts_beside(path) else _cut_off(start, size)) or _unsound(path)
    if what is None:
        return None
    saving = f"sqlite3 {shlex.quote(str(path))} .recover"
    return f"the database is damaged ({what}); restore a copy, or save what can be read: {saving}"


def parts_beside(path: Path) -> list[str]:
    """The endings of the files beside a database of sqlite that hold a part of it."""
    return [part for part in _LEFT_OVER if _size(path.with_name(path.name + part))]


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _kind(start: bytes) -> str:
    is_text = all(32 <= byte < 127 or chr(byte).isspace() for byte in start)
    return "a text" if is_text else "encrypted, or a file of another kind"


def _cut_off(start: bytes, size: int) -> str | None:
    """Whether there are fewer pages than the header says, where it is up to date."""
    page = int.from_bytes(start[16:18], "big")
    page = 65536 if page == 1 else page
    pages, is_known = int.from_bytes(start[28:32], "big"), start[24:28] == start[92:96]
    if is_known and size < page * pages:
        return f"it has {size:,} bytes of {page * pages:,}: it is cut off"
    return None


def _unsound(path: Path) -> str | None:
    """What sqlite finds wrong, in the time there is."""
    until = time.monotonic() + PATIENCE
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0.5)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, 100_000)
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except UnicodeDecodeError:  # In what sqlite says, which quotes the schema.
        return "the schema is no UTF-8"
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        is_damage = code & 0xFF in _NOT_SOUND or code == _CUT_OFF
        return str(error) if is_damage else None
    return None if found == "ok" else str(found).splitlines()[-1]
