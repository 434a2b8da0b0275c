"""Ctrl-C and SIGTERM during a run: what trains is handed back, and the run ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

_ALARM: signal.Signals | None = getattr(signal, "SIGALRM", None)  # Not on Windows.

Interruption = Literal["interrupted", "terminated"]

PATIENCE = 5.0
"""Seconds after SIGTERM in which a run ends of itself; whoever preempts it waits ten or more."""


class Signals:
    """Hears signals while it is entered, and interrupts what may be interrupted.

    An exception anywhere else, while a result is being stored say, would leave a trial running
    for ever; so elsewhere the run ends by itself. A second Ctrl-C does not wait for that, nor
    does a SIGTERM that was not heeded for seconds.

    Args:
        stop: Called at every signal.
        heard: The signals.
        patience: Seconds after SIGTERM in which the run should end of itself; None waits for ever.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        heard: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
        *,
        patience: float | None = PATIENCE,
    ) -> None:
        self.ending: Interruption | None = None
        self._stop = stop
        self._heard = heard
        self._patience = patience
        self._interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    @contextlib.contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """A signal raises KeyboardInterrupt inside, once."""
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

    def __exit__(self, *_: object) -> None:
        if _ALARM in self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.ending = "interrupted" if number == signal.SIGINT else "terminated"
        if signal.SIGINT in self._heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGTERM:
            self._set_alarm()
        self._stop()
        if self._interruptible:
            self._interruptible = False
            raise KeyboardInterrupt

    def _set_alarm(self) -> None:
        if self._patience is not None and _ALARM is not None and _ALARM not in self._before:
            self._before[_ALARM] = signal.signal(_ALARM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, self._patience)
