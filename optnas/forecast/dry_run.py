"""What a search would take, before it is begun: nothing is asked, nothing is created."""

import contextlib
import dataclasses
import warnings
from typing import Any

import psutil

from optnas.config import plugins
from optnas.config.contract import Objective, Rehearsal, objective_class, strategy_of
from optnas.config.file import StudyFile
from optnas.forecast.ahead import Ahead, look_ahead
from optnas.forecast.left import DRIFT, PER_EPOCH, PER_TRIAL, course_seconds
from optnas.forecast.pace import OFF, Pace, observed_pace
from optnas.forecast.ranges import Span, at_least_wide, at_most_wide, span_of
from optnas.forecast.rehearsing import Rehearsals, Rehearsed, rehearse
from optnas.storage.urls import Absent
from optnas.study.data import data_seen_with
from optnas.study.objectives import ObjectiveMaker
from optnas.study.opening import OpenStudy, open_study
from optnas.study.unstored import unstored

START = Span(3.0, 8.0)
"""Seconds until the first trial: torch is imported, the images are read."""
NARROWEST = 2.0
"""How many times as long as its lower end the range is at least: steps tried for a
moment do not say more."""
STORED_TRIAL, STORED_EPOCH = 25_000, 500
"""Bytes that stay of a trial and of an epoch: its drawings, and its rows in the database."""
HULL = 20
"""Networks whose weights are kept at once, at most, where others start from the best of them."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a search would take.

    Args:
        handle: The study: the stored one, or one in memory.
        done: Trials that it has already.
        data: What was read, in lines.
        device: Where a step was tried; empty if none was.
        networks: The smallest, a typical and the greatest network; none if nobody knows.
        ahead: The trials and epochs that are ahead.
        seconds: Of the search with one worker; None if nobody knows.
        each: Seconds of a trial, where there is no end in sight.
        disk: Bytes of training states, while it runs, and of all that stays.
        retraining: How many networks would be trained fully, for how many epochs each, and the
            seconds of all of them.
    """

    handle: OpenStudy
    done: int
    data: tuple[str, ...]
    device: str
    networks: tuple[Rehearsed, ...]
    ahead: Ahead
    seconds: Span | None
    each: Span | None
    disk: tuple[Span, Span] | None
    retraining: tuple[int, int, Span | None] | None


def forecast(config: StudyFile, *, device: str | None = None) -> Forecast:
    """What the search of a configuration would take, or what is left of it.

    Args:
        config: The configuration, as `optnas.study.opening.config_to_run` gives it.
        device: A torch device; None takes CUDA where there is one.

    Raises:
        UserError: If the data, the device or the storage cannot be had.
    """
    if config.data is not None:
        # What is not there would be downloaded.
        data = config.data.model_copy(update={"download": False})
        absent = config.model_copy(update={"data": data})
    else:
        absent = config
    maker = ObjectiveMaker(absent, device=device, seen=data_seen_with(config))
    in_channels, classes = maker.check()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The run will say it.
        objective = maker.make()
    handle = _stored(config) or unstored(config, in_channels=in_channels, classes=classes)
    trains = objective_class(
        plugins.load("objective", config.objective.name, config.folder)
    ).trains
    ahead = look_ahead(handle)
    tried = rehearse(handle, objective, ahead) if trains else None
    return _put_together(handle, objective, ahead, tried, maker.reading)


def _stored(config: StudyFile) -> OpenStudy | None:
    """The study, if it exists."""
    with contextlib.suppress(Absent):
        return open_study(config, reading=True)
    return None


def _put_together(
    handle: OpenStudy,
    objective: Objective,
    ahead: Ahead,
    tried: Rehearsals | None,
    reading: Any,
) -> Forecast:
    networks = () if tried is None else tried.shown
    pace, busy = observed_pace(handle), 1.0
    if pace is None and tried is not None:
        pace, busy = tried.pace, busyness()
    lines = () if reading is None else tuple(reading.record()["lines"])
    return Forecast(
        handle=handle,
        done=len(handle.study.get_trials(deepcopy=False)),
        data=lines,
        device=networks[0].costs.device if networks else "",
        networks=networks,
        ahead=ahead,
        seconds=None if pace is None else search_seconds(handle, ahead, pace, busy),
        each=None if pace is None else _each(ahead, pace).scaled(1, busy),
        disk=_disk(handle, ahead, networks),
        retraining=_retraining(handle, objective, ahead, networks, pace, busy),
    )


