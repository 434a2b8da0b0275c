"""Whoever only looks at a study reads little, writes nothing, and sees what Optuna shows."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from damaging import command, contents
from optuna.trial import TrialState, create_trial

import optnas
from optnas.report.text import best_fields, best_text, status_fields, status_text
from optnas.storage.column_trials import ColumnTrial
from optnas.storage.reading import ReadDatabase
from optnas.study.data import data_seen_with
from optnas.study.opening import OpenStudy, config_to_run, open_existing
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


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """A folder that nobody can write to, not even root, with what ``folder`` holds."""
    place = folder.parent / "archive"
    place.mkdir()
    mounted = os.geteuid() == 0
    if mounted and subprocess.run(["mount", "-t", "tmpfs", "none", place], check=False).returncode:
        pytest.skip("root, who may write anywhere, may not mount here")
    try:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        if mounted:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        else:
            place.chmod(0o555)
        yield place
    finally:
        place.chmod(0o755) if not mounted else subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("left_over", ["", "-wal", "-journal"])
def test_an_archived_study_is_looked_at(searched, tmp_path, left_over):
    folder = tmp_path / "study"
    folder.mkdir()
    path = copied(searched, folder)
    if left_over == "-wal":
        interrupted(path, "PRAGMA journal_mode=WAL", folder)
    elif left_over == "-journal":
        interrupted(path, "PRAGMA journal_mode=DELETE", folder)
    page = tmp_path / "page.html"
    with read_only(folder) as place:
        target = [f"sqlite:///{place / path.name}", "random", "--allow", ALLOW[0]]
        before = contents(place)
        for verb, *options in (("status",), ("best",), ("report", "--output", str(page))):
            code, said, trace = command(verb, *target, *options)
            assert (code, trace) == (0, None), said
            if verb == "status" and left_over == "-wal":
                assert "99" in said  # It is in the file beside the database.
        assert page.exists()
        code, said, trace = command("doctor", *target)
        assert (code, trace) == (1, None), said
        assert "cannot be written to" in said
        code, said, trace = command("doctor", *target, "--fix")
        assert (code, trace) == (2, None), said
        assert contents(place) == before


def test_an_archived_study_is_listed_and_forecast(searched, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    path = copied(searched, folder)
    with read_only(folder) as place:
        before = contents(place)
        code, said, trace = command("ls", str(place))
        assert (code, trace) == (0, None), said
        assert "random" in said
        code, said, trace = command("rm", f"sqlite:///{place / path.name}", "random", "--yes")
        assert (code, trace) == (2, None), said
        assert "cannot be written to; `optnas status`" in said
        assert contents(place) == before


def test_a_database_of_something_else_is_left_as_it_is(tmp_path):
    """Optuna makes its tables in whatever it opens."""
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        connection.execute("CREATE TABLE users (name)")
    text = "study: app\ndata: digits\nsampler: random\nspace: {depth: [2, 2], width: [4, 4]}\n"
    (tmp_path / "app.yaml").write_text(text)
    before = contents(tmp_path)
    for verb, target, *options in (
        ("ls", str(tmp_path)),
        ("ls", f"sqlite:///{tmp_path}/app.db"),
        ("status", str(tmp_path / "app.yaml")),
        ("rm", str(tmp_path / "app.yaml"), "--yes"),
    ):
        _, said, trace = command(verb, target, *options)
        assert trace is None, said
        assert contents(tmp_path) == before, verb
    config = config_to_run(tmp_path / "app.yaml")  # What a dry run and `optnas data` begin with.
    assert data_seen_with(config) is None
    assert contents(tmp_path) == before


def test_what_a_list_cannot_open_is_told(searched, tmp_path):
    path = copied(searched, tmp_path)
    os.truncate(path, path.stat().st_size - 5000)
    code, said, trace = command("ls", str(tmp_path))
    assert (code, trace) == (0, None), said
    assert "cannot be opened here" in said
    assert "the database is damaged" in said


def interrupted(path: Path, mode: str, folder: Path) -> None:
    """Leave a database as a writer does that was killed, once 99 was told, or half of it."""
    work = folder.parent / "killed.db"
    shutil.copy(path, work)
    connection = sqlite3.connect(work, isolation_level=None)
    connection.execute(mode)
    if "WAL" in mode:
        connection.execute("UPDATE trial_values SET value = 99.0")
    else:  # Pages are in the file already, which the journal takes back.
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE trial_values SET value = 99.0")
        connection.execute("UPDATE trial_user_attributes SET value_json = '1'")
    for part in ("", "-wal", "-journal"):
        if work.with_name(work.name + part).exists():
            shutil.copy(work.with_name(work.name + part), path.with_name(path.name + part))
    connection.close()


@pytest.mark.parametrize("verb", ["status", "best", "doctor", "report"])
def test_looking_leaves_nothing_in_an_empty_file(verb, tmp_path):
    path = tmp_path / "empty.db"
    path.touch()
    code, said, _ = command(verb, f"sqlite:///{path}")
    assert code == 2
    assert said.endswith("no study was ever stored there; `optnas run` creates one.\n")
    assert path.stat().st_size == 0
