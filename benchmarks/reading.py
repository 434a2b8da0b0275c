"""What it costs to look at a long study, beside Optuna reading its trials.

    python benchmarks/reading.py [--trials 10000] [--storage URL] [--quick] [--output FILE]

Each command runs in a process of its own, from its start to its end; the rival is a process that
imports Optuna and reads all trials of the same study. `work` is the ratio of processor times; the
notes say the command's own, and its peak memory. The trials are as `optnas run` stores them, with
claims, leases, reports and records of their training; they are made up and written in bulk.
`--storage` takes the URL of an empty database, such as one of PostgreSQL.
"""

import datetime
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from _harness import Cases, Row, Turn, alternate, arguments, measure
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from optnas.config.file import study_from_dict
from optnas.study.opening import OpenStudy, create_or_open
from optnas.trials.attributes import CLAIM, LEASE

PEAK = """
import atexit, os, re
def tell():
    status = open("/proc/self/status").read()
    with open(os.environ["PEAK"], "w") as file:
        file.write(re.search(r"VmHWM:[^0-9]*([0-9]+) kB", status)[1])
atexit.register(tell)
"""
OPTNAS = [sys.executable, "-c", f"{PEAK}from optnas.cli import main; main()"]
OPTUNA = f"""{PEAK}
import sys, optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
optuna.load_study(storage=sys.argv[1], study_name=sys.argv[2]).get_trials(deepcopy=False)
"""
STUDIES = {  # Name of the study: sampler, space, reports of a trial.
    "table": ("econas", "nasbench201", 1),
    "evolution": ("regularized_evolution", "nasbench201", 12),
    "cells": ("econas", "cell", 20),
    "random": ("random", "cell", 20),
}
COMMANDS = ("status", "best")


def filled(url: str, name: str, folder: Path, trials: int) -> OpenStudy:
    """A study with made-up trials."""
    sampler, space, reports = STUDIES[name]
    endless = {"cycles": None} if sampler == "econas" else {}
    keys = {
        "study": name,
        "storage": url,
        "space": space,
        "sampler": {"name": sampler, **endless},
        "objective": {"name": "napping:Nap", "seconds": 0},
    }
    config = study_from_dict(keys, Path(__file__).parent)
    handle = create_or_open(config, in_channels=3, classes=10)
    fill(handle, trials, reports)
    return handle


def fill(handle: OpenStudy, trials: int, reports: int, *, seed: int = 0) -> None:
    """Write trials into a study's tables, a thousand at a time; of twenty one fails, one is lost.

    Args:
        handle: The study, empty, in a database.
        trials: How many.
        reports: Epochs of each.
        seed: Of what they say.
    """
    storage: Any = handle.study._storage
    rng = np.random.default_rng(seed)
    with storage._backend.engine.begin() as connection:
        query = sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))
        first = (connection.execute(query).scalar() or 0) + 1
        for start in range(0, trials, 1000):
            rows: dict[Any, list[dict[str, Any]]] = {}
            for number in range(start, min(start + 1000, trials)):
                for table, row in _rows(handle, rng, number, first + number, reports):
                    rows.setdefault(table, []).append(row)
            for table, some in rows.items():
                connection.execute(sqlalchemy.insert(table), some)


