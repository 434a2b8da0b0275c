"""What trains in this process, told every second to whoever shows it."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optnas.trials.pulse import running

EVERY = 1.0
"""Seconds between two beats."""

Beat = Callable[[Sequence[Mapping[str, Any]], int], None]
"""Is told the fields of every `optnas.trials.pulse.Pulse` of a worker, and its number."""


@contextlib.contextmanager
def beats(tell: Beat | None, worker: int) -> Iterator[None]:
    """Tell what trains here, while it is entered, from a thread of its own.

    Args:
        tell: Is told; None tells nobody.
        worker: This process's number.
    """
    if tell is None:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        # Who reads no more is noticed where results are written.
        with contextlib.suppress(OSError, ValueError):
            while not over.wait(EVERY):
                tell([pulse.fields() for pulse in running()], worker)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
