"""Switches of the whole process, which the trainings of its threads share."""

import contextlib
import threading
from collections.abc import Callable, Iterator


class Switch:
    """On while a thread is inside: the first one switches it on, and the last one off.

    Args:
        on: Switches it on; what it returns switches it off, as it was before.
    """

    def __init__(self, on: Callable[[], Callable[[], None]]) -> None:
        self._on = on
        self._off: Callable[[], None] = lambda: None
        self._inside = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            if not self._inside:
                self._off = self._on()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._off()
