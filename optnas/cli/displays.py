"""Progress of a run: for a terminal, for a log, or for a program."""

import json
import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.text import Text

from optnas.cli.rows import header, trial_fields, trial_lines
from optnas.cli.watching import GAP, Clock, Watch, footer
from optnas.pages.text import printable
from optnas.running.events import Display
from optnas.running.signals import Interruption
from optnas.study.data import seen_fields, seen_lines
from optnas.study.opening import OpenStudy, counted_trials
from optnas.study.record import metric_of
from optnas.trials.outcomes import is_interrupted
from optnas.units import plural

SILENCE = 30.0
"""Seconds after which a log hears what trains, if nothing else was said."""


class _Log(Display):
    """What displays have in common that write line by line, from several threads.

    Args:
        clock: Seconds from any moment on.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._watch = Watch(clock)
        self._clock = clock
        self._said = clock()
        self._turn = threading.Lock()
        self._ahead = ""

    def ahead(self, text: str) -> None:
        """What is forecast, before the study is open."""
        self._ahead = text

    def start(self, handle: OpenStudy) -> None:
        self._watch.start(handle)

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._watch.ended(worker, trial)

    def pulse(self, pulses: Any, worker: int) -> None:
        self._watch.pulse(pulses, worker)
        if self._clock() - self._said >= SILENCE and self._may_speak:
            self._watch.look()
            self._watch.foresee()
            self._progress()

    def interrupted(self, ending: Interruption) -> None:
        self._watch.ending = ending

    _may_speak = True
    """Whether silence may be broken now."""

    def _progress(self) -> None:
        """Say where the run is."""
        raise NotImplementedError

    def _write(self, *lines: str) -> None:
        with self._turn:
            self._said = self._clock()
            sys.stdout.write("".join(f"{line}\n" for line in lines))
            sys.stdout.flush()


class JsonDisplay(_Log):
    """A JSON object a line on stdout.

    ``start``, ``note``, ``interrupted``; ``epoch`` and ``trial`` of a worker; ``progress`` after
    half a minute without another.
    """

    _may_speak = False

    def start(self, handle: OpenStudy) -> None:
        super().start(handle)
        self._may_speak = True  # Nothing comes before the study.
        fields = {
            "study": handle.study.study_name,
            "metric": metric_of(handle.study).key,
            "trials": _known(handle),
            "data": seen_fields(handle.study),
            "ahead": self._ahead,
        }
        self._print("start", fields)

    def epoch(self, progress: Any, worker: int) -> None:
        self._print("epoch", {"worker": worker, **vars(progress)})

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        super().trial(trial, worker)
        self._print("trial", {"worker": worker, **trial_fields(trial)})

    def note(self, text: str) -> None:
        self._print("note", {"text": text})

    def interrupted(self, ending: Interruption) -> None:
        super().interrupted(ending)
        self._print("interrupted", {"ending": ending})

    def _progress(self) -> None:
        fields = {
            "training": self._watch.pulses(),
            "seconds": round(self._watch.elapsed, 1),
            "seconds_left": self._watch.seconds_left(),
        }
        self._print("progress", fields)

    def _print(self, event: str, fields: dict[str, Any]) -> None:
        self._write(json.dumps({"event": event, **fields}))


class PlainDisplay(_Log):
    """For logs and pipes: a line per finished trial, and one after half a minute's silence."""

    _headings = ""

    def start(self, handle: OpenStudy) -> None:
        super().start(handle)
        self._headings = header(metric_of(handle.study))
        self._write(_opening(handle, self._ahead))

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        super().trial(trial, worker)
        if trial.params:
            first, self._headings = self._headings, ""
            self._write(*filter(None, [first]), *trial_lines(trial))

    def note(self, text: str) -> None:
        self._write(text)

    def interrupted(self, ending: Interruption) -> None:
        super().interrupted(ending)
        self._write(self._watch.stopping())

    def _progress(self) -> None:
        now = [line.replace(GAP, ", ") for line in self._watch.training()]
        self._write("; ".join([*now, ", ".join(self._watch.study())]))


class LiveDisplay(Display):
    """For a terminal: a line per finished trial above a footer that follows the clock.

    Args:
        console: The terminal.
        clock: Seconds from any moment on.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._watch = Watch(clock)
        self._live = Live(
            console=console,
            get_renderable=self._footer,
            refresh_per_second=4,
            transient=True,
            vertical_overflow="crop",
        )

        self._ahead = self._headings = ""

    def ahead(self, text: str) -> None:
        """What is forecast, before the study is open."""
        self._ahead = text

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def start(self, handle: OpenStudy) -> None:
        self._watch.start(handle)
        self._console.print(Text(printable(_opening(handle, self._ahead))))
        self._headings = header(metric_of(handle.study), self._console.width)

    def epoch(self, progress: Any, worker: int) -> None:
        self._watch.look()

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._watch.ended(worker, trial)
        self._watch.look()
        style = "red" if trial.state == TrialState.FAIL and not is_interrupted(trial) else ""
        if trial.params and self._headings:
            # Not before: what a search may take is heard of when several workers are under way.
            self._print(self._headings, style="bold")
            self._headings = ""
        for line in trial_lines(trial, self._console.width) if trial.params else ():
            self._print(printable(line), style=style)
        self._live.refresh()

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text), style="dim"))

    def pulse(self, pulses: Any, worker: int) -> None:
        self._watch.pulse(pulses, worker)
        self._watch.foresee()

    def interrupted(self, ending: Interruption) -> None:
        self._watch.ending = ending
        self._live.refresh()

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text(line, style=style, no_wrap=True, overflow="ellipsis"))

    def _footer(self) -> Text:
        lines = footer(self._watch, self._console.width, self._console.height)
        text = printable("\n".join(lines))
        return Text(text, style="cyan", no_wrap=True, overflow="ellipsis")


def make_display(*, as_json: bool) -> JsonDisplay | PlainDisplay | LiveDisplay:
    """The display that fits where stdout goes."""
    if as_json:
        return JsonDisplay()
    return (
        LiveDisplay(Console(file=getattr(sys.stdout, "stream", None)))
        if sys.stdout.isatty()
        else PlainDisplay()
    )


def _opening(handle: OpenStudy, ahead: str) -> str:
    known = _known(handle)
    state = f"has {plural(known, 'trial')}" if known else "starts"
    first = f"study {handle.study.study_name!r} {state}: {handle.config.sampler.name}"
    return "\n".join([first, *seen_lines(handle.study), *filter(None, [ahead])])


def _known(handle: OpenStudy) -> int:
    return len(counted_trials(handle.study))
