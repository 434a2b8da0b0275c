"""The time left of a search: by what trains, by what comes, and never too sure of it."""

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from searches import opened, trial

from optnas.forecast.left import UnderWay, time_left
from optnas.forecast.ranges import Span, most_likely
from optnas.samplers import RandGrowSampler, StageWiseSampler
from optnas.samplers._learning import FINEST, Trained, grain_of, likely_ways
from optnas.spaces import GrowthSpace, StageSpace

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHAPE = {"in_channels": 1, "classes": 10}


@pytest.fixture
def study(tmp_path):
    """Makes studies of chain networks; ends are epochs and seconds of trials."""
    number = itertools.count()

    def made(*ends, running=(), **keys):
        found = opened(
            tmp_path,
            [
                trial(n, 0.5, curve=(0.5,) * epochs, train_seconds=seconds, params=5000)
                for n, (epochs, seconds) in enumerate(ends)
            ],
            study=f"made{next(number)}",
            space={"name": "chain", "depth": [2, 9], "width": [8, 24]},
            train={"epochs": 10},
            **keys,
        )
        for epochs, seconds in running:
            started = found.study.ask({"depth": IntDistribution(2, 9)})
            for epoch in range(epochs):
                started.report(0.5, epoch + 1)
            started.set_user_attr("params", 5000)
            started.set_user_attr("train_seconds", seconds)
        return found

    return made


def test_a_training_goes_on_at_its_own_pace():
    assert UnderWay(epochs=5, planned=10, seconds=50).left(None) == 50
    assert UnderWay(epochs=0, planned=10, seconds=0).left(30) == 30
    at_first = UnderWay(epochs=0.1, planned=10, seconds=4).left(100)  # Of 400, by its own.
    later = UnderWay(epochs=5, planned=10, seconds=200).left(100)
    assert 100 < at_first < 130
    assert 140 < later < 200
    assert UnderWay(epochs=10, planned=10, seconds=200).left(100) == 0


def test_a_slow_training_takes_nothing_from_those_after_it(study):
    """It has trained for longer than was thought of it in all; nine more are to come."""
    found = study((10, 10.0), budget={"trials": 11}, running=[(5, 60.0)])
    left = time_left(found)
    assert left.seconds is not None
    assert left.seconds.low > 60
    assert left.longest > 10


def test_a_pulse_says_more_than_the_storage(study):
    found = study((10, 10.0), budget={"trials": 2}, running=[(1, 1.0)])
    pulse = {"number": 1, "epoch": 9, "epochs": 10, "seconds": 9.0, "running": 0.5}
    before = time_left(found).longest
    after = time_left(found, pulses=[{**pulse, "batch": 50, "batches": 100}]).longest
    assert before == pytest.approx(9, rel=0.1)
    assert after == pytest.approx(0.5, rel=0.1)


def test_a_budget_of_epochs_counts_what_trains_once(study):
    """Of 50 epochs ten are trained, and five of the ten that train now."""
    ahead = time_left(study((10, 10.0), budget={"epochs": 50}, running=[(5, 5.0)])).ahead
    assert ahead.epochs == (40, 40)


def test_few_networks_tell_less(study):
    def width(number):
        seconds = time_left(study(*[(10, 10.0)] * number, budget={"trials": 100})).seconds
        return seconds.high / seconds.low

    assert width(1) > width(12) > 1.5


def test_a_range_that_may_not_be_wider_is_where_most_are():
    values = [10.0, 11.0, 12.0, 13.0, 14.0, 100.0]
    span = most_likely(values, 2.0)
    assert span.high == pytest.approx(2 * span.low)
    assert span.low <= 10.001
    assert 14 <= span.high < 100
    assert most_likely([10.0, 12.0, 14.0], 2.0) == pytest.approx(Span(10.2, 13.8))
    assert most_likely([0.0, 0.0], 2.0) == Span(0.0, 0.0)


