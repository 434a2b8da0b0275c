"""What a person sees while a study runs: by the clock, in any terminal, and when it is stopped."""

import dataclasses
import hashlib
import io
import json
import os
import signal
import sys
import threading
import time

import pytest
from optuna.trial import TrialState
from rich.console import Console
from searches import opened, trial

from optnas.cli import watching
from optnas.cli.displays import SILENCE, JsonDisplay, LiveDisplay, PlainDisplay
from optnas.cli.rows import header, trial_lines
from optnas.cli.watching import Watch, bar, flowed, footer, pulse_line, shown_span
from optnas.devices.gpus import Use
from optnas.forecast.ahead import Ahead
from optnas.forecast.left import Left
from optnas.forecast.ranges import Span
from optnas.report.text import ending_text
from optnas.running import heart, runner
from optnas.running.events import Display
from optnas.running.signals import Signals
from optnas.trials import pulse
from optnas.trials.attributes import EPOCH_SHARE
from optnas.trials.metric import ACCURACY
from optnas.units import plural, span

WIDTHS = (60, 80, 120)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(number: int = 12, **keys) -> dict:
    fields = pulse.Pulse(
        number=number,
        phase="depth",
        step="depth 13 of at most 100, accepted 11",
        epoch=6,
        epochs=22,
        accuracy=0.59375,
        seconds=83.0,
        batch=43,
        batches=100,
    ).fields()
    return {**fields, "running": 4.0, **keys}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock, tmp_path, monkeypatch) -> Watch:
    found = opened(tmp_path, [trial(0, 0.25), trial(1, 0.5)], budget={"trials": 200})
    ahead = Ahead(has_end=True, bounds=None, courses=None, phases={}, per_trial=Span(1, 1))
    left = Left(ahead, seconds=Span(1200.0, 5400.0))
    monkeypatch.setattr(watching, "time_left", lambda *_, **__: left)
    watch = Watch(clock)
    watch.start(found)
    return watch


def test_the_clock_moves_though_nothing_happens(watch, clock):
    watch.pulse([beat()], 0)
    seen = []
    for _ in range(3):
        clock.now += 1
        seen.append("\n".join(footer(watch, 120, 40)))
    assert len(set(seen)) == 3
    assert "depth 13 of at most 100, accepted 11" in seen[0]
    assert "epoch 7 of 22  |  [####......]  43%" in seen[0]
    assert "accuracy 0.5938  |  1:28 m" in seen[0]
    assert "1:29 m" in seen[1]
    assert "best 0.5000 (trial 1)  |  2/200 trials" in seen[0]


def test_a_finished_trial_is_counted_at_once(watch, clock):
    clock.now += 0.001  # The storage was looked at a moment ago.
    watch.ended(0, trial(2, 0.75))
    assert "best 0.7500 (trial 2)  |  3/200 trials" in "\n".join(footer(watch, 120, 40))


def test_the_time_left_is_a_range_that_passes(watch, clock):
    assert watch.left() == "time left: known after a trial"
    watch.pulse([beat(running=0.0)], 0)
    clock.now += 2
    watch.foresee()
    assert watch.left() == "20 to 90 min left"
    clock.now += 600
    assert watch.left() == "13 to 80 min left"  # At most 6-fold, though neither end has passed.
    clock.now += 1e6
    assert watch.left() == "0 to 1 s left"


def test_the_range_is_the_narrower_the_more_is_known():
    ahead = Ahead(has_end=True, bounds=None, courses=None, phases={}, per_trial=Span(1, 1))
    deeper = dataclasses.replace(ahead, phases={"depth": (Span(1, 2), 9)})
    trials = [trial(n, 0.5, phase="depth") for n in range(12)]

    def width(ahead, trials):
        span = shown_span(Left(ahead, Span(100.0, 1000.0)), trials)
        assert span.low * span.high == pytest.approx(100 * 1000)
        return round(span.high / span.low, 6)

    assert width(deeper, trials[:9]) == 6
    assert width(deeper, trials) == 5
    assert width(ahead, trials) == 2
    assert width(ahead, [trial(n, 0.5) for n in range(12)]) == 5  # No depth to be settled.
    assert shown_span(Left(ahead, None), trials) is None


