"""Whoever only looks at a study reads little, writes nothing, and sees what Optuna shows."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState, create_trial

import optnas
from optnas.report.text import best_fields, best_text, status_fields, status_text
from optnas.storage.column_trials import ColumnTrial
from optnas.storage.reading import ReadDatabase
from optnas.study.opening import OpenStudy, open_existing
from optnas.trials.attributes import CLAIM

SAMPLERS: dict[str, Any] = {
    "econas": ("cell", {"initial": 4}),
    "ended": ("nasbench201", {"name": "econas", "initial": 1, "cycles": 0}),
    "randgrow": ({"name": "growth", "cells": 3}, {}),
    "macro_micro": ({"name": "chain", "depth": [2, 5], "width": [8, 12]}, {"epochs": 2}),
    "surrogate": ("nasbench201", {"initial": 3}),
    "random": ("cell", {}),
}
ALLOW = ["napping:Nap"]


@pytest.fixture(scope="module", autouse=True)
def naps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> str:
    """A database of sqlite with a study of every kind, and the trials that people may make."""
    url = f"sqlite:///{tmp_path_factory.mktemp('searched')}/studies.db"
    make_studies(url)
    return url


def make_studies(url: str, *names: str) -> None:
    for study in names or SAMPLERS:
        space, options = SAMPLERS[study]
        keys = {
            "study": study,
            "storage": url,
            "space": space,
            "sampler": {"name": study, **options},
            "objective": {"name": "napping:Nap", "seconds": 0, "epochs": 2},
            "budget": {"trials": 3},
        }
        vary(optnas.run(keys).opened)
    optuna.create_study(study_name="another's", storage=url, direction="maximize")


def vary(handle: OpenStudy) -> None:
    """Add trials of every state, with all that trials may have."""
    study, space = handle.study, handle.config.search_space
    rng = np.random.default_rng(0)
    running = (TrialState.RUNNING, TrialState.WAITING)
    for number, state in enumerate([*TrialState, *TrialState]):
        params = {} if number == 7 else space.random_params(rng)
        user: dict[str, Any] = {"phase": "own", "train_seconds": 1.5, "multiply_adds": 10 + number}
        if state == TrialState.FAIL:
            user |= {"failure": ("lost", "candidate")[number % 2], "failure_reason": "ill"}
        if number > 5 and state not in running:
            user["continues"] = len(study.trials) - 3
        trial = create_trial(
            state=state,
            params=params,
            distributions={name: space.distributions()[name] for name in params},
            value=float(rng.random()) if state == TrialState.COMPLETE else None,
            user_attrs=user,
            system_attrs={"fixed_params": params} if state == TrialState.WAITING else {},
            intermediate_values={} if number == 2 else {1: 0.25, 2: float(rng.random())},
            constraints={"size": float(number)} if number > 4 else None,
        )
        study.add_trial(trial)
    best = create_trial(value=2.0, constraints={"size": 1.0}, user_attrs={"odd": [1, None]})
    study.add_trial(best)
    study.add_trial(create_trial(state=TrialState.PRUNED))


def both(url: str, name: str) -> tuple[OpenStudy, OpenStudy]:
    """A study as it is looked at, and as Optuna reads it."""
    ours, theirs = (open_existing(url, name, allow=ALLOW, reading=r) for r in (True, False))
    assert isinstance(ours.study._storage._backend, ReadDatabase)
    return ours, theirs


def check_same(url: str, name: str) -> None:
    ours, theirs = both(url, name)
    for show in (best_fields, status_fields, status_text, lambda h: best_text(h, "it")):
        assert show(ours) == show(theirs)
    ours = both(url, name)[0]
    trials = ours.study.get_trials(deepcopy=False)
    assert any(isinstance(trial, ColumnTrial) for trial in trials)
    for trial, other in zip(trials, theirs.study.get_trials(deepcopy=False), strict=True):
        assert trial == other
        assert (trial.params.keys(), len(trial.params)) == (
            other.params.keys(),
            len(other.params),
        )
        assert (trial.duration, trial.value) == (other.duration, other.value)
        assert trial.constraints == other.constraints
        assert (CLAIM in trial.system_attrs) == (CLAIM in other.system_attrs)
    assert ours.study.best_trial == theirs.study.best_trial
    assert ours.study.trials == theirs.study.trials


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_seen_is_what_optuna_shows(searched, name):
    check_same(searched, name)


def test_a_renamed_study_is_seen_too(searched, tmp_path):
    path = copied(searched, tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE studies SET study_name = 'new' WHERE study_name = 'random'")
        connection.commit()
    check_same(f"sqlite:///{path}", "new")


def copied(url: str, folder: Path) -> Path:
    """A copy of a database that this process may have open."""
    path = folder / "studies.db"
    source = sqlite3.connect(url.removeprefix("sqlite:///"))
    with contextlib.closing(source), contextlib.closing(sqlite3.connect(path)) as target:
        source.backup(target)
    return path


def test_a_server_shows_the_same(postgresql_url):
    make_studies(postgresql_url, "econas", "randgrow")
    check_same(postgresql_url, "econas")
    check_same(postgresql_url, "randgrow")


def test_a_longer_study_takes_no_more_statements(tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    make_studies(url, "econas")
    few = statements_of_status(url)
    study = open_existing(url, "econas", allow=ALLOW).study
    done = [t for t in study.trials if t.state.is_finished() and t.state != TrialState.FAIL]
    study.add_trials(done * 3)
    many = statements_of_status(url)
    assert len(many) == len(few)
    # Of parameters and reports, those of single trials alone are read.
    whole = [s for s in many if "param_value" in s or "intermediate_value," in s]
    assert whole
    assert all("trial_id IN (" in s or "trial_id = " in s for s in whole)


def statements_of_status(url: str) -> list[str]:
    statements = []
    handle = open_existing(url, "econas", allow=ALLOW, reading=True)

    @sqlalchemy.event.listens_for(handle.study._storage._backend.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    status_fields(handle)
    return statements
