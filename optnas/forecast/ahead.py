"""Which trials are ahead of a search: as its strategy says, or as its budget leaves them."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from optuna.trial import TrialState

from optnas.config.contract import Stretch, pruning_of, strategy_of
from optnas.forecast.ranges import Span, span_of
from optnas.seeds import derive_seed
from optnas.spaces import Architecture
from optnas.study.budget import budget_used_by, trial_epochs
from optnas.study.opening import OpenStudy, counted_trials


@dataclasses.dataclass(frozen=True)
class Ahead:
    """What a search may still train.

    Args:
        has_end: Whether the strategy comes to an end by itself.
        bounds: Fewest and most trials, or None where nobody knows.
        courses: Ways to the end that are equally likely; None if there is no end in sight, or
            the strategy does not say.
        phases: For every phase, the range of its trials over the courses, and what it at most
            may have.
        per_trial: Epochs of a trial where the strategy leaves them open: on average, as a range.
    """

    has_end: bool
    bounds: tuple[int, int] | None
    courses: tuple[tuple[Stretch, ...], ...] | None
    phases: dict[str, tuple[Span, int]]
    per_trial: Span

    @property
    def trials(self) -> Span | None:
        """How many trials there may be."""
        if self.courses is None:
            return None
        return span_of([sum(s.trials for s in course) for course in self.courses])

    @property
    def epochs(self) -> Span | None:
        """How many epochs there may be in all."""
        if self.courses is None:
            return None
        said, open_ = [], []
        for course in self.courses:
            said.append(sum(s.trials * (s.epochs or 0) for s in course))
            open_.append(sum(s.trials for s in course if s.epochs is None))
        low = span_of([s + o * self.per_trial.low for s, o in zip(said, open_, strict=True)])
        high = span_of([s + o * self.per_trial.high for s, o in zip(said, open_, strict=True)])
        return Span(low.low, high.high)


@dataclasses.dataclass(frozen=True)
class AnyTrials:
    """Trials of a strategy that says nothing of them: a `Stretch`."""

    trials: int
    phase: str = ""
    epochs: int | None = None
    architecture: Architecture | None = None


def look_ahead(handle: OpenStudy) -> Ahead:
    """What is ahead of a study; the same whenever it is asked for."""
    study, config = handle.study, handle.config
    strategy = strategy_of(study.sampler)
    rng = np.random.default_rng(derive_seed("forecast", study.study_name) % 2**32)
    outlook = strategy.outlook(study, rng)
    per_trial = _per_trial(handle)
    trials, budget = study.get_trials(deepcopy=False), config.budget
    # What trains counts as a whole as long as it does.
    used = budget_used_by([trial for trial in trials if trial.state != TrialState.RUNNING])
    trials_left = None if budget.trials is None else max(budget.trials - used.trials, 0)
    epochs_left = None if budget.epochs is None else max(budget.epochs - used.epochs, 0)
    cut = functools.partial(_cut, trials=trials_left, epochs=epochs_left, per_trial=per_trial)
    if outlook is None:
        number = _number(trials_left, epochs_left, per_trial)
        if number is None:
            return Ahead(handle.has_end, None, None, {}, per_trial)
        ways = strategy.ways_ahead(study, number, rng) if number else None
        ways = ways or ((AnyTrials(number),),)
        return Ahead(handle.has_end, (0, number), tuple(map(cut, ways)), {}, per_trial)
    courses = tuple(cut(course) for course in outlook.likely)
    least, longest = cut(outlook.least), cut(outlook.most)
    totals = [sum(s.trials for s in course) for course in (least, longest, *courses)]
    phases = _phases(courses, longest)
    return Ahead(handle.has_end, (min(totals), max(totals)), courses, phases, per_trial)


def _per_trial(handle: OpenStudy) -> Span:
    """Epochs of a trial on average, where the strategy leaves them open."""
    planned = handle.config.train.epochs or 1
    span = Span(*pruning_of(handle.study.pruner).mean_epochs(planned))
    seen = [trial_epochs(t) for t in counted_trials(handle.study) if t.value is not None]
    if seen and max(seen) > planned:  # A table's trainings are as long as they are.
        return Span(float(np.mean(seen)), float(np.mean(seen)))
    return span


def _number(trials: int | None, epochs: int | None, per_trial: Span) -> int | None:
    """How many trials a budget of trials and epochs has room for."""
    if epochs is None:
        return trials
    most = int(epochs / per_trial.low) + 1
    return most if trials is None else min(trials, most)


def _cut(
    course: Sequence[Stretch], *, trials: int | None, epochs: int | None, per_trial: Span
) -> tuple[Stretch, ...]:
    """The part of a course that a budget has room for."""
    kept: list[Stretch] = []
    room, time = trials, None if epochs is None else float(epochs)
    for stretch in course:
        number = stretch.trials if room is None else min(stretch.trials, room)
        each = stretch.epochs or (per_trial.low + per_trial.high) / 2
        if time is not None:
            number = min(number, -int(-time // each))  # The last one may be cut off.
            time -= number * each
        if number > 0:
            kept.append(AnyTrials(number, stretch.phase, stretch.epochs, stretch.architecture))
        if room is not None:
            room -= number
        if room == 0 or (time is not None and time <= 0):
            break
    return tuple(kept)


def _phases(
    courses: Sequence[Sequence[Stretch]], most: Sequence[Stretch]
) -> dict[str, tuple[Span, int]]:
    """How many trials of every phase there may be, in the order in which they come."""
    names = dict.fromkeys(stretch.phase for course in (most, *courses) for stretch in course)
    numbers = {
        name: [sum(s.trials for s in course if s.phase == name) for course in courses]
        for name in names
    }
    limits = {name: sum(s.trials for s in most if s.phase == name) for name in names}
    return {n: (span_of(of), max(limits[n], *of)) for n, of in numbers.items()}