def _rows(
    handle: OpenStudy, rng: np.random.Generator, number: int, trial_id: int, reports: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The rows of a trial, with their tables."""
    space = handle.config.search_space
    params, distributions = space.random_params(rng), space.distributions()
    states = [TrialState.COMPLETE] * 17 + [TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL]
    state = states[number % len(states)]
    begin = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=60 * number)
    of_trial = {"trial_id": trial_id}
    yield (
        models.TrialModel,
        {
            **of_trial,
            "number": number,
            "study_id": handle.study._study_id,
            "state": state,
            "datetime_start": begin,
            "datetime_complete": begin + datetime.timedelta(seconds=50),
        },
    )
    for name, value in params.items():
        internal = distributions[name].to_internal_repr(value)
        written = distribution_to_json(distributions[name])
        row = {"param_name": name, "param_value": internal, "distribution_json": written}
        yield models.TrialParamModel, {**of_trial, **row}
    accuracy = float(rng.random())
    for epoch in range(1, reports + 1):
        value = accuracy * epoch / reports
        row = {"step": epoch, "intermediate_value": value, "intermediate_value_type": "FINITE"}
        yield models.TrialIntermediateValueModel, {**of_trial, **row}
    if state == TrialState.COMPLETE:
        row = {"objective": 0, "value": accuracy, "value_type": "FINITE"}
        yield models.TrialValueModel, {**of_trial, **row}
    system, user = _attributes(number, params, accuracy, lost=number % len(states) == 19)
    if handle.config.sampler.name == "random":  # Optuna's own claim nothing.
        del system[CLAIM], user["phase"]
    for table, attrs in (
        (models.TrialSystemAttributeModel, system),
        (models.TrialUserAttributeModel, user),
    ):
        for key, attr in attrs.items():
            yield table, {**of_trial, "key": key, "value_json": json.dumps(attr)}


def _attributes(
    number: int, params: dict[str, Any], accuracy: float, *, lost: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    phase = "initial" if number < 10 else "child"
    attrs = {"phase": phase}
    claim = {"index": number, "params": params, "attrs": attrs, "continues": None}
    lease = {"host": "vm/boot", "boot": "b", "card": "c", "pid": 1234, "started": "5678"}
    system = {CLAIM: claim, LEASE: {**lease, "until": 1.0, "decides": False}}
    user = {
        "phase": phase,
        "versions": {"optnas": "0.4", "optuna": "5.0.0", "torch": "2.8", "python": "3.11"},
        "device": "NVIDIA H100",
        "training_seed": 2**60 + number,
        "multiply_adds": int(1e6 * (1 + accuracy)),
        "train_accuracy": accuracy,
        "train_seconds": 47.5,
        "epochs_trained": 12,
    }
    if number % 20 >= 18:
        user |= {"failure": "lost" if lost else "candidate", "failure_reason": "made up"}
    return system, user


def looked_at(command: str, url: str, name: str, repeats: int) -> Row:
    """A command beside Optuna's reading."""
    peaks: list[int] = []
    ours = functools.partial(
        _timed, [*OPTNAS, command, url, name, "--json", "--allow", "napping:Nap"], peaks
    )
    theirs = functools.partial(_timed, [sys.executable, "-c", OPTUNA, url, name], [])
    seconds: list[float] = []

    def product() -> Turn:
        turn = ours()
        seconds.append(turn.work or 0.0)
        return turn

    made = alternate(product, theirs, repeats)
    made.notes["processor"] = f"{sorted(seconds)[len(seconds) // 2]:.2f} s"
    made.notes["memory"] = f"{max(peaks)} MB"
    return made


def _timed(words: Sequence[str], peaks: list[int]) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        started = datetime.datetime.now()
        # What the system counts begins with this process, which is larger than its child.
        peak = Path(folder, "peak")
        environment = {**os.environ, **_ENVIRONMENT, "PEAK": str(peak)}
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
        assert process.returncode == 0, f"{words} failed"
        peaks.append(int(peak.read_text()) // 1024)
    elapsed = (datetime.datetime.now() - started).total_seconds()
    return Turn(elapsed, usage.ru_utime + usage.ru_stime)


_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def cases(url: str, trials: int, repeats: int, names: Sequence[str]) -> Cases:
    """Every comparison; a study is made when its first one is."""
    made: set[str] = set()

    def measured(command: str, name: str) -> Row:
        if name not in made:
            made.add(name)
            filled(url, name, Path(), trials)
        return looked_at(command, url, name, repeats)

    kind = url.partition(":")[0].partition("+")[0]
    for name in names:
        sampler, space, reports = STUDIES[name]
        for command in COMMANDS:
            title = f"{command}, {kind}, {trials} trials, {sampler}, {space}, {reports} epochs"
            yield f"{title}; Optuna", functools.partial(measured, command, name)


def main() -> None:
    """Measure, and print a table."""
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="Trials of each study.")
    parser.add_argument("--storage", help="URL of an empty database. Default: a file of sqlite.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = list(STUDIES)[:1] if options.quick else list(STUDIES)
    with tempfile.TemporaryDirectory() as folder:
        url = options.storage or f"sqlite:///{folder}/long.db"
        measure(cases(url, options.trials, 1 if options.quick else 5, names), options.output)


if __name__ == "__main__":
    main()
