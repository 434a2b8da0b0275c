"""What is known of a run while it runs, and the lines that say it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from optnas.cli.rows import cut
from optnas.devices.gpus import Use, use_of
from optnas.forecast.left import PER_TRIAL, SETTLED, Left, time_left, widest
from optnas.forecast.pace import OFF
from optnas.forecast.ranges import WIDEST, Span, at_least_wide, at_most_wide
from optnas.running.signals import Interruption
from optnas.study.budget import budget_used_by
from optnas.study.opening import OpenStudy, is_counted
from optnas.study.record import metric_of
from optnas.trials.claims import is_feasible
from optnas.trials.metric import ACCURACY, Metric
from optnas.units import duration, plural, size, span

LOOK = 1.0
"""Seconds between two looks at the study's storage, at least."""
SHARE = 15
"""A look, or a forecast, is so many times rarer than it takes long."""
GAP = "  |  "
FEW = 3
"""Trials for which what is believed beforehand of the time beside training counts."""

Clock = Callable[[], float]


class Watch:
    """Gathers what a run tells.

    Args:
        clock: Seconds from any moment on.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._handle: OpenStudy | None = None
        self._trials: Sequence[FrozenTrial] = ()
        self._look, self._forecast = _Rarely(clock), _Rarely(clock)
        self._metric = ACCURACY
        self._has_changed = True
        self._counted_from, self._used_before = self._began, 0.0
        self._ended: int | None = None
        self._span: Span | None = None
        self._widest = WIDEST
        self._span_of = self._began
        self._pulses: dict[int, tuple[float, Sequence[Mapping[str, Any]]]] = {}
        self._gpus: list[Use] = []
        self.ending: Interruption | None = None

    # What is told.

    def start(self, handle: OpenStudy) -> None:
        """The study is open."""
        self._handle = handle
        self._metric = metric_of(handle.study)
        self.look()
        self._count_from_here()

    def pulse(self, pulses: Sequence[Mapping[str, Any]], worker: int) -> None:
        """What a worker trains."""
        self._pulses[worker] = (self._clock(), pulses)
        used = sorted({p["gpu"] for _, each in self._pulses.values() for p in each if p["gpu"]})
        self._gpus = use_of(used)

    def ended(self, worker: int, trial: FrozenTrial) -> None:
        """A worker has finished a trial; others that it trains at the same time go on."""
        heard, pulses = self._pulses.pop(worker, (0.0, ()))
        others = [pulse for pulse in pulses if pulse["number"] != trial.number]
        if others:  # Of other threads of the worker.
            self._pulses[worker] = (heard, others)
        before = self._trials[: trial.number]
        self._trials = [*before, trial, *self._trials[trial.number + 1 :]]
        if self._ended is None:  # The first takes longer than others: much is made once.
            self._ended = 0
            self._count_from_here()
        else:
            self._ended += bool(trial.params)
        self._has_changed = True

    def look(self) -> None:
        """See what the storage says, unless that was done a moment ago."""
        self._has_changed = True
        if self._handle is not None and self._look.is_due:
            with self._look:
                self._trials = self._handle.study.get_trials(deepcopy=False)

    def foresee(self) -> None:
        """Think about how long it will take, if something has happened since."""
        if self._handle is None or not self._has_changed or not self._forecast.is_due:
            return
        if not any(t.intermediate_values or t.state.is_finished() for t in self._trials):
            return  # Nobody can know.
        self._has_changed = False
        with self._forecast:
            try:
                heard = [pulse for _, pulses in self._pulses.values() for pulse in pulses]
                left = time_left(self._handle, pulses=heard)
            except Exception:  # What is shown may be old; what is trained must not suffer.
                return
            finally:
                self._handle.study._storage.remove_session()  # That of this thread.
            self._widest = widest(left.ahead, self._trials)
            span = shown_span(left, self._trials)
            if span is not None:
                span = at_least_wide(self._by_the_clock(span, left), SETTLED)
                span = at_most_wide(span, self._widest)
            self._span = span
            self._span_of = self._clock()

    def _count_from_here(self) -> None:
        """From now on it is seen how much of the time is training."""
        self._counted_from = self._clock()
        self._used_before = budget_used_by(self._trials).hours

    def _by_the_clock(self, span: Span, left: Left) -> Span:
        """How long it takes to train for so many seconds, by trials of which each takes more.

        Workers may wait for one another, for times that grow with those of training, and in the
        end for the last of them. One alone has what it takes to store and draw a trial, however
        short its training.
        """
        trained = 3600 * (budget_used_by(self._trials).hours - self._used_before)
        now = self._clock()
        for heard, pulses in self._pulses.values():  # What nobody has written down yet.
            trained += sum(pulse["running"] + now - heard for pulse in pulses)
        workers = max(1, sum(max(1, len(pulses)) for _, pulses in self._pulses.values()))
        passed = now - self._counted_from
        # Little is known of it before some trials have ended.
        if workers == 1:
            beside = 0.0 if self._ended is None else max(0.0, passed - trained)
            each = (beside + FEW * PER_TRIAL) / ((self._ended or 0) + FEW)
            trials = left.ahead.trials
            return span if trials is None else span.plus(trials.scaled(each))
        low, high = span.scaled(1 / min(workers, (trained + 60.0 * workers) / (passed + 60.0)))
        high += left.each * (1 - 1 / workers)
        return Span(max(low, left.longest / OFF), max(high, left.longest * OFF))

    # What is said.

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def training(self) -> list[str]:
        """A line for every trial that trains, the parts of each joined by ``GAP``."""
        if self._handle is None:
            return ["reading the data"]
        workers = [self._pulses[worker] for worker in sorted(self._pulses)]
        now = self._clock()
        lines = [
            pulse_line(pulse, self._metric, now - heard)
            for heard, pulses in workers
            for pulse in pulses
        ]
        return lines or ["preparing a trial"]

    def pulses(self) -> list[dict[str, Any]]:
        """The same, for programs."""
        return [
            {"worker": worker, **pulse}
            for worker in sorted(self._pulses)
            for pulse in self._pulses[worker][1]
        ]

    def study(self) -> list[str]:
        """The parts of what is said of the whole study."""
        parts = [self._best(), *self._budget(), f"running {_clock_text(self.elapsed)}"]
        if self._handle is not None:
            parts.append(self.left())
        return parts

    def left(self) -> str:
        """How long it will take."""
        if self._handle is None:
            return ""
        seconds = self.seconds_left()
        if seconds is not None:
            return f"{span(*seconds)} left"
        if not self._handle.has_end and not any(vars(self._handle.config.budget).values()):
            return "goes on until Ctrl-C"
        return "time left: known after a trial"

    def seconds_left(self) -> tuple[float, float] | None:
        """The same in seconds; None as long as nobody knows."""
        if self._span is None:
            return None
        passed = self._clock() - self._span_of
        low, high = self._span.low - passed, self._span.high - passed
        if high <= 1:
            return 0.0, 1.0
        # What takes longer than was thought is not over in a moment.
        return max(low, high / self._widest), high

    def gpus(self) -> list[str]:
        """A line for every GPU that trains."""
        return [
            f"GPU {use.index}: {use.percent}% busy{GAP}"
            f"{size(use.used)} of {size(use.total)} of memory"
            for use in self._gpus
        ]

    def stopping(self) -> str:
        """What is said once a signal was heard."""
        kept = [
            f"trial {p['number']} stops at its next batch, and all it has trained is kept"
            for _, pulses in self._pulses.values()
            for p in pulses
        ]
        again = "Ctrl-C once more ends at once" if self.ending == "interrupted" else ""
        what = "; ".join(kept) or "finished trials are kept"
        return "; ".join(filter(None, [f"{(self.ending or '').capitalize()}: {what}", again]))

    def _best(self) -> str:
        values = [
            (t.value, -t.number) for t in self._trials if t.value is not None and is_feasible(t)
        ]
        if not values:
            return "best -"
        value, number = max(values)
        return f"best {value:.4f} (trial {-number})"

    def _budget(self) -> list[str]:
        if self._handle is None:
            return []
        spent, budget = budget_used_by(self._trials), self._handle.config.budget
        trials = sum(map(is_counted, self._trials))
        parts = [_of(trials, budget.trials, "trial")]
        if budget.epochs is not None:
            parts.append(_of(spent.epochs, budget.epochs, "epoch"))
        if budget.hours is not None:
            parts.append(f"{spent.hours:.2f}/{budget.hours:g} hours")
        return parts


def shown_span(left: Left, trials: Sequence[FrozenTrial]) -> Span | None:
    """The time left as it is shown, if anybody knows it.

    Args:
        left: What is left of a search.
        trials: Its trials.
    """
    if left.seconds is None:
        return None
    # Whatever the strategy does, the machine may have less or more to do than now.
    return at_most_wide(at_least_wide(left.seconds, SETTLED), widest(left.ahead, trials))


class _Rarely:
    """Something that is done again only after a while, longer where it takes longer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock()
        self._began = 0.0

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._due

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._began
        self._due = self._clock() + max(LOOK, SHARE * took)


