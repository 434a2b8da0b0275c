"""Progress where Python runs: in a notebook one line, elsewhere what commands show."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import optuna
from markupsafe import escape
from optuna.trial import FrozenTrial

from optnas.running.events import Display
from optnas.study.opening import OpenStudy, counted_trials
from optnas.units import duration

OnEpoch = Callable[[int, int, float, float], None]
REDRAWN = 0.25
"""Least seconds from one view to the next."""


@contextlib.contextmanager
def display_of(progress: bool) -> Iterator[Display | None]:
    """What shows a run, in place of Optuna's log; None if nothing is to."""
    if not progress:
        yield None
        return
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with NotebookDisplay() if in_notebook() else _console().shown_display() as display:
            yield display
    finally:
        optuna.logging.set_verbosity(level)


@contextlib.contextmanager
def epochs_shown(progress: bool) -> Iterator[OnEpoch | None]:
    """What shows the epochs of trainings; None if nothing is to."""
    if not progress:
        yield None
    elif in_notebook():
        view = View()

        def show(epoch: int, epochs: int, accuracy: float, seconds: float) -> None:
            left = f"about {duration(seconds * (epochs - epoch))} left"
            view.show(f"epoch {epoch}/{epochs}  training accuracy {accuracy:.4f}  {left}")

        yield show
        view.close()
    else:
        yield _console().epoch_printer()


def _console() -> Any:
    """What commands show with. That they put the current folder last is for commands alone."""
    before = list(sys.path)
    from optnas.cli import console

    sys.path[:] = before
    return console


def in_notebook() -> bool:
    """Whether a kernel shows what is displayed; a terminal's IPython does not."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class View:
    """One line in the output of a cell, which what comes later replaces."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._text = ""
        self._drawn = 0.0

    def show(self, text: str) -> None:
        """Show a line in place of the one before, unless that has just been drawn."""
        self._text = text
        if time.monotonic() - self._drawn >= REDRAWN:
            self.close()

    def close(self) -> None:
        """Show the last line, if there is one."""
        if not self._text:
            return
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        line = HTML(f"<pre>{escape(self._text)}</pre>")
        if self._handle is None:
            self._handle = display(line, display_id=True)
        else:
            self._handle.update(line)


class NotebookDisplay(Display):
    """Shows a run as one line, which says at the end how many trials there are and the best.

    One line has no room for how workers are placed.
    """

    def __init__(self) -> None:
        self._view = View()
        self._study: OpenStudy | None = None
        self._start = time.monotonic()
        self._now: dict[int, str] = {}
        self._ended = 0
        self._best: float | None = None

    def __enter__(self) -> "NotebookDisplay":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._study is not None:
            self._now = {}
            self._view.show(self._line())
            self._view.close()

    def start(self, handle: OpenStudy) -> None:
        self._study = handle
        trials = counted_trials(handle.study)
        self._ended = len(trials)
        self._best = max((t.value for t in trials if t.value is not None), default=None)
        self._view.show(self._line())

    def epoch(self, progress: Any, worker: int) -> None:
        self._now[worker] = (
            f"trial {progress.number} {progress.phase} epoch {progress.epoch}/{progress.epochs} "
            f"{progress.accuracy:.4f}"
        )
        self._view.show(self._line())

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._now.pop(worker, None)
        if trial.params:
            self._ended += 1
        if trial.value is not None:
            self._best = max(trial.value, self._best or trial.value)
        self._view.show(self._line())

    def _line(self) -> str:
        assert self._study is not None
        plural = "" if self._ended == 1 else "s"
        best = "" if self._best is None else f", best {self._best:.4f}"
        parts = [
            f"{self._study.study.study_name}: {self._ended} trial{plural}{best}",
            *(self._now[worker] for worker in sorted(self._now)),
            duration(time.monotonic() - self._start),
        ]
        return " | ".join(parts)
