"""How many workers one database carries, simulated from what a trial costs beside others.

    python benchmarks/scale_simulated.py [--running 1 32 250 1000] [--finished 10000]

First one worker is measured, in a study in which so many trials run and so many have ended: the
processor time of a trial, of the worker and of the server, and the time of a decision, from a
trial's number to its claim. Then workers on machines of their own are simulated, event by event:
trials decide one after the other, and a server of so many cores serves each as it asks. Nothing
else is simulated: no network, no locks, no memory.
"""

import argparse
import collections
import dataclasses
import datetime
import heapq
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import sqlalchemy
from napping import Nap
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, Trial, TrialState

from optnas.config.file import StudyFile, study_from_dict
from optnas.running.runner import run
from optnas.spaces import Space
from optnas.trials.attributes import CLAIM, LEASE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import PostgreSQL

MEASURED = 12
"""Trials that are measured."""
_Trial, _Param, _Value = models.TrialModel, models.TrialParamModel, models.TrialValueModel
_Report = models.TrialIntermediateValueModel
_User, _System = models.TrialUserAttributeModel, models.TrialSystemAttributeModel


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a trial costs, in seconds.

    Args:
        running: Trials that run beside it.
        worker: Processor time of its worker.
        server: Processor time of the server.
        decision: Time from its number to its claim.
    """

    running: int
    worker: float
    server: float
    decision: float


class TimedNap(Nap):
    """The same objective, which notes what was spent so far, and how long a decision took."""

    server: psutil.Process
    marks: list[Cost]

    def __call__(self, trial: Trial) -> float:
        began = trial.datetime_start
        assert began is not None
        self.space.suggest(trial)
        decision = time.time() - began.timestamp()
        mark = Cost(len(TimedNap.marks), time.process_time(), spent(TimedNap.server), decision)
        TimedNap.marks.append(mark)
        return super().__call__(trial)


def spent(process: psutil.Process) -> float:
    """Processor seconds of a server: of its processes, and of those that were."""
    times = process.cpu_times()
    own = times.user + times.system + times.children_user + times.children_system
    children = (child.cpu_times() for child in process.children())
    return float(own + sum(each.user + each.system for each in children))


def config(url: str, folder: str, strategy: str, trials: int) -> StudyFile:
    """The study, with room for so many trials."""
    keys = {
        "study": "crowd",
        "seed": 0,
        "storage": url,
        "artifacts": folder,
        "space": "nasbench201",
        "sampler": {"name": strategy, "cycles": 10**4} if strategy == "econas" else strategy,
        "objective": {"name": "scale_simulated:TimedNap", "seconds": 0.0, "epochs": 3},
        "budget": {"trials": trials},
    }
    return study_from_dict(keys, Path(__file__).parent)


def measure(server: PostgreSQL, strategy: str, finished: int, running: int) -> Cost:
    """What a trial costs beside so many that run, after so many that have ended."""
    from scale_simulated import TimedNap  # The one that the study names.

    TimedNap.server, TimedNap.marks = psutil.Process(server.pid), []
    with tempfile.TemporaryDirectory() as folder:
        url = server.new_database()
        made = run(config(url, folder, strategy, 1)).opened
        fill(made.study, made.config.search_space, finished, running)
        TimedNap.marks.clear()
        # The first ones load what is loaded once.
        run(config(url, folder, strategy, 1 + finished + running + MEASURED + 3))
    marks = TimedNap.marks[2:]
    trials = len(marks) - 1
    return Cost(
        running,
        (marks[-1].worker - marks[0].worker) / trials,
        (marks[-1].server - marks[0].server) / trials,
        statistics.median(mark.decision for mark in marks),
    )


def fill(study: optuna.Study, space: Space[Any], finished: int, running: int) -> None:
    """Add trials like the study's first one, with networks of their own."""
    source, rng, number = study.get_trials()[0], np.random.default_rng(0), finished + running
    networks: dict[tuple[Any, ...], None] = {}
    while len(networks) < number:
        networks.setdefault(tuple(space.random_params(rng).items()))
    trials = [
        (TrialState.COMPLETE if index < finished else TrialState.RUNNING, dict(network))
        for index, network in enumerate(networks)
    ]
    with study._storage._backend.engine.begin() as connection:
        ids = _insert_trials(connection, study._study_id, [state for state, _ in trials])
        parts: dict[Any, list[dict[str, Any]]] = collections.defaultdict(list)
        for number, (id_, (state, params)) in enumerate(zip(ids, trials, strict=True), 1):
            for model, entry in _entries(source, number, state, params):
                parts[model].append({"trial_id": id_, **entry})
        for model, entries in parts.items():
            connection.execute(sqlalchemy.insert(model), entries)


def _insert_trials(
    connection: sqlalchemy.Connection, study_id: int, states: Sequence[TrialState]
) -> Sequence[int]:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    rows = [
        {
            "number": number,
            "study_id": study_id,
            "state": state,
            "datetime_start": now,
            "datetime_complete": now if state.is_finished() else None,
        }
        for number, state in enumerate(states, 1)
    ]
    insert = sqlalchemy.insert(_Trial.__table__)
    insert = insert.returning(_Trial.__table__.c.trial_id, sort_by_parameter_order=True)
    return connection.scalars(insert, rows).all()


