"""Progress of a run: for a terminal, for a log, or for a program."""

import json
import sys
import time
from types import TracebackType
from typing import Any, Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.text import Text

from optnas.pages.text import printable
from optnas.study.budget import used_budget
from optnas.study.data import seen_fields, seen_lines
from optnas.study.opening import OpenStudy, counted_trials
from optnas.study.record import metric_of
from optnas.trials.attributes import CONTINUES, FAILURE, FAILURE_REASON, PHASE
from optnas.trials.metric import ACCURACY, Metric
from optnas.units import count, duration

ROW = "{:>5}  {:<10}  {:>8}  {:>9}  {:>9}  {:>7}"


def header(metric: Metric) -> str:
    """What stands above the rows of `trial_line`."""
    return ROW.format("trial", "phase", metric.heading, "params", "mult-adds", "time")


def trial_fields(trial: FrozenTrial) -> dict[str, Any]:
    """What there is to say of a finished trial, for programs."""
    attrs = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "phase": attrs.get(PHASE),
        "value": trial.value,
        "params": attrs.get("params"),
        "multiply_adds": attrs.get("multiply_adds"),
        "seconds": attrs.get("train_seconds"),
        "epochs": len(trial.intermediate_values),
        "continues": attrs.get(CONTINUES),
        "failure": attrs.get(FAILURE),
        "reason": attrs.get(FAILURE_REASON),
    }


def trial_line(trial: FrozenTrial) -> str:
    """What there is to say of a finished trial, as a row under `header`."""
    fields = trial_fields(trial)
    value = "-" if fields["value"] is None else f"{fields['value']:.4f}"
    line = ROW.format(
        fields["number"],
        fields["phase"] or "",
        value,
        count(fields["params"]),
        count(fields["multiply_adds"]),
        duration(fields["seconds"]),
    )
    if trial.state == TrialState.PRUNED:
        line += f"  pruned after {fields['epochs']} epochs"
    if fields["reason"] is not None:
        line += f"  {fields['failure'] or 'infeasible'}: {fields['reason']}"
    if fields["continues"] is not None:
        line += f"  continues {fields['continues']}"
    return line


class JsonDisplay:
    """A JSON object a line on stdout: ``start``, ``note``; ``epoch`` and ``trial`` of a worker."""

    _ahead = ""

    def start(self, handle: OpenStudy) -> None:
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
        self._print("trial", {"worker": worker, **trial_fields(trial)})

    def note(self, text: str) -> None:
        self._print("note", {"text": text})

    def ahead(self, text: str) -> None:
        self._ahead = text

    @staticmethod
    def _print(event: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **fields}), flush=True)


class PlainDisplay:
    """One line per finished trial, for logs and pipes."""

    _ahead = ""

    def start(self, handle: OpenStudy) -> None:
        columns = header(metric_of(handle.study))
        print(_opening(handle, self._ahead), columns, sep="\n", flush=True)

    def epoch(self, progress: Any, worker: int) -> None:
        pass

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        if trial.params:
            print(trial_line(trial), flush=True)

    def note(self, text: str) -> None:
        print(text, flush=True)

    def ahead(self, text: str) -> None:
        self._ahead = text


class LiveDisplay:
    """For a terminal: a line per finished trial above a footer that follows the training."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._handle: OpenStudy | None = None
        self._start = self._drawn = time.monotonic()
        self._used_at_start = 0.0
        self._metric = ACCURACY
        self._now: dict[int, str] = {}
        self._ahead = ""

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
        self._handle = handle
        self._used_at_start = _share_used(handle) or 0.0
        self._console.print(Text(printable(_opening(handle, self._ahead))))
        self._metric = metric_of(handle.study)
        self._console.print(Text(header(self._metric), style="bold"))
        self._live.update(self._footer())

    def epoch(self, progress: Any, worker: int) -> None:
        self._now[worker] = (
            f"trial {progress.number}  {progress.phase}  "
            f"epoch {progress.epoch}/{progress.epochs}  "
            f"{self._metric.name} {progress.accuracy:.4f}"
        )
        # The footer reads the storage, which short epochs should not wait for.
        if time.monotonic() - self._drawn < 0.25:
            return
        self._drawn = time.monotonic()
        self._live.update(self._footer())

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._now.pop(worker, None)
        if trial.params:
            style = "red" if trial.state == TrialState.FAIL else ""
            self._console.print(Text(printable(trial_line(trial)), style=style))

    def note(self, text: str) -> None:
        self._console.print(Text(printable(text), style="dim"))

    def ahead(self, text: str) -> None:
        self._ahead = text

    def _footer(self) -> Text:
        """A line for every worker that trains, and one or two for the study."""
        assert self._handle is not None
        elapsed, share = time.monotonic() - self._start, _share_used(self._handle)
        clock = f"running {duration(elapsed)}"
        if share is not None and share > self._used_at_start:
            left = elapsed * max(0.0, 1 - share) / (share - self._used_at_start)
            clock = f"about {duration(left)} left"
        best = f"best {_best(self._handle)}"
        trained = [self._now[worker] for worker in sorted(self._now)] or ["starting"]
        study = [*_budget_parts(self._handle), clock]
        rows = [[now] for now in trained]
        if len(trained) == 1:
            rows[0].append(best)
        else:
            study.insert(0, best)
        lines = "\n".join("  |  ".join(parts) for parts in [*rows, study])
        return Text(printable(lines), style="cyan", no_wrap=True, overflow="ellipsis")


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
    state = f"has {known} trials" if known else "starts"
    first = f"study {handle.study.study_name!r} {state}: {handle.config.sampler.name}"
    return "\n".join([first, *seen_lines(handle.study), *filter(None, [ahead])])


def _known(handle: OpenStudy) -> int:
    return len(counted_trials(handle.study))


def _best(handle: OpenStudy) -> str:
    values = [t.value for t in counted_trials(handle.study) if t.value is not None]
    return f"{max(values):.4f}" if values else "-"


def _budget_parts(handle: OpenStudy) -> list[str]:
    spent, budget = used_budget(handle.study), handle.config.budget
    texts = {
        "trials": (str(spent.trials), budget.trials),
        "epochs": (str(spent.epochs), budget.epochs),
        "hours": (f"{spent.hours:.2f}", budget.hours),
    }
    return [
        f"{amount} {name}" if limit is None else f"{amount}/{limit} {name}"
        for name, (amount, limit) in texts.items()
        if limit is not None or name == "trials"
    ]


def _share_used(handle: OpenStudy) -> float | None:
    """The part of the scarcest budget that is used, or None without a budget."""
    spent, budget = used_budget(handle.study), handle.config.budget
    limits = ((spent.trials, budget.trials), (spent.epochs, budget.epochs))
    shares = [amount / limit for amount, limit in (*limits, (spent.hours, budget.hours)) if limit]
    return max(shares, default=None)
