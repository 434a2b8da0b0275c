"""Running a study: totals over several runs, handing back, and refusing what contradicts it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import optnas
from optnas.config.file import study_from_dict
from optnas.config.keys import Workers
from optnas.errors import UserError
from optnas.running import events
from optnas.running.runner import run
from optnas.running.workers import WorkerPool
from optnas.samplers import _base
from optnas.storage.opening import open_storage
from optnas.study.budget import used_budget
from optnas.study.opening import create_or_open, open_existing
from optnas.study.record import RECORD
from optnas.trials import leases
from optnas.trials.attributes import LEASE

TINY = {
    "study": "tiny",
    "space": {"depth": [2, 3], "width": [4, 6]},
    "sampler": {"name": "macro_micro", "epochs": 2, "search_operations": False},
    "data": {"name": "digits", "classes": [0, 1, 2], "samples": 0.5},
}
RANDOM = TINY | {"sampler": "random", "train": {"epochs": 3}}


def settings(folder: Path, base: dict[str, Any] = TINY, **changes: Any) -> dict[str, Any]:
    return base | {"storage": f"sqlite:///{folder}/tiny.db"} | changes


def results(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (t.params, t.state, t.value, sorted(t.intermediate_values.items()))
        for t in study.trials
        if t.user_attrs.get("failure") != "lost"
    ]


def lost(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [t for t in study.trials if t.user_attrs.get("failure") == "lost"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> optuna.Study:
    return optnas.run(settings(tmp_path_factory.mktemp("undisturbed"))).study


class Display(events.Display):
    """Calls back at every event."""

    def __init__(self, *, epoch: Any = None, trial: Any = None) -> None:
        self._epoch, self._trial = epoch, trial

    def epoch(self, progress, worker) -> None:
        if self._epoch is not None:
            self._epoch(progress)

    def trial(self, trial, worker) -> None:
        if self._trial is not None:
            self._trial(trial)


def test_a_search_from_python_runs_to_its_end_once(tmp_path):
    outcome = optnas.run(settings(tmp_path))
    assert outcome.ending == "finished"
    assert outcome.best.settled
    assert outcome.best.architecture == outcome.study.sampler.found(outcome.study)
    trials = outcome.study.trials
    assert all(t.state == TrialState.COMPLETE for t in trials)
    assert not list((tmp_path / "tiny.artifacts").glob("*.pt"))
    again = optnas.run(settings(tmp_path))
    assert again.ending == "finished"
    assert again.best == outcome.best
    assert [t.datetime_complete for t in again.study.trials] == [
        t.datetime_complete for t in trials
    ]


def test_equal_configurations_find_the_same_on_any_storage(tmp_path, undisturbed):
    again = optnas.run(TINY | {"storage": f"journal:///{tmp_path}/tiny.log"})
    assert results(again.study) == results(undisturbed)


def test_a_budget_of_trials_is_a_total(tmp_path):
    for trials, expected in ((2, 2), (2, 2), (3, 3)):
        outcome = optnas.run(settings(tmp_path, budget={"trials": trials}))
        assert outcome.ending == "budget"
        assert len(outcome.study.trials) == expected
    assert not outcome.best.settled
    assert outcome.study.sampler.found(outcome.study) is None


@pytest.mark.parametrize("pruner", ["none", {"name": "median", "n_startup_trials": 1}])
def test_a_budget_of_epochs_is_exact_and_trainings_go_on(tmp_path, pruner):
    whole = optnas.run(settings(tmp_path, study="whole", pruner=pruner, seed=1)).study
    total = used_budget(whole).epochs
    for epochs in range(3, total, 7):
        outcome = optnas.run(settings(tmp_path, pruner=pruner, seed=1, budget={"epochs": epochs}))
        assert outcome.ending == "budget"
        assert used_budget(outcome.study).epochs == epochs
    outcome = optnas.run(settings(tmp_path, pruner=pruner, seed=1))
    assert outcome.ending == "finished"
    assert used_budget(outcome.study).epochs == total
    assert results(outcome.study) == results(whole)
    handed_back = lost(outcome.study)
    assert handed_back
    assert {t.user_attrs["failure_reason"] for t in handed_back} == {"interrupted"}
    assert all(t.state.is_finished() for t in outcome.study.trials)
    trained = sum(t.user_attrs.get("epochs_trained", 0) for t in outcome.study.trials)
    continued = {t.user_attrs.get("continues") for t in outcome.study.trials}
    chains = [t for t in handed_back if t.user_attrs.get("continues") is None]
    assert {t.number for t in chains} <= continued
    assert trained <= total


def test_a_budget_of_hours_counts_what_was_handed_back(tmp_path):
    first = optnas.run(settings(tmp_path, budget={"hours": 1e-9}))
    assert first.ending == "budget"
    assert [len(t.intermediate_values) for t in first.study.trials] == [1]
    again = optnas.run(settings(tmp_path, budget={"hours": 1e-9}))
    assert again.ending == "budget"
    assert len(again.study.trials) == 1
    assert used_budget(again.study).hours > 1e-9


def test_a_dead_workers_trial_is_no_part_of_the_budget(tmp_path, undisturbed):
    """Killed in its first trial: the trial is found running and is not counted."""
    config = settings(tmp_path, budget={"trials": 1})
    handle = create_or_open(study_from_dict(config), in_channels=1, classes=3)
    trial = handle.study.ask()
    handle.study.sampler.sample_relative(handle.study, handle.study.trials[0], {})
    gone = subprocess.Popen(["true"])
    gone.wait()
    lease = dict(trial.storage.get_trial_system_attrs(trial._trial_id)[LEASE], pid=gone.pid)
    trial.storage.set_trial_system_attr(trial._trial_id, LEASE, lease)
    outcome = optnas.run(config)
    states = [t.state for t in outcome.study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
    assert outcome.study.trials[1].user_attrs["continues"] == 0
    assert results(outcome.study) == results(undisturbed)[:1]


def test_stock_samplers_go_on_with_what_was_handed_back(tmp_path):
    first = optnas.run(settings(tmp_path, RANDOM, budget={"epochs": 4}))
    assert first.ending == "budget"
    assert [len(t.intermediate_values) for t in first.study.trials] == [3, 1]
    again = optnas.run(settings(tmp_path, RANDOM, budget={"trials": 3}))
    trials = again.study.trials
    assert [len(t.intermediate_values) for t in trials] == [3, 1, 3, 3]
    assert trials[2].params == trials[1].params
    assert trials[2].user_attrs["continues"] == 1
    assert trials[2].user_attrs["epochs_trained"] == 2
    assert trials[2].intermediate_values[1] == trials[1].intermediate_values[1]
    assert used_budget(again.study).epochs == 9
    optnas.run(settings(tmp_path, RANDOM, budget={"trials": 4}))
    assert [t.user_attrs.get("continues") for t in again.study.trials].count(1) == 1


def test_resumed_random_search_draws_anew(tmp_path):
    for trials in (1, 2, 3):
        outcome = optnas.run(settings(tmp_path, RANDOM, budget={"trials": trials}))
    assert len({str(t.params) for t in outcome.study.trials}) == 3


def test_a_sampler_that_stops_by_itself_is_finished(tmp_path):
    outcome = optnas.run(
        settings(
            tmp_path,
            sampler="brute_force",
            train={"epochs": 1},
            space={"depth": [1, 1], "width": [4, 4]},
        )
    )
    assert outcome.ending == "finished"
    assert len({str(t.params) for t in outcome.study.trials}) == 4  # Two operations, two kernels.


@pytest.mark.parametrize("base", [TINY, RANDOM | {"budget": {"trials": 2}}])
def test_networks_that_cannot_learn_are_recorded_and_the_search_goes_on(tmp_path, base):
    train = base.get("train", {}) | {"lr": 1e9, "clip": None}
    outcome = optnas.run(settings(tmp_path, base, train=train))
    assert len(outcome.study.trials) >= 2
    for trial in outcome.study.trials:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["failure"] == "candidate"
        assert "not finite" in trial.user_attrs["failure_reason"]
    assert outcome.best is None


def test_limits_are_kept(tmp_path):
    config = settings(tmp_path, RANDOM, limits={"params": 1800}, budget={"trials": 8})
    outcome = optnas.run(config)
    params = [t.user_attrs["params"] for t in outcome.study.trials]
    values = [t.value for t in outcome.study.trials]
    assert [value == 0.0 for value in values] == [count > 1800 for count in params]
    assert 0.0 in values
    assert outcome.best.architecture.num_params(1, 3) <= 1800


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")]
)
def test_signals_hand_the_trial_back(tmp_path, undisturbed, number, ending):
    def at(progress) -> None:
        if (progress.number, progress.epoch) == (1, 1):
            signal.raise_signal(number)

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    outcome = run(settings(tmp_path), display=Display(epoch=at))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert outcome.ending == ending
    assert [t.state.name for t in outcome.study.trials] == ["COMPLETE", "FAIL"]
    assert [t.user_attrs["failure_reason"] for t in lost(outcome.study)] == ["interrupted"]
    again = run(settings(tmp_path))
    assert again.study.trials[2].user_attrs["continues"] == 1
    assert results(again.study) == results(undisturbed)


def test_a_signal_between_two_trials_loses_nothing(tmp_path):
    outcome = run(
        settings(tmp_path), display=Display(trial=lambda _: signal.raise_signal(signal.SIGTERM))
    )
    assert outcome.ending == "terminated"
    assert [t.state for t in outcome.study.trials] == [TrialState.COMPLETE]


def test_a_signal_while_a_result_is_stored_leaves_no_trial_running(tmp_path, monkeypatch):
    original = optuna.storages.RDBStorage.set_trial_state_values

    def interrupted(self, trial_id, state, values=None):
        if state == TrialState.COMPLETE:
            signal.raise_signal(signal.SIGINT)
        return original(self, trial_id, state, values)

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", interrupted)
    outcome = run(settings(tmp_path))
    assert outcome.ending == "interrupted"
    assert [t.state for t in outcome.study.trials] == [TrialState.COMPLETE]


def test_a_signal_while_a_candidate_is_chosen_loses_it_not(tmp_path, undisturbed, monkeypatch):
    original = _base.write_attrs

    def interrupted(*arguments):
        original(*arguments)
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_base, "write_attrs", interrupted)
    assert run(settings(tmp_path)).ending == "interrupted"
    again = run(settings(tmp_path))
    assert again.study.trials[1].user_attrs["continues"] == 0
    assert results(again.study) == results(undisturbed)


def test_in_another_thread_there_are_no_signals(tmp_path):
    outcomes = []
    config = settings(tmp_path, budget={"trials": 1})
    thread = threading.Thread(target=lambda: outcomes.append(run(config)))
    thread.start()
    thread.join()
    assert outcomes[0].ending == "budget"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 7}, "seed: stored null, file says 7"),
        ({"train": {"lr": 0.1}}, "train.lr: stored 0.025, file says 0.1"),
        ({"space": {"depth": [2, 4], "width": [4, 6]}}, "space.depth: stored [2, 3]"),
        ({"limits": {"params": 5000}}, "limits.params: stored null, file says 5000"),
    ],
)
def test_another_configuration_is_refused_and_nothing_changes(tmp_path, change, line):
    first = optnas.run(settings(tmp_path, budget={"trials": 1}))
    before = first.study.user_attrs
    changed = settings(tmp_path, artifacts=f"{tmp_path}/other", **change)
    with pytest.raises(UserError) as caught:
        optnas.run(changed)
    assert "another configuration" in str(caught.value)
    assert f"\n  {line}" in str(caught.value)
    assert first.study.user_attrs == before
    assert len(first.study.trials) == 1
    assert not (tmp_path / "other").exists()


def test_what_may_change_changes_for_those_who_resume(tmp_path):
    optnas.run(settings(tmp_path, budget={"trials": 1}))
    made = open_existing(f"sqlite:///{tmp_path}/tiny.db").study.user_attrs[RECORD]
    optnas.run(
        settings(
            tmp_path,
            budget={"trials": 2},
            retrain={"epochs": 3},
            artifacts=f"{tmp_path}/elsewhere",
            max_retries=9,
        )
    )
    handle = open_existing(f"sqlite:///{tmp_path}/tiny.db")
    assert len(handle.study.trials) == 2
    assert handle.config.budget.trials == 2
    assert handle.config.retrain.epochs == 3
    assert handle.config.artifacts == f"{tmp_path}/elsewhere"
    stored = handle.study.user_attrs[RECORD]
    assert stored.pop("former_artifacts") == [f"{tmp_path}/tiny.artifacts"]
    assert {k: v for k, v in stored.items() if k != "config"} == {
        k: v for k, v in made.items() if k != "config"
    }


def test_a_study_file_speaks_for_itself_where_it_may_change(tmp_path):
    optnas.run(settings(tmp_path, budget={"trials": 1}))
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: tiny\nspace: {depth: [2, 3], width: [4, 6]}\nretrain: {epochs: 5}\n"
        "sampler: {name: macro_micro, epochs: 2, search_operations: false}\n"
        "data: {name: digits, classes: [0, 1, 2], samples: 0.5}\n"
    )
    assert open_existing(str(path)).config.retrain.epochs == 5
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 4"))
    with pytest.raises(UserError, match="another configuration"):
        open_existing(str(path))


def test_a_study_made_otherwise_is_left_alone(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/tiny.db")
    foreign = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(UserError, match="was not made by optnas run"):
        optnas.run(settings(tmp_path))
    assert foreign.user_attrs == {}
    assert len(foreign.trials) == 1


def test_data_of_another_shape_are_refused(tmp_path):
    config = study_from_dict(settings(tmp_path))
    create_or_open(config, in_channels=1, classes=3)
    with pytest.raises(UserError, match="other data"):
        create_or_open(config, in_channels=3, classes=3)


def test_a_study_that_another_process_is_making_is_waited_for(tmp_path):
    """Made, but not yet with its configuration: the second to come must not set its own."""
    config = study_from_dict(settings(tmp_path, seed=1))
    storage = open_storage(config.storage)
    study = optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    other = study_from_dict(settings(tmp_path, seed=2))
    record = {"config": other.resolved(), "in_channels": 1, "classes": 3}

    def finish() -> None:
        time.sleep(0.3)
        study.set_user_attr(RECORD, record)

    thread = threading.Thread(target=finish)
    thread.start()
    with pytest.raises(UserError, match="seed: stored 2, file says 1"):
        create_or_open(config, in_channels=1, classes=3)
    thread.join()


def test_a_study_whose_maker_died_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.study.record.MAKING", 0.0)
    config = study_from_dict(settings(tmp_path))
    storage = open_storage(config.storage)
    optuna.create_study(study_name="tiny", storage=storage, direction="maximize")
    handle = create_or_open(config, in_channels=1, classes=3)
    assert handle.study.user_attrs[RECORD]["classes"] == 3


BAD = {
    "data": ({"data": {"name": "fashion_mnist", "root": "nowhere"}}, "nowhere"),
    "classes": ({"data": {"name": "digits", "classes": [0, 77]}}, "classes"),
    "artifacts": ({"artifacts": "file/below"}, "file is not a folder"),
    "storage": ({"storage": "sqlite:///missing/tiny.db"}, "missing does not exist"),
}


@pytest.mark.parametrize(("change", "text"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_and_nothing_is_created(tmp_path, monkeypatch, change, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=text):
        optnas.run(TINY | change)
    assert os.listdir(tmp_path) == ["file"]


def test_leftovers_of_killed_workers_are_deleted(tmp_path, monkeypatch):
    """Killed after the result was stored, before its training state was deleted."""
    with monkeypatch.context() as patch:
        patch.setattr("optnas.storage.checkpoints.Checkpoints.clean", lambda *_: None)
        optnas.run(settings(tmp_path, budget={"trials": 1}))
    assert len(list((tmp_path / "tiny.artifacts").glob("*.pt"))) == 1
    optnas.run(settings(tmp_path, budget={"trials": 2}))
    assert not list((tmp_path / "tiny.artifacts").glob("*.pt"))


def test_data_may_be_a_function_beside_the_study_file(tmp_path):
    (tmp_path / "stripes_beside.py").write_text(
        """
