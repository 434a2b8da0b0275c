"""Ctrl-C and SIGTERM during a run: what trains is handed back, and the run ends."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

from optnas.storage.transactions import awaits_transaction, interrupted_when
from optnas.trials import pulse

Interruption = Literal["interrupted", "terminated"]

GRACE = 5.0
"""Seconds after SIGTERM in which a run ends of itself; whoever preempts it waits ten or more."""
AGAIN = 1.0
"""Seconds after which an interruption that was not noticed is repeated."""

ANSWERING = 1.0
"""Seconds for which the answer to a signal is waited for at the end."""
PAUSING = 4.0
"""Seconds in which a training that is asked to pause comes to its next batch, and is kept."""

TAKEN_BACK: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)  # Windows has the first alone.
)
"""What clusters send before they take a machine back. As they choose which, all mean the same."""
_ALARM: signal.Signals | None = getattr(signal, "SIGALRM", None)  # Not on Windows.


@contextlib.contextmanager
def heard(answer: Callable[[Interruption], None] = lambda ending: None) -> Iterator["Signals"]:
    """What is entered is interrupted by Ctrl-C and SIGTERM: a training between two batches.

    Args:
        answer: As of `Signals`.

    Raises:
        KeyboardInterrupt: After a signal. A training that was left says in it what is kept.
    """
    signals = Signals(lambda: None, answer=answer)
    with signals, signals.may_interrupt():
        yield signals


class Signals:
    """Hears signals while it is entered, and interrupts what may be interrupted.

    A training that can be left between two batches, with what it has, is asked to; only if it
    does not come to the next one for seconds is it interrupted. What is being stored is stored
    (`optnas.storage.transactions`). An exception anywhere else,
    while a result is being stored say, would leave a trial running for ever; so elsewhere the
    run ends by itself. A second Ctrl-C does not wait for that, nor does a SIGTERM that was not
    heeded for seconds.

    Handlers run in the main thread. Others are interrupted where they next come out of a
    transaction, and nowhere else.

    Args:
        stop: Called at every signal.
        heard: The signals.
        patience: Seconds after SIGTERM, or what means it, in which the run should end of itself;
            None waits for ever.
        answer: Called from another thread as soon as the first signal is there, even if Python
            comes to handle it only when a long operation is over.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        heard: tuple[signal.Signals, ...] = (signal.SIGINT, *TAKEN_BACK),
        *,
        patience: float | None = GRACE,
        answer: Callable[[Interruption], None] = lambda ending: None,
    ) -> None:
        self.ending: Interruption | None = None
        self._stop = stop
        self._heard = heard
        self._patience = patience
        self._deadline: float | None = None
        self._pausing_until: float | None = None
        self._interruptible = False
        self._insists = False
        self._answer = answer
        self._wakeup: tuple[int, int] | None = None
        self._listener: threading.Thread | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._unraisable = sys.unraisablehook

    @contextlib.contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """A signal raises KeyboardInterrupt inside."""
        if threading.current_thread() is not threading.main_thread():
            with interrupted_when(lambda: self._insists):
                if self.ending is not None:
                    raise KeyboardInterrupt
                yield
            return
        try:
            self._interruptible = True
            if self.ending is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._interruptible = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # No other may set handlers.
            for number in self._heard:
                self._before[number] = signal.signal(number, self._hear)
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._overlook
            self._listen()

    def _listen(self) -> None:
        """Have a thread answer: Python handles signals when the main one is free for it."""
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        self._wakeup = (theirs, signal.set_wakeup_fd(theirs, warn_on_full_buffer=False))
        heard = {number.value for number in self._heard}

        def listen() -> None:
            with os.fdopen(ours, "rb", buffering=0) as signals:
                while (number := signals.read(1)) and number[0] not in heard:
                    pass
                if number:
                    is_interrupt = number[0] == signal.SIGINT
                    self._answer("interrupted" if is_interrupt else "terminated")
                    signals.read()  # Until the other end is closed.

        self._listener = threading.Thread(target=listen, daemon=True)
        self._listener.start()

    def __exit__(self, *_: object) -> None:
        if not self._before:
            return
        if self._wakeup is not None:
            ours, before = self._wakeup
            signal.set_wakeup_fd(before)
            os.close(ours)
            self._wakeup = None
            if self._listener is not None:
                self._listener.join(ANSWERING)  # So that its answer comes before what follows.
        self.insist_no_more()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        sys.unraisablehook = self._unraisable

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.end("interrupted" if number == signal.SIGINT else "terminated")

    def end(self, ending: Interruption) -> None:
        """Have all that runs end, as at a signal; to be called in the main thread."""
        is_first = self.ending is None
        self.ending = ending
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if ending != "interrupted" and self._patience is not None and self._deadline is None:
            self._deadline = time.monotonic() + self._patience
        if is_first and _ALARM is not None and self._before:
            self._before[_ALARM] = signal.signal(_ALARM, self._insist)
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        self._stop()
        # Only once: the second may come while the first is seen to.
        if is_first:
            self._interrupt()

    def insist_no_more(self) -> None:
        """Whoever was to be interrupted is."""
        if _ALARM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self) -> None:
        """Interrupt what may be, unless it comes to its end or to a pause by itself."""
        self._insists = not self._pauses()
        if self._interruptible and self._insists and not awaits_transaction():
            raise KeyboardInterrupt

    def _pauses(self) -> bool:
        """Whether what trains was asked to pause, and has time for it."""
        if pulse.pause() and self._pausing_until is None:
            self._pausing_until = time.monotonic() + PAUSING
        return self._pausing_until is not None and time.monotonic() < self._pausing_until

    def _insist(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt again: Python drops what is raised while it collects garbage."""
        is_late = self._deadline is not None and time.monotonic() > self._deadline
        if is_late:
            raise KeyboardInterrupt
        self._interrupt()

    def _overlook(self, dropped: Any) -> None:
        """Say nothing of an interruption that Python dropped, since it is repeated."""
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            self._unraisable(dropped)