def busyness() -> float:
    """How many times as long things take if this machine stays as busy as it is, at most 4."""
    load, *_ = psutil.getloadavg()
    return min(max(1.0, load / (psutil.cpu_count() or 1)), 4.0)


def search_seconds(handle: OpenStudy, ahead: Ahead, pace: Pace, busy: float = 1.0) -> Span | None:
    """Seconds of a search with one worker, what is not training included.

    Args:
        handle: The study.
        ahead: What is ahead of it.
        pace: How long epochs take, where nothing else is at work.
        busy: How many times as long, if the machine stays as it is.
    """
    hours = handle.config.budget.hours
    if ahead.courses is None:
        return None if hours is None else Span(hours * 3600, hours * 3600)
    trained, trials, epochs = course_seconds(ahead, pace), ahead.trials, ahead.epochs
    if hours is not None:
        trained = Span(min(trained.low, hours * 3600), min(trained.high, hours * 3600))
    assert trials is not None
    assert epochs is not None
    beside = trials.scaled(PER_TRIAL).plus(epochs.scaled(PER_EPOCH))
    span = trained.plus(beside).plus(START).scaled(1, busy)
    return at_most_wide(at_least_wide(span, NARROWEST))


def _each(ahead: Ahead, pace: Pace) -> Span:
    """Seconds of a trial of a typical network."""
    trained = Span(pace.typical / OFF / DRIFT, pace.typical * OFF * DRIFT)
    low, high = ahead.per_trial
    return Span(low * (trained.low + PER_EPOCH), high * (trained.high + PER_EPOCH))


def _disk(
    handle: OpenStudy, ahead: Ahead, networks: tuple[Rehearsed, ...]
) -> tuple[Span, Span] | None:
    """Bytes of training states while it runs, and of what stays."""
    if not networks or ahead.trials is None or ahead.epochs is None:
        return None
    smallest, typical, greatest = (each.costs for each in networks)
    # The new state of a network is written before the old one is removed.
    workers = (handle.config.workers.count or 1) * handle.config.workers.streams
    states = Span(2 * workers * smallest.state_bytes, 2 * workers * greatest.state_bytes)
    kept = _kept(handle, ahead.trials)
    stays = kept.scaled(4 * typical.params * OFF / DRIFT, 4 * typical.params * OFF * DRIFT)
    stored = ahead.trials.scaled(STORED_TRIAL).plus(ahead.epochs.scaled(STORED_EPOCH))
    return states, stays.plus(stored)


def _kept(handle: OpenStudy, trials: Span) -> Span:
    """How many trials have weights that stay."""
    keep, strategy = handle.keep, strategy_of(handle.study.sampler)
    if keep == "all":
        return trials
    if keep is not None and keep.startswith("best:"):
        most = float(keep.removeprefix("best:"))
        return Span(min(most, trials.low), min(most, trials.high))
    if keep == "hull" or strategy.inherits or handle.config.search_space.inherits:
        return Span(min(1.0, trials.low), min(HULL, trials.high))
    return Span(0.0, 0.0)


def _retraining(
    handle: OpenStudy,
    objective: Objective,
    ahead: Ahead,
    networks: tuple[Rehearsed, ...],
    pace: Pace | None,
    busy: float,
) -> tuple[int, int, Span | None] | None:
    """What `optnas retrain` will take."""
    if objective.retrain is None:
        return None
    settings = handle.config.retrain
    number = (settings.top or strategy_of(handle.study.sampler).retrained) * settings.repeats
    if pace is None or not networks:
        return number, settings.epochs, None
    ends = [course[-1].architecture for course in ahead.courses or () if course]
    known = [pace.epoch(end) for end in ends if end is not None]
    epoch = span_of(known) if known else Span(pace.typical, pace.typical).scaled(1 / DRIFT, DRIFT)
    larger = _larger(handle, objective, networks[1])
    each = epoch.scaled(larger / OFF, larger * OFF * busy)
    return number, settings.epochs, at_most_wide(each.scaled(number * settings.epochs))


def _larger(handle: OpenStudy, objective: Objective, typical: Rehearsed) -> float:
    """How many times as long an epoch of retraining takes: more images, and in full."""
    costs, rehearse = typical.costs, objective.rehearse
    full: Rehearsal = costs
    if handle.config.proxy is not None and rehearse is not None:
        with contextlib.suppress(ZeroDivisionError):
            full = rehearse(typical.architecture, full=True)
    if full.seconds is None or costs.seconds is None:
        return full.final_images / costs.images
    return full.seconds / costs.seconds * full.final_images / full.images
