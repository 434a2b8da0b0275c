"""What `optnas status` and `optnas best` say, beyond what the commands' own tests hold."""

from pathlib import Path

import pytest
from searches import growing, opened, trial

from optnas.artifacts import open_artifacts
from optnas.checkpoints import UNNEEDED, Checkpoints
from optnas.lineage import record_without_weights
from optnas.report import best_text, status_fields, status_text
from optnas.trials import Claim


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


def test_increments_are_counted_not_listed(tmp_path):
    found = opened(tmp_path, growing(), space={"name": "growth", "cells": 1, "channels": 4})
    assert "mode macro, increments (10)" in best_text(found, "made.yaml")