def _entries(
    source: FrozenTrial, number: int, state: TrialState, params: dict[str, Any]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What a trial has, by table."""
    claim, lease = source.system_attrs[CLAIM], source.system_attrs[LEASE]
    attrs: dict[str, Any] = {
        CLAIM: {**claim, "index": number, "params": params},
        LEASE: {**lease, "host": "another"},
    }
    for name, value in params.items():
        distribution = source.distributions[name]
        entry = {"param_name": name, "param_value": distribution.to_internal_repr(value)}
        yield _Param, {**entry, "distribution_json": distribution_to_json(distribution)}
    for model, given in ((_User, source.user_attrs), (_System, source.system_attrs | attrs)):
        for key, value in given.items():
            yield model, {"key": key, "value_json": json.dumps(value)}
    for step, value in source.intermediate_values.items():
        kind = _Report.TrialIntermediateValueType.FINITE
        entry = {"step": step, "intermediate_value": value, "intermediate_value_type": kind}
        yield _Report, entry
    if state.is_finished():
        kind = _Value.TrialValueType.FINITE
        yield _Value, {"objective": 0, "value": source.value, "value_type": kind}


@dataclasses.dataclass(frozen=True)
class Simulated:
    """How a simulated search went.

    Args:
        share: Of the workers' time, in which they trained.
        decides: Share of the time in which somebody decided.
        serves: Share of the server's cores that were busy.
        hours: How long it took.
    """

    share: float
    decides: float
    serves: float
    hours: float


def simulate(cost: Cost, workers: int, trials: int, seconds: float, cores: int) -> Simulated:
    """Workers that train for so long, one trial after the other.

    A decision takes its time and a third of what a trial asks of the server; the rest is asked at
    the trial's end. Lengths of trainings differ by a tenth, so that workers do not march in step.
    """
    rng = np.random.default_rng(0)
    free = [0.0] * cores  # When each core of the server is free.
    turn = 0.0  # When the next decision may begin.
    begun, busy, decided, end = 0, 0.0, 0.0, 0.0
    events = [(0.0, worker, 0.0) for worker in range(workers)]  # When, who, what it trained.

    def served(now: float, work: float) -> float:
        done = max(heapq.heappop(free), now) + work
        heapq.heappush(free, done)
        return done

    while events:
        now, worker, length = heapq.heappop(events)
        if length:  # A trial ends.
            busy, end = busy + length, now
            over = served(now, 2 * cost.server / 3)
            following = over + max(0.0, cost.worker - cost.decision)
            heapq.heappush(events, (following, worker, 0.0))
        elif begun < trials:
            began, begun = max(now, turn), begun + 1
            turn = max(began + cost.decision, served(began, cost.server / 3))
            decided += turn - began
            length = seconds * rng.uniform(0.9, 1.1)
            heapq.heappush(events, (turn + length, worker, length))
    server = cost.server * trials
    return Simulated(busy / end / workers, decided / end, server / end / cores, end / 3600)


def interpolated(costs: Sequence[Cost], running: int) -> Cost:
    """What a trial costs beside so many, between what was measured."""
    known = [cost.running for cost in costs]

    def between(values: Sequence[float]) -> float:
        return float(np.interp(running, known, values))

    return Cost(
        running,
        between([cost.worker for cost in costs]),
        between([cost.server for cost in costs]),
        between([cost.decision for cost in costs]),
    )


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strategies", nargs="+", default=["econas", "surrogate"])
    parser.add_argument("--running", type=int, nargs="+", default=[1, 32, 250, 1000])
    parser.add_argument("--finished", type=int, default=10000, help="Trials of the search.")
    parser.add_argument("--workers", type=int, nargs="+", default=[32, 64, 250, 1000])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 60, 600])
    parser.add_argument("--cores", type=int, default=8, help="Cores of the simulated server.")
    return parser.parse_args()


def main() -> None:
    """Measure, simulate, and print both as tables."""
    options = arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    server = PostgreSQL()
    try:
        for strategy in options.strategies:
            print(
                f"\n{strategy}: measured after {options.finished} trials, {os.cpu_count()} cores"
            )
            print("\n| running | ms of the worker | ms of the server | ms of a decision |")
            print("|---|---|---|---|", flush=True)
            costs = []
            for running in options.running:
                cost = measure(server, strategy, options.finished, running)
                costs.append(cost)
                numbers = (cost.worker, cost.server, cost.decision)
                shown = " | ".join(f"{1000 * number:.0f}" for number in numbers)
                print(f"| {running} | {shown} |", flush=True)
            print(f"\nsimulated: {options.finished} trials, a server of {options.cores} cores\n")
            print("| workers | seconds of a trial | share of ideal | deciding | server | hours |")
            print("|---|---|---|---|---|---|")
            for workers in options.workers:
                cost = interpolated(costs, workers)
                for seconds in options.seconds:
                    made = simulate(cost, workers, options.finished, seconds, options.cores)
                    shares = (made.share, made.decides, made.serves)
                    shown = " | ".join(f"{100 * share:.0f}%" for share in shares)
                    print(f"| {workers} | {seconds:g} | {shown} | {made.hours:.2f} |", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
