"""How long a search that runs will take, from what its trials took."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.config.contract import Stretch
from optnas.forecast.ahead import Ahead, AnyTrials, look_ahead
from optnas.forecast.pace import OFF, Pace, observed_pace
from optnas.forecast.ranges import WIDEST, Span, most_likely
from optnas.study.budget import budget_used_by, trial_epochs
from optnas.study.opening import OpenStudy, is_counted
from optnas.trials.attributes import PHASE, TRAIN_SECONDS

DRIFT = 1.4
"""How far what a strategy comes to train may be from what is typical of the space."""
PER_TRIAL, PER_EPOCH = 0.15, 0.03
"""Seconds beside training: drawing a trial's network and storing it; storing an epoch and its
checkpoint."""
DEPTH = "depth"
"""The phase whose length nobody knows, of searches that have it."""
SETTLED, LATER = 2.0, 5.0
"""How many times as long as its lower end the range of the time left may be: once the depth is
settled, and from the tenth trial on."""

_STEPS = (-1.2, -0.5, 0.0, 0.5, 1.2)
"""Of the way from what is likely to the ends of what may be; nine in ten are about within one."""


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left of a search.

    Args:
        ahead: The trials and epochs that are ahead.
        seconds: Of one worker's training, as a range; None while no epoch was trained, or where
            there is no end in sight.
        longest: Seconds that the longest training under way still takes, however many others
            there are.
        each: Seconds of a training that is not yet under way: a worker that finds nothing more
            to train may wait so long for the others.
    """

    ahead: Ahead
    seconds: Span | None
    longest: float = 0.0
    each: float = 0.0


@dataclasses.dataclass(frozen=True)
class UnderWay:
    """A training that goes on.

    Args:
        epochs: Epochs that are trained, the share of the one that runs included.
        planned: Epochs in all.
        seconds: What these took.
    """

    epochs: float
    planned: float
    seconds: float

    def left(self, foreseen: float | None) -> float:
        """Seconds that it still takes.

        Args:
            foreseen: As others took, in all; None if nobody knows.
        """
        share = min(self.epochs / max(self.planned, 1.0), 1.0)
        if share <= 0 or self.seconds <= 0:
            return foreseen or 0.0
        own = self.seconds / share
        if foreseen is None or foreseen <= 0:
            return own * (1 - share)
        # Its own pace counts the more, the more of it was seen.
        weight = self.epochs / (self.epochs + 1)
        return float(own**weight * foreseen ** (1 - weight)) * (1 - share)


def time_left(
    handle: OpenStudy,
    pace: Pace | None = None,
    pulses: Sequence[Mapping[str, Any]] = (),
) -> Left:
    """What is left of a search, whose trials may be running.

    Takes up to some tenths of a second; ask when a trial has ended, and let the clock run in
    between.

    Args:
        handle: The study.
        pace: How long epochs take. Default: as they took so far.
        pulses: What trains here (`optnas.trials.pulse.Pulse.fields`).
    """
    trials = handle.study.get_trials(deepcopy=False)
    ahead = look_ahead(handle)
    pace = observed_pace(handle) or pace
    budget = _hours_left(handle, trials)
    if ahead.courses is None or pace is None:
        return Left(ahead, None if budget is None else Span(budget, budget))
    heard = {pulse["number"]: pulse for pulse in pulses}
    running = [t for t in trials if t.state == TrialState.RUNNING and t.params]
    lefts = [_left_of(t, heard.get(t.number), handle, ahead, pace) for t in running]
    later = dataclasses.replace(
        ahead, courses=tuple(_without(course, len(running)) for course in ahead.courses)
    )
    rests = _seconds(later, pace)
    values = [sum(lefts) * OFF**step + rest for step, rest in rests]
    if budget is not None:
        values = [min(value, budget) for value in values]
    number = 0.0 if later.trials is None else later.trials.high
    return Left(
        ahead,
        most_likely(values, widest(ahead, trials)),
        longest=max(lefts, default=0.0),
        each=sum(rest for _, rest in rests) / len(rests) / max(number, 1.0),
    )


def course_seconds(ahead: Ahead, pace: Pace) -> Span:
    """Seconds of training of the courses that are ahead, as a range of at most 6-fold."""
    return most_likely([seconds for _, seconds in _seconds(ahead, pace)])


def widest(ahead: Ahead, trials: Sequence[FrozenTrial]) -> float:
    """How many times as long as its lower end the time left may be: the less, the more is known.

    Args:
        ahead: What is ahead of a search.
        trials: Its trials.
    """
    grew = any(trial.user_attrs.get(PHASE) == DEPTH for trial in trials)
    if grew and DEPTH not in ahead.phases:
        return SETTLED
    return LATER if sum(map(is_counted, trials)) >= 10 else WIDEST


def _seconds(ahead: Ahead, pace: Pace) -> list[tuple[float, float]]:
    """Seconds of every course, if things take as long as is likely, less, or more."""
    low, high = ahead.per_trial
    found = []
    for course in ahead.courses or ():
        unnamed = sum(s.trials for s in course if s.architecture is None)
        off = pace.off * (max(DRIFT, pace.unsure(unnamed)) if unnamed else 1.0)
        least = pace.course(course, low)
        most = least if low == high else pace.course(course, high)
        for step in _STEPS:
            share = (min(max(step, -1.0), 1.0) + 1) / 2
            found.append((step, (least + (most - least) * share) * off**step))
    return found


def _without(course: Sequence[Stretch], number: int) -> tuple[Stretch, ...]:
    """A course without its first trials."""
    kept = []
    for stretch in course:
        here = min(number, stretch.trials)
        number -= here
        if stretch.trials > here:
            rest = stretch.trials - here
            kept.append(AnyTrials(rest, stretch.phase, stretch.epochs, stretch.architecture))
    return tuple(kept)


def _left_of(
    trial: FrozenTrial,
    pulse: Mapping[str, Any] | None,
    handle: OpenStudy,
    ahead: Ahead,
    pace: Pace,
) -> float:
    """Seconds that a trial that runs still takes."""
    epochs: float = trial_epochs(trial)
    seconds = float(trial.user_attrs.get(TRAIN_SECONDS, 0.0))
    planned = float(trial.params.get("epochs") or 0)
    if pulse is not None and pulse["epochs"]:
        planned = planned or float(pulse["epochs"])
        if pulse["epoch"] >= epochs:
            batch = pulse["batch"] / pulse["batches"] if pulse["batches"] else 0.0
            epochs, seconds = pulse["epoch"] + batch, pulse["seconds"] + pulse["running"]
    if not trial.params.get("epochs") and ahead.per_trial.low < (handle.config.train.epochs or 1):
        # It may be pruned.
        planned = max(sum(ahead.per_trial) / 2, -(-epochs // 1))
    planned = planned or sum(ahead.per_trial) / 2
    return UnderWay(epochs, planned, seconds).left(pace.trial(trial, planned))


def _hours_left(handle: OpenStudy, trials: Sequence[FrozenTrial]) -> float | None:
    """Seconds of training that the budget leaves."""
    hours = handle.config.budget.hours
    return None if hours is None else max(hours - budget_used_by(trials).hours, 0.0) * 3600
