"""An interruption waits for the transaction that is under way, and is raised behind it.

Raised inside, it could leave the lock of a journal behind, for which everybody then waits.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST = 1.0
"""Seconds for which an interruption waits: a transaction that lasts longer waits for somebody."""


def _never() -> bool:
    return False


class _Transaction(threading.local):
    """This thread's: how many are within each other, since when, and whether one is awaited.

    Attributes:
        is_asked: Says whether this thread is to be interrupted by itself, behind a transaction.
    """

    depth = 0
    since = 0.0
    is_awaited = False
    is_asked: Callable[[], bool] = staticmethod(_never)


_NOW = _Transaction()


@contextmanager
def transaction() -> Iterator[None]:
    """What is done inside is not interrupted, within reason.

    Raises:
        KeyboardInterrupt: Behind it, if an interruption came meanwhile.
    """
    if not _NOW.depth:
        _NOW.since = time.monotonic()
    _NOW.depth += 1
    try:
        yield
    finally:
        _NOW.depth -= 1
        if not _NOW.depth and (_NOW.is_awaited or _NOW.is_asked()):
            _NOW.is_awaited = False
            _NOW.is_asked = _never  # Once: what was interrupted is about to be stored.
            raise KeyboardInterrupt


@contextmanager
def interrupted_when(is_asked: Callable[[], bool]) -> Iterator[None]:
    """Have a thread that no signal reaches interrupted inside: behind its next transaction.

    Args:
        is_asked: Whether it is to be.
    """
    before, _NOW.is_asked = _NOW.is_asked, is_asked
    try:
        yield
    finally:
        _NOW.is_asked = before


def awaits_transaction() -> bool:
    """Have an interruption of this thread raised behind the transaction, if there is one.

    Returns:
        Whether there is one that may take its time.
    """
    if not _NOW.depth or time.monotonic() - _NOW.since > LONGEST:
        return False
    _NOW.is_awaited = True
    return True
