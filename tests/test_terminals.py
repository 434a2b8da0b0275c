"""Every strategy's search on terminals of three sizes: no row is broken, and nothing is left over.

Searches that were run once are shown again by a clock of the test's own.
"""

import io
import json
from collections.abc import Iterator

import pytest
from rich.console import Console
from terminals import SIZES, STUDIES, Terminal, keys

from optnas.cli import watching
from optnas.cli.displays import SILENCE, JsonDisplay, LiveDisplay, PlainDisplay
from optnas.cli.rows import header, trial_lines
from optnas.cli.watching import footer
from optnas.config.file import study_from_dict
from optnas.forecast.ahead import Ahead
from optnas.forecast.left import Left
from optnas.forecast.ranges import Span
from optnas.running import runner
from optnas.running.events import Display
from optnas.study.record import metric_of
from optnas.trials.attributes import PHASE, STEP
from optnas.trials.pulse import Pulse

BEATS = 3
"""How often a trial is heard of before it ends."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told(Display):
    def __init__(self) -> None:
        self.trials = []
        self.said = ""

    def ahead(self, text):
        self.said = text

    def trial(self, trial, worker):
        self.trials.append(trial)


@pytest.fixture(scope="module", params=STUDIES)
def search(request, tmp_path_factory):
    """A study, what was said of it, and its trials in the order in which they ended."""
    told = Told()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        folder = tmp_path_factory.mktemp("study")
        outcome = runner.run(study_from_dict(keys(request.param), folder), display=told)
    assert len(told.trials) >= 2
    return outcome.opened, told


@pytest.fixture(autouse=True)
def _forecast(monkeypatch):
    ahead = Ahead(has_end=True, bounds=None, courses=None, phases={}, per_trial=Span(1, 1))
    left = Left(ahead, seconds=Span(123.0, 4567.0))
    monkeypatch.setattr(watching, "time_left", lambda *_, **__: left)


def shown_again(display, clock, search, workers: int) -> Iterator[tuple[str, object]]:
    """Tell a display of a search; what happened, each time."""
    handle, told = search
    display.ahead(told.said)
    display.start(handle)
    yield "start", None
    for place, trial in enumerate(told.trials):
        for _ in range(BEATS):
            clock.now += 1
            for other in told.trials[place : place + workers]:
                display.pulse([pulse_of(other, clock.now)], other.number % workers)
            yield "pulse", None
        display.trial(trial, trial.number % workers)
        yield "trial", trial


def pulse_of(trial, seconds: float) -> dict:
    attrs = trial.user_attrs
    known = Pulse(
        number=trial.number,
        phase=attrs.get(PHASE, ""),
        step=attrs.get(STEP, ""),
        epochs=len(trial.intermediate_values) or 1,
        accuracy=max(trial.intermediate_values.values(), default=None),
        seconds=seconds,
        batch=7,
        batches=9,
    )
    return {**known.fields(), "running": 1.0}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_row_is_broken(search, size, workers):
    columns, lines = size
    terminal, clock, out = Terminal(columns, lines), Clock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=columns, height=lines)
    display = LiveDisplay(console, clock)
    display._live.auto_refresh = False  # This test says when.
    above: list[str] = []
    fed, shown = 0, False
    with display:
        for what, trial in shown_again(display, clock, search, workers):
            display._live.refresh()
            rows = terminal.feed(out.getvalue()[fed:].replace("\n", "\r\n").encode())
            fed = len(out.getvalue())
            below = footer(display._watch, columns, lines)
            assert [row.rstrip() for row in below] == rows[-len(below) :]
            kept = rows[: -len(below)]
            assert kept[: len(above)] == above
            new = [] if trial is None or not trial.params else trial_lines(trial, columns)
            if new and not shown:
                new = [header(metric_of(search[0].study), columns), *new]
            shown = shown or bool(new)
            if what != "start":
                assert kept[len(above) :] == [row.rstrip() for row in new]
            above = kept
    assert above[0].startswith("study ")
    assert terminal.feed(out.getvalue()[fed:].replace("\n", "\r\n").encode()) == above
    assert not terminal.screen.wrapped


@pytest.mark.parametrize("workers", [1, 4])
def test_a_program_reads_every_line(search, workers, capsys):
    clock = Clock()
    for _ in shown_again(JsonDisplay(clock), clock, search, workers):
        clock.now += SILENCE / BEATS
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "start"
    numbers = [event["number"] for event in events if event["event"] == "trial"]
    assert numbers == [trial.number for trial in search[1].trials]
    assert any(event["event"] == "progress" for event in events)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_pipe_is_never_silent_for_long(search, workers, capsys):
    clock, last = Clock(), 0.0
    for what, _ in shown_again(PlainDisplay(clock), clock, search, workers):
        said = capsys.readouterr().out
        if said:
            assert said.endswith("\n")
            assert "\x1b" not in said
            assert clock.now - last <= SILENCE + 10
            last = clock.now
        if what != "trial":
            clock.now += 9
    assert last > SILENCE
