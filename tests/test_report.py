"""What `optnas status` and `optnas best` say, beyond what the commands' own tests hold."""

import re
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from searches import growing, opened, trial

from optnas.report import text as report
from optnas.report.text import best_fields, best_text, ending_text, status_fields, status_text
from optnas.running.runner import Outcome
from optnas.spaces import CellSpace, NasBench201Architecture
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import UNNEEDED, Checkpoints
from optnas.study.opening import Conclusion
from optnas.trials.claims import Claim
from optnas.trials.lineage import record_without_weights


def test_asking_for_the_space_of_weights_makes_no_folder(tmp_path):
    found = opened(tmp_path, [trial(0, 0.5)])
    assert status_fields(found)["weights"] == {"bytes": 0, "trials": [], "lost": {}}
    assert status_text(found).splitlines()[-1] == "weights  0 bytes, of 0 trials"
    assert not Path(found.config.artifacts).exists()


@pytest.mark.parametrize(
    ("size", "text"), [(7, "7 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_340_000, "2.3 MB")]
)
def test_the_space_of_weights_whose_stay_and_whose_are_lost(tmp_path, size, text):
    found = opened(tmp_path)
    study = found.study
    running = study.ask()
    Claim(0, {"modules_1": 1}).write(study._storage, study.trials[0])
    checkpoints = found.checkpoints(open_artifacts(found.config.artifacts))
    checkpoints.save(running._trial_id, running.number, 1, b"x" * size)
    study.add_trial(trial(1, 0.5))
    study.add_trial(trial(2, 0.5))
    record_without_weights(study._storage, study._study_id, [1], "missing")
    record_without_weights(study._storage, study._study_id, [2], UNNEEDED)
    expected = {"bytes": size, "trials": [0], "lost": {"1": "missing"}}
    assert status_fields(found)["weights"] == expected
    assert status_text(found).splitlines()[-1] == f"weights  {text}, of 1 trial; lost: 1"


def test_a_place_that_cannot_be_read_is_no_reason_to_say_nothing(tmp_path, monkeypatch):
    found = opened(tmp_path, [trial(0, 0.5)])
    Path(found.config.artifacts).mkdir()

    def gone(self):
        raise OSError("gone")

    monkeypatch.setattr(Checkpoints, "used_bytes", gone)
    assert "weights  unknown space, of 0 trials" in status_text(found)


def unnamed(number: int, value: float) -> FrozenTrial:
    """A complete trial whose parameters name no architecture, as somebody may add one."""
    return trial(number, value, suggested={"x": 1})


@pytest.mark.parametrize("sampler", ["random", "zoo", "econas"])
def test_a_trial_that_names_no_architecture_is_passed_over(sampler, tmp_path):
    space = CellSpace(1)
    named = create_trial(
        value=0.5,
        params=space.to_params(space.random(np.random.default_rng(0))),
        distributions=space.distributions(),
    )
    partly = trial(1, 0.9, suggested={"normal_in_0_0": 1})
    found = opened(
        tmp_path,
        [named, partly, unnamed(2, 0.8)],
        sampler=sampler,
        space={"name": "cell", "nodes": 1},
    )
    fields = best_fields(found)
    assert [each["trial"] for each in fields["found"]] == [0]
    said = "The best value of any trial is 0.9000 (trial 1, which names no architecture)."
    assert said in best_text(found, "made.yaml")


def test_that_only_such_trials_are_there_is_said_in_a_line(tmp_path):
    found = opened(tmp_path, [unnamed(0, 0.9)])
    assert best_fields(found)["found"] == []
    expected = "No network has been trained yet: trial 0 names no architecture. Next: optnas run x"
    assert best_text(found, "x") == expected


@pytest.mark.parametrize(
    ("sampler", "space", "why"),
    [
        ("randgrow", "growth", "this sampler has no end of its own"),
        ("random", "growth", "this sampler has no end of its own"),
        ({"name": "econas", "cycles": None}, "nasbench201", "this sampler has no end of its own"),
        ("econas", "nasbench201", "the search is not finished"),
        ("macro_micro", "chain", "the search is not finished"),
    ],
)
def test_a_search_without_an_end_is_not_called_unfinished(
    sampler, space, why, tmp_path, monkeypatch
):
    keys = {"name": space, **({"cells": 1, "channels": 4} if space == "growth" else {})}
    found = opened(tmp_path, sampler=sampler, space=keys)
    so_far = [Conclusion(NasBench201Architecture(("none",) * 6), 0, 0.5, settled=False)]
    found.study.add_trial(trial(0, 0.5))
    monkeypatch.setattr(report, "conclusions", lambda *_: so_far)
    assert f"so far (trial 0; {why}):" in best_text(found, "x")
    ending = ending_text(Outcome(found, "budget"), "optnas run x --set=a=1", "x")
    assert ("before the search is finished" in ending) == (why == "the search is not finished")
    assert "run `optnas run x --set=a=1`" in ending
    monkeypatch.setattr(Outcome, "best", so_far[0])
    ending = ending_text(Outcome(found, "budget"), "optnas run x --set=a=1", "x")
    assert "train it: optnas retrain x\n" in ending  # Which has no --set.


def test_a_used_up_budget_is_no_search_to_go_on_with(tmp_path):
    found = opened(tmp_path, [trial(0, 0.5)], budget={"trials": 2})
    assert "not finished" in status_text(found, "x")
    assert status_text(found, "x").endswith("optnas run x")
    found.study.add_trial(trial(1, 0.5))
    assert "state    budget used up" in status_text(found, "x")
    assert status_text(found, "x").endswith("optnas best x")


def test_a_network_that_grew_is_told_in_words(tmp_path):
    found = opened(tmp_path, growing(), space={"name": "growth", "cells": 1, "channels": 4})
    text = best_text(found, "made.yaml")
    assert re.search(r"  5 cells, 4 channels, 10 increments; [\d,]+ parameters\n  \+1: ", text)
    assert re.search(r"\+1: (.+) of (cell \d|the stem) \+ .+ \+ .+, added to cell \d\n", text)
    assert "and 2 increments more" in text


def test_the_best_value_is_that_of_a_whole_training(tmp_path):
    found = opened(tmp_path)
    found.study.add_trial(trial(0, 0.5))
    found.study.add_trial(trial(1, 0.9, state=TrialState.PRUNED))
    assert status_fields(found)["best_value"] == 0.5
