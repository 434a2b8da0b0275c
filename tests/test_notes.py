"""Notes for the dashboard, what it calls the metric, and the range of epochs."""

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from optuna_dashboard import get_note, save_note
from optuna_dashboard._note import get_note_from_system_attrs
from searches import growing, opened, trial

from optnas.objectives.suggested import suggest_epochs
from optnas.report import notes
from optnas.report.notes import SIGNED, Notes
from optnas.samplers import EcoNASSampler, MacroMicroSampler, SynchronousEcoNASSampler
from optnas.spaces import CellSpace, ChainSpace
from optnas.trials.attributes import MAX_EPOCHS


def note_of(study: optuna.Study, number: int) -> str:
    attrs = study._storage.get_study_system_attrs(study._study_id)
    return get_note_from_system_attrs(attrs, study.trials[number]._trial_id)["body"]


@pytest.fixture
def found(tmp_path):
    return opened(tmp_path, growing(), space={"name": "growth", "cells": 1, "channels": 4})


def test_the_study_says_what_it_is_and_what_comes_next(found):
    assert not Notes(found, "made.yaml").refresh(found.study.trials)
    note = get_note(found.study)
    for part in (
        "## made",
        "state    not finished",
        "next     optnas run made.yaml",
        "optnas retrain made.yaml",
        "  5 cells, 4 channels, 10 increments; ",
        "| `space.channels` | 4 |",
    ):
        assert part in note, part
    assert note.endswith(SIGNED)


def test_every_trial_says_which_network_it_is(found):
    found.study.add_trial(trial(5, 0.5, step="child 3, of trial <b>1</b>", phase="growth"))
    Notes(found, "made.yaml").refresh(found.study.trials)
    first, last = note_of(found.study, 0), note_of(found.study, 5)
    assert "complete after 2 epochs with accuracy 0.5000" in first
    assert "- 5 cells, 4 channels, 0 increments; " in first
    assert last.startswith("**child 3, of trial &lt;b&gt;1&lt;/b&gt;** (growth)")


def test_what_somebody_wrote_stays(found):
    save_note(found.study, "mine")
    Notes(found, "made.yaml").refresh(found.study.trials)
    assert get_note(found.study) == "mine"
    save_note(found.study, f"no longer mine\n{SIGNED}")
    Notes(found, "made.yaml").refresh(found.study.trials)
    assert get_note(found.study).startswith("## made")


def test_many_notes_are_written_in_turns_and_only_once(found, monkeypatch):
    monkeypatch.setattr(notes, "AT_ONCE", 3)
    written = []
    save = notes.save_note_with_version
    monkeypatch.setattr(
        notes, "save_note_with_version", lambda *a: (written.append(a[2]), save(*a))
    )
    several = Notes(found, "made.yaml")
    assert several.refresh(found.study.trials)
    assert not several.refresh(found.study.trials)
    assert len(written) == 6  # The study, three trials, then two.
    while (again := Notes(found, "made.yaml")).refresh(found.study.trials):
        monkeypatch.setattr(notes, "AT_ONCE", 99)
    assert again is not several
    assert len(written) == 6


def test_the_metric_has_its_name_and_an_older_study_stays_as_it_is(tmp_path):
    found = opened(tmp_path, study="new")
    assert found.study.metric_names == ["accuracy"]
    other = opened(
        tmp_path, study="f1", objective={"name": "classification", "metric": "macro_f1"}
    )
    assert other.study.metric_names == ["macro-F1"]


def made_up(sampler) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=sampler)


def test_epochs_are_suggested_as_far_as_the_strategy_reaches():
    space = ChainSpace(depth=(4, 12), width=(8, 16))
    sampler = MacroMicroSampler(space, in_channels=1, classes=10, epochs=3, micro_epochs=1)
    assert sampler.epochs_range == (1, 3 + 8 + 2 * 4)
    study, seen = made_up(sampler), []

    def objective(trial):
        space.suggest(trial)
        seen.append(suggest_epochs(trial))
        return len(seen) / 1000

    study.optimize(objective, n_trials=30)
    assert {t.distributions["epochs"] for t in study.trials} == {IntDistribution(1, 19)}
    assert min(seen) >= 1
    assert max(seen) <= 19
    static = MacroMicroSampler(space, in_channels=1, classes=10, epochs=3, evaluation="static")
    assert static.epochs_range == (3, 3)
    assert SynchronousEcoNASSampler(CellSpace(), epochs=5).epochs_range == (5, 15)
    assert EcoNASSampler(CellSpace()).epochs_range is None


def test_a_study_keeps_the_range_of_epochs_that_it_began_with():
    space = ChainSpace(depth=(4, 12), width=(8, 16))
    study = made_up(MacroMicroSampler(space, in_channels=1, classes=10, epochs=3))
    old = IntDistribution(1, MAX_EPOCHS)
    study.add_trial(create_trial(value=0.1, params={"epochs": 7}, distributions={"epochs": old}))

    def objective(trial):
        space.suggest(trial)
        return suggest_epochs(trial) / 100

    study.optimize(objective, n_trials=2)
    assert [t.distributions["epochs"] for t in study.trials] == [old] * 3
    assert [t.params["epochs"] for t in study.trials[1:]] == [3, 4]


def test_what_is_proposed_beyond_the_range_is_still_trained():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    narrow = IntDistribution(1, 2)
    study.add_trial(
        create_trial(value=0.1, params={"epochs": 1}, distributions={"epochs": narrow})
    )
    study.enqueue_trial({"epochs": 5})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda trial: float(suggest_epochs(trial)), n_trials=1)
    assert study.trials[-1].params["epochs"] == 5