import numpy as np

def images():
    labels = np.arange(60) % 2
    images = np.zeros((60, 8, 8), np.uint8)
    images[labels == 1, ::2] = 255
    return images[:40], labels[:40], images[40:], labels[40:]
"""
    )
    file = tmp_path / "stripes.yaml"
    file.write_text(
        """
study: stripes
data: stripes_beside:images
sampler: random
space: {depth: [2, 3], width: [4, 8]}
train: {epochs: 1}
budget: {trials: 1}
"""
    )
    assert optnas.run(file).study.trials[0].value is not None


def test_a_study_opened_by_its_storage_does_not_say_where_modules_are(tmp_path, monkeypatch):
    """Whoever can write to a shared storage could have code run from a folder named there."""
    (tmp_path / "study").mkdir()
    file = tmp_path / "study" / "here.yaml"
    file.write_text(
        """
study: here
data: {name: digits, classes: [0, 1]}
sampler: random
space: {depth: [2, 3], width: [4, 8]}
train: {epochs: 1}
budget: {trials: 1}
"""
    )
    optnas.run(file)
    monkeypatch.chdir(tmp_path)
    handle = open_existing(f"sqlite:///{tmp_path}/study/here.db")
    assert handle.study.user_attrs["optnas"]["config"]["folder"] == str(tmp_path / "study")
    assert handle.config.folder == tmp_path


def test_what_killed_workers_left_is_ended_though_the_study_was_not_open_yet(
    tmp_path, monkeypatch
):
    """A second Ctrl-C may come before their parent has opened what they made."""
    config = study_from_dict(settings(tmp_path))
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def run_pool(pool: WorkerPool) -> None:
        study = create_or_open(config, in_channels=1, classes=3).study
        trial = study.ask()
        lease = leases.renew_lease(study._storage, trial._trial_id, None)
        started = leases._process_start(worker.pid)
        lease |= {"pid": worker.pid, "started": started}
        study._storage.set_trial_system_attr(trial._trial_id, LEASE, lease)
        worker.kill()
        worker.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerPool, "run", run_pool)
    outcome = run(config, workers=Workers(count=2))
    assert outcome.ending == "interrupted"
    assert [t.state for t in outcome.study.trials] == [TrialState.FAIL]