@pytest.mark.parametrize("images", [60, 288, 2000, 10_000])
def test_accuracies_are_multiples_of_an_image(images):
    rng = np.random.default_rng(images)
    right = rng.integers(images, size=9) / images
    known = [Trained(1, 1, 1, float(np.float32(value))) for value in right]
    assert grain_of(known) == pytest.approx(1 / images, rel=0.05)
    # Few of them have larger parts in common, but say nothing of what is far from each other.
    assert FINEST <= grain_of(known[:2]) < 0.2
    assert grain_of([]) == FINEST


def test_a_network_that_is_better_than_was_thought_is_no_luck():
    """One that is far better than the one before it may well have a better one after it."""
    known = [Trained(1, 1, 1, 0.778, 0.586), Trained(1.5, 1, 4 / 3, 0.931, 0.793)]
    rng = np.random.default_rng(0)
    ways = likely_ways(known, 200, rng)
    after = [way.next(rng).judged(2, 1, 5 / 3, FINEST, rng)[0] for way in ways]
    assert 0.1 < np.mean(np.array(after) > 0.931) < 0.9


def test_a_stage_grows_as_often_as_not_whatever_importance_is_measured_in():
    space = StageSpace(modules=(1, 30))
    sampler = StageWiseSampler(space, initial=2, iterations=4)
    found = optuna.create_study(direction="maximize", sampler=sampler)
    started = found.ask()
    space.suggest(started)
    started.set_user_attr("stage_importance", [80.0, 75.0, 90.0])
    found.tell(started, 0.5)
    courses = sampler.outlook(found, np.random.default_rng(0)).likely
    over = np.mean([sum(s.trials for s in course) == 1 for course in courses])
    assert over == pytest.approx((1 / 2) ** 3, abs=0.12)


def test_children_of_children_are_larger():
    space = GrowthSpace(cells=1, channels=4)
    found = optuna.create_study(direction="maximize", sampler=RandGrowSampler(space))
    started = found.ask()
    network = space.suggest(started)
    started.set_user_attr("multiply_adds", 1000)
    rng = np.random.default_rng(0)
    ways = found.sampler.ways_ahead(found, 50, rng)  # The initial network is yet to be trained.
    assert all(way[0].phase == "initial" for way in ways)
    found.tell(started, 0.6)
    ways = found.sampler.ways_ahead(found, 50, rng)
    assert {sum(stretch.trials for stretch in way) for way in ways} == {50}

    def params(number):
        return np.mean([way[number].architecture.num_params(1, 10) for way in ways])

    assert network.num_params(1, 10) < params(0) < params(10) < params(29)


def test_a_search_without_an_end_says_its_networks_to_a_budget_alone(tmp_path):
    keys = {"sampler": "randgrow", "space": {"name": "growth", "cells": 1, "channels": 4}}
    endless = opened(tmp_path, **keys)
    assert time_left(endless).ahead.courses is None
    ends = opened(tmp_path, study="ends", budget={"trials": 7}, **keys)
    ahead = time_left(ends).ahead
    assert ahead.bounds == (0, 7)
    assert ahead.trials == (7, 7)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_range_holds_over_a_published_search(workers, monkeypatch):
    """Of CIFAR-100, by networks whose time grows with their parameters."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import forecast_simulated as simulated

    monkeypatch.setattr(simulated, "MOMENTS", 30)
    monkeypatch.setattr(simulated, "_counted", lambda *given: (given[-1], 1000.0 * given[-1]))
    case = dataclasses.replace(simulated.CASES["macro_micro, CIFAR-100"], workers=workers)
    found = case.found()
    moments = simulated.moments_of(found)
    assert len(moments) >= 25
    assert simulated.held(found)
    assert all(m.fold <= 5.001 for m in moments if m.trials >= 10 and m.high > 5)
    settled = [m for m in moments if m.settled and m.high > 5]
    if workers == 1:
        assert settled
        assert all(m.fold <= 2.001 for m in settled)
    for name in ("forecast_simulated", "_simulated", "forecast", "_harness"):
        sys.modules.pop(name, None)
