"""Trials of one process at once: threads, each of which has a loop of its own."""

import threading
import time
from collections.abc import Sequence

from optnas.running.loop import Loop
from optnas.running.signals import Signals

LOOK = 0.05
"""Seconds between two looks at whether something has happened to a thread."""
LAST = 1.0
"""Seconds in which threads may still end after a second Ctrl-C."""


def run_at_once(loops: Sequence[Loop], signals: Signals) -> None:
    """Run loops to their end: a single one here, several in threads.

    To be called in the main thread, where signals are heard. If one fails, the others hand back
    what they train.

    Args:
        loops: The loops, each of a study that no other one has.
        signals: What interrupts them.

    Raises:
        KeyboardInterrupt: If trials were handed back.
        Exception: What the first loop raised that did.
    """
    if len(loops) == 1:
        loops[0].run()
        return
    threads = [_Thread(loop, f"stream {number}") for number, loop in enumerate(loops)]
    for thread in threads:
        thread.start()
    try:
        while not _have_ended(threads):
            if signals.ending is None and any(thread.error for thread in threads):
                signals.end("terminated")
    except KeyboardInterrupt:  # The second one, or it took too long.
        signals.insist_no_more()
        until = time.monotonic() + LAST
        while time.monotonic() < until and not _have_ended(threads):
            pass
        for thread in threads:
            thread.give_up()
        if not any(thread.error for thread in threads):
            raise
    errors = [thread.error for thread in threads if thread.error is not None]
    if errors:
        raise errors[0]


def _have_ended(threads: Sequence["_Thread"]) -> bool:
    """Whether all have, after a moment.

    Not by `Thread.join`, after whose interruption Python takes a thread for ended that is not.
    """
    time.sleep(LOOK)
    return all(thread.has_ended for thread in threads)


class _Thread(threading.Thread):
    """Runs a loop.

    Attributes:
        has_ended: Whether the loop has.
        error: What it ended with, if that was no interruption.
    """

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.has_ended = False
        self.error: BaseException | None = None
        self._loop = loop

    def give_up(self) -> None:
        """Hand back what it trains, if it has not ended."""
        if not self.has_ended and self.ident is not None:
            self._loop.give_up(self.ident)

    def run(self) -> None:
        try:
            self._loop.run()
        except KeyboardInterrupt:
            pass  # What it trained is handed back.
        except BaseException as error:
            self.error = error
        finally:
            self.has_ended = True
