"""How long a search that runs will take, from what its trials took."""

import dataclasses

from optuna.trial import TrialState

from optnas.forecast.ahead import Ahead, look_ahead
from optnas.forecast.pace import Pace, observed_pace
from optnas.forecast.ranges import Span, at_most_wide, span_of
from optnas.study.budget import used_budget
from optnas.study.opening import OpenStudy
from optnas.trials.attributes import TRAIN_SECONDS

OFF = 1.25
"""How far the time of a network may be from what others took, either way."""
DRIFT = 1.4
"""How far what a strategy comes to train may be from what is typical of the space."""
PER_TRIAL, PER_EPOCH = 0.15, 0.03
"""Seconds beside training: drawing a trial's network and storing it; storing an epoch and its
checkpoint."""


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left of a search.

    Args:
        ahead: The trials and epochs that are ahead.
        seconds: Of one worker's training, as a range; None while no epoch was trained, or where
            there is no end in sight.
    """

    ahead: Ahead
    seconds: Span | None


def time_left(handle: OpenStudy, pace: Pace | None = None) -> Left:
    """What is left of a search, whose trials may be running.

    Takes up to some tenths of a second; ask when a trial has ended, and let the clock run in
    between.

    Args:
        handle: The study.
        pace: How long epochs take. Default: as they took so far.
    """
    ahead = look_ahead(handle)
    pace = observed_pace(handle) or pace
    budget = _hours_left(handle)
    if ahead.courses is None or pace is None:
        return Left(ahead, None if budget is None else Span(budget, budget))
    span = course_seconds(ahead, pace)
    running = handle.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    done = sum(float(trial.user_attrs.get(TRAIN_SECONDS, 0.0)) for trial in running)
    span = Span(max(span.low - done, 0.0), max(span.high - done, 0.0))
    if budget is not None:
        span = Span(min(span.low, budget), min(span.high, budget))
    return Left(ahead, span)


def course_seconds(ahead: Ahead, pace: Pace) -> Span:
    """Seconds of training of the courses that are ahead, as a range of at most 6-fold."""
    courses = ahead.courses or ()
    low = span_of([pace.course(course, ahead.per_trial.low) for course in courses])
    high = span_of([pace.course(course, ahead.per_trial.high) for course in courses])
    drift = DRIFT if any(s.architecture is None for course in courses for s in course) else 1.0
    return at_most_wide(Span(low.low / OFF / drift, high.high * OFF * drift))


def _hours_left(handle: OpenStudy) -> float | None:
    """Seconds of training that the budget leaves."""
    hours = handle.config.budget.hours
    return None if hours is None else max(hours - used_budget(handle.study).hours, 0.0) * 3600