def pulse_line(pulse: Mapping[str, Any], metric: Metric, since: float = 0.0) -> str:
    """What trains, and how far it is.

    Args:
        pulse: The fields of a `optnas.trials.pulse.Pulse`.
        metric: What its accuracy is.
        since: Seconds since they were told.
    """
    parts = [f"trial {pulse['number']}", pulse["step"] or pulse["phase"]]
    batches = pulse["batches"]
    share = 0.0 if not batches else min(1.0, pulse["batch"] / batches)
    epoch = min(pulse["epoch"] + 1, max(1, pulse["epochs"]))
    if pulse["epochs"]:  # It trains already.
        parts.append(f"epoch {epoch} of {pulse['epochs']}")
        parts.append(f"{bar(share)} {100 * share:3.0f}%")
    if pulse["accuracy"] is not None:
        parts.append(f"{metric.name} {pulse['accuracy']:.4f}")
    parts.append(_clock_text(pulse["seconds"] + pulse["running"] + since))
    return GAP.join(filter(None, parts))


def bar(share: float, width: int = 10) -> str:
    """A share as a bar."""
    full = round(share * width)
    return f"[{'#' * full}{'.' * (width - full)}]"


def flowed(parts: Iterable[str], width: int) -> list[str]:
    """Parts in lines of so many characters; a part is broken only if it is longer than a line."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(GAP) + len(part) <= width:
            lines[-1] += f"{GAP}{part}"
        else:
            lines.append(cut(part, width))
    return lines


def footer(watch: Watch, width: int, height: int) -> list[str]:
    """The lines below the finished trials: never wider or higher than the terminal.

    Args:
        watch: What is known.
        width: Characters of a line.
        height: Lines of the terminal.
    """
    training = [flowed(line.split(GAP), width) for line in watch.training()]
    study = flowed(watch.study(), width)
    for gpu in watch.gpus():
        study += flowed(gpu.split(GAP), width)
    if watch.ending is not None:
        study += flowed(watch.stopping().split("; "), width)
    room = max(1, height // 2 - len(study))
    shown: list[str] = []
    for number, lines in enumerate(training):
        left = len(training) - number
        if len(shown) + len(lines) + (left > 1) > room and shown:
            shown.append(cut(f"and {plural(left, 'trial')} more", width))
            break
        shown += lines
    return [*shown, *study][: max(1, height - 1)]


def _clock_text(seconds: float) -> str:
    """A time that moves every second."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(seconds)


def _of(number: int, limit: int | None, noun: str) -> str:
    return plural(number, noun) if limit is None else f"{number}/{limit} {noun}s"
