"""What a search would take: said before it is begun, and nothing is created."""

import json

import numpy as np
import optuna
import pytest
from typer.testing import CliRunner

import optnas
from optnas.cli import app
from optnas.config.file import study_from_dict
from optnas.errors import UserError
from optnas.forecast import rehearsing
from optnas.forecast.ahead import look_ahead
from optnas.forecast.left import time_left
from optnas.forecast.pace import Timed, fitted, observed_pace
from optnas.forecast.ranges import Span, at_most_wide
from optnas.forecast.text import start_line
from optnas.spaces import ChainSpace
from optnas.study.unstored import unstored

TINY = """\
study: tiny
space: {depth: [2, 3], width: [4, 6]}
sampler: {name: macro_micro, epochs: 2, search_operations: false}
data: {name: digits, classes: [0, 1, 2], samples: 0.5}
retrain: {epochs: 3}
"""
DIGITS = {"name": "digits", "classes": [0, 1, 2], "samples": 0.3}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(rehearsing, "LONG", 0.03)


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def in_memory(**keys):
    config = study_from_dict({"study": "s", "data": DIGITS, **keys})
    return unstored(config, in_channels=1, classes=3)


def test_a_dry_run_creates_nothing_and_says_everything(study_file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = run("run", study_file, "--dry-run")
    assert result.exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"tiny.yaml"}
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "macro_micro on c" in lines["study"]
    assert lines["data"].startswith("data 'digits': 3 classes; ")
    for name in ("smallest", "typical", "greatest"):
        assert lines[name].split()[-1] in ("ms", "s")
    # 1 or 2 of the depths, 1 of the widths, 1 + a kernel per layer.
    assert "(at least 5, at most 7)" in lines["trials"]
    assert "with one worker" in lines["time"]
    assert "of checkpoints" in lines["disk"]
    assert "3 epochs" in lines["retraining"]


def test_it_is_read_by_programs_and_says_what_is_left(study_file):
    whole = json.loads(run("run", study_file, "--dry-run", "--json").stdout)
    assert whole["networks"]["smallest"]["params"] < whole["networks"]["greatest"]["params"]
    assert 0 < whole["seconds"][0] <= whole["seconds"][1]
    assert whole["trials_done"] == 0
    assert optnas.run(study_file).ending == "finished"
    rest = json.loads(run("run", study_file, "--dry-run", "--json").stdout)
    assert rest["trials"] == [0, 0]
    assert rest["trials_done"] >= 5


def test_data_that_would_be_downloaded_is_asked_for(tmp_path):
    path = tmp_path / "study.yaml"
    root = tmp_path / "absent"
    path.write_text(f"study: s\ndata: {{name: fashion_mnist, root: {root}, download: true}}\n")
    with pytest.raises(UserError, match="put the files there"):
        run("run", path, "--dry-run")
    assert not root.exists()


@pytest.mark.parametrize(
    ("keys", "trials", "epochs"),
    [
        ({"sampler": "random", "budget": {"trials": 12}, "train": {"epochs": 5}}, 12, (60, 60)),
        ({"sampler": "random", "budget": {"epochs": 24}, "train": {"epochs": 5}}, 5, (25, 25)),
        (
            {
                "sampler": {"name": "econas", "initial": 6, "cycles": 1, "parents": [2, 1, 1]},
                "pruner": {"name": "hierarchical", "epochs": 2},
                "train": {"epochs": 6},
            },
            10,
            # 2, then 2 for every other, then 2 for every fourth; or half as many again.
            (35, 52),
        ),
    ],
)
def test_trials_and_epochs_ahead(keys, trials, epochs):
    ahead = look_ahead(in_memory(**keys))
    assert ahead.trials == (trials, trials)
    assert tuple(map(int, ahead.epochs)) == epochs


def test_a_search_without_an_end_says_so():
    ahead = look_ahead(in_memory(sampler="tpe"))
    assert ahead.courses is None
    assert start_line(ahead, None).startswith("end: none in sight")


def test_a_budget_cuts_what_the_strategy_would_do():
    space = {"depth": [2, 20], "width": [4, 16]}
    ahead = look_ahead(in_memory(space=space, budget={"trials": 4}))
    assert ahead.bounds == (4, 4)


def test_the_pace_follows_what_was_timed():
    space, shape = ChainSpace((2, 20), (4, 16)), (1, 10)
    timed = []
    for depth, width in [(2, 4), (20, 4), (2, 16), (20, 16), (10, 8)]:
        params = space.uniform(depth, width, "separable", 3).num_params(*shape)
        timed.append(Timed(depth, params, 0.1 + 0.01 * depth + 1e-4 * np.sqrt(depth * params)))
    pace = fitted(timed, 1.0, space, shape)
    for depth, width in [(6, 6), (15, 12)]:
        network = space.uniform(depth, width, "separable", 3)
        params = network.num_params(*shape)
        true = 0.1 + 0.01 * depth + 1e-4 * np.sqrt(depth * params)
        assert pace.epoch(network) == pytest.approx(true, rel=0.25)
    assert pace.epoch(None) == 1.0
    # One network alone says little, and no time is negative.
    alone = fitted(timed[:1], 1.0, space, shape)
    assert alone.epoch(space.uniform(2, 4, "separable", 3)) == pytest.approx(timed[0].seconds)


def test_time_is_left_as_trials_took(study_file):
    handle = optnas.run(study_file).opened
    trials = handle.study.get_trials()
    half = in_memory(**{"space": {"depth": [2, 3], "width": [4, 6]}, "sampler": "macro_micro"})
    assert time_left(half).seconds is None
    assert observed_pace(half) is None
    begun = optuna.create_study(direction="maximize", sampler=handle.study.sampler)
    begun.add_trials(trials[:2])
    begun.set_user_attr("optnas", handle.study.user_attrs["optnas"])
    left = time_left(type(handle)(handle.config, begun))
    assert left.seconds is not None
    assert 0 < left.seconds.low <= left.seconds.high
    assert time_left(handle).seconds == (0, 0)


@pytest.mark.parametrize(
    ("span", "narrowed"),
    [((1, 5), (1, 5)), ((1, 100), (10 / 6**0.5, 10 * 6**0.5)), ((0, 9), (0, 9))],
)
def test_a_range_that_says_nothing_is_narrowed(span, narrowed):
    assert at_most_wide(Span(*span)) == pytest.approx(narrowed)


def test_a_run_begins_with_a_line_of_it(study_file):
    lines = run("run", study_file).stdout.splitlines()
    (ahead,) = (line for line in lines if line.startswith("ahead: "))
    assert "with one worker" in ahead
    again = run("run", study_file).stdout
    assert "ahead" not in again