def test_what_is_no_training_counts_too(watch, clock, monkeypatch):
    ahead = Ahead(has_end=True, bounds=(10, 10), courses=(), phases={}, per_trial=Span(1, 1))
    monkeypatch.setattr(Ahead, "trials", Span(10, 10))
    left = Left(ahead, seconds=Span(10.0, 20.0))
    monkeypatch.setattr(watching, "time_left", lambda *_, **__: left)
    for number in range(2, 32):  # Each takes 2 s, of which it trains for one.
        clock.now += 2
        watch.ended(0, trial(number, 0.5, train_seconds=1.0, epochs_trained=1))
    watch.foresee()
    low, high = watch.seconds_left()
    assert low * high == pytest.approx((10 + 10) * (20 + 10), rel=0.1)
    assert high / low == pytest.approx(2)


def test_several_workers_make_it_shorter(watch, clock):
    for worker in range(4):
        watch.pulse([beat(worker)], worker)
    clock.now += 2
    watch.foresee()
    low, high = watch.seconds_left()
    assert high / low == pytest.approx(4.5)
    assert 1200 / 4 <= low < 1200 / 3


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_no_line_is_wider_than_the_terminal(watch, width, workers, monkeypatch):
    monkeypatch.setattr(watching, "use_of", lambda _: [Use(0, 87, 3 * 10**9, 80 * 10**9)])
    for worker in range(workers):
        watch.pulse([beat(worker, gpu="GPU-0")], worker)
    watch.ending = "interrupted"
    for height in (5, 20, 40):
        lines = footer(watch, width, height)
        assert all(0 < len(line) <= width for line in lines)
        assert len(lines) < height
    text = " ".join(footer(watch, width, 200))
    for part in ("GPU 0: 87% busy", "3.0 GB of 80.0 GB", "Ctrl-C once more ends at once"):
        assert part in text
    hidden = any("trials more" in line for line in footer(watch, width, 20))
    assert hidden if workers == 16 else not hidden or workers == 4


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_stay_whole(width):
    lost = trial(1234, None, state=TrialState.FAIL, phase="architecture", params=12_345_678)
    lost.user_attrs |= {
        "multiply_adds": 10**9,
        "train_seconds": 4000.0,
        "failure": "candidate",
        "failure_reason": "cannot be built: " + "a reason of many words " * 5,
        "continues": 1200,
    }
    row, *rest = trial_lines(lost, width)
    assert row == header(ACCURACY, width).replace("accuracy", "       -").replace(
        "trial  phase       ", " 1234  architecture"
    ).replace(" params  mult-adds     time", "  12.3M         1G   1:06 h")
    assert all(len(line) <= width for line in [row, *rest])
    assert rest
    assert all(line.startswith("       ") for line in rest)
    assert "continues 1200" in " ".join(rest)


def test_a_narrow_terminal_has_fewer_columns():
    assert header(ACCURACY, 50) == "trial  phase         accuracy   params     time"
    assert header(ACCURACY, 30) == "trial  accuracy     time"
    assert len(trial_lines(trial(1, 0.5), 10)[0]) == 10


def test_what_a_trial_came_to_is_in_words():
    topology = trial(0, state=TrialState.PRUNED, curve=(0.1, 0.2), edge_weights={}, phase="x")
    assert trial_lines(topology)[0].endswith("topology found after 2 epochs")
    pruned = trial(0, state=TrialState.PRUNED, curve=(0.1,))
    assert trial_lines(pruned)[0].endswith("pruned after 1 epoch")
    stopped = trial(
        0, state=TrialState.FAIL, failure="lost", failure_reason="interrupted", curve=(0.1,)
    )
    assert trial_lines(stopped)[0].endswith("interrupted; goes on later")


def test_a_log_hears_something_every_half_minute(watch, clock, capsys, tmp_path):
    display = PlainDisplay(clock)
    display.start(opened(tmp_path, study="other", budget={"trials": 9}))
    capsys.readouterr()
    for _ in range(61):
        clock.now += 1
        display.pulse([beat()], 0)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("trial 12, depth 13 of at most 100, accepted 11, epoch 7 of 22, [####")
    assert f"running {SILENCE:.0f} s" in first
    assert "running 1:00 m" in second
    display.note("something")
    clock.now += SILENCE - 1
    display.pulse([beat()], 0)
    assert capsys.readouterr().out == "something\n"


def test_a_program_hears_it_as_json(clock, capsys, tmp_path):
    display = JsonDisplay(clock)
    display.start(opened(tmp_path))
    clock.now += SILENCE
    display.pulse([beat()], 3)
    display.interrupted("interrupted")
    _, progress, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert (progress["event"], progress["seconds"]) == ("progress", 30.0)
    assert progress["training"][0]["worker"] == 3
    assert progress["training"][0]["batch"] == 43
    assert answer == {"event": "interrupted", "ending": "interrupted"}


def test_a_terminal_is_redrawn_without_an_event(tmp_path):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, height=24)
    with LiveDisplay(console) as display:
        display.start(opened(tmp_path))
        display.pulse([beat()], 0)
        until = time.monotonic() + 5
        while "1:28 m" not in file.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    assert "1:28 m" in file.getvalue()


def test_small_parts():
    assert (bar(0.0), bar(0.43), bar(1.0)) == ("[..........]", "[####......]", "[##########]")
    assert flowed(["abc", "de", "f" * 20], 12) == ["abc  |  de", "f" * 9 + "..."]
    assert (plural(1, "epoch"), plural(2000, "epoch"), plural(0, "study")) == (
        "1 epoch",
        "2,000 epochs",
        "0 studies",
    )
    assert span(40, 100) == "40 to 100 s"
    assert span(1200, 5400) == "20 to 90 min"
    assert span(5400, 9000) == "1.5 to 2.5 h"
    assert span(60, 60) == "60 s"
    assert pulse_line(beat(batches=0, batch=0, accuracy=None, step=""), ACCURACY).startswith(
        "trial 12  |  depth  |  epoch 7 of 22  |  [..........]   0%  |  1:27 m"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_is_answered_while_the_main_thread_is_busy():
    """Python's own handler only runs when an operation is over that nothing interrupts."""
    answers: list[float] = []
    with Signals(lambda: None, answer=lambda _: answers.append(time.monotonic())):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)
        over = time.monotonic()
    assert len(answers) == 1
    assert answers[0] < over


class Stop(Display):
    """Presses Ctrl-C in the middle of an epoch."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def pulse(self, pulses, worker) -> None:
        if not self.answers and any(0 < p["batch"] < p["batches"] - 5 for p in pulses):
            self.answers.append("")
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted(self, ending) -> None:
        self.answers.append(ending)


def test_half_an_epoch_is_kept_and_the_search_ends_the_same(tmp_path, monkeypatch):
    keys = {
        "study": "half",
        "data": {"name": "digits", "samples": 0.5},
        "space": {"name": "chain", "depth": [3, 3], "width": [8, 8]},
        "sampler": "random",
        "train": {"epochs": 2, "batch_size": 4},
        "budget": {"trials": 1},
    }
    monkeypatch.setattr(heart, "EVERY", 0.01)
    whole = runner.run({**keys, "storage": f"sqlite:///{tmp_path}/whole.db"})
    keys["storage"] = f"sqlite:///{tmp_path}/half.db"
    stop = Stop()
    outcome = runner.run(keys, display=stop)
    assert outcome.ending == "interrupted"
    assert stop.answers == ["", "interrupted"]
    (left,) = outcome.study.trials
    share = left.user_attrs[EPOCH_SHARE]
    assert 0 < share < 1
    kept = len(left.intermediate_values) + share
    said = ending_text(outcome, "optnas run half.yaml", "half.yaml")
    assert said.startswith("Interrupted; nothing is lost. `optnas run half.yaml` goes on.\n")
    assert f"Kept: 0 finished trials; trial 0 after {kept:.3g} of 2 epochs." in said
    again = runner.run(keys)
    assert again.ending == "budget"
    assert again.study.trials[-1].intermediate_values == whole.study.trials[0].intermediate_values
    assert again.study.trials[-1].user_attrs["continues"] == 0
