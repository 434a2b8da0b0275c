"""Searches and trainings that are killed, terminated and interrupted end as if undisturbed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

import optnas
from optnas.running.retraining import retrain_found
from optnas.storage.opening import open_storage
from optnas.study.opening import open_existing

# A trial takes a second or so, so that it can be hit in its middle.
SLOW = """\
study: hit
space: {depth: [2, 2], width: [12, 16]}
sampler: {name: macro_micro, epochs: 4, micro_epochs: 4, search_operations: false}
data: digits
"""
QUICK = """\
study: hit
space: {depth: [2, 3], width: [4, 8]}
sampler: {name: macro_micro, epochs: 1, micro_epochs: 1}
data: {name: digits, classes: [0, 1, 2], samples: 0.5}
retrain: {epochs: 100}
"""
OPTNAS = str(Path(sys.executable).with_name("optnas"))
# Stops itself in the middle of a trial, once, so that nobody has to be quick to hit it there.
STOPPING = """\
import os, signal
from optnas.cli import main
from optnas.objectives.training.trial_training import TrialTraining

def report(self, original=TrialTraining._report):
    original(self)
    if self.trainer.epoch == 2:
        TrialTraining._report = original
        os.kill(os.getpid(), signal.SIGSTOP)

TrialTraining._report = report
main()
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> optuna.Study:
    return optnas.run(study_file(tmp_path_factory.mktemp("undisturbed"))).study


def study_file(folder: Path, text: str = SLOW) -> Path:
    path = folder / "hit.yaml"
    path.write_text(text)
    return path


def start(*command: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True)


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def trials_of(path: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of a search in another process, as its storage shows them."""
    storage = open_storage(f"sqlite:///{path.with_suffix('.db')}")
    return optuna.load_study(study_name="hit", storage=storage).trials


def results(trials: list[optuna.trial.FrozenTrial]) -> dict[str, tuple[Any, ...]]:
    """What every candidate came to: its value, its curve, what it cost."""
    return {
        json.dumps(t.params): (
            t.value,
            sorted(t.intermediate_values.items()),
            t.user_attrs["train_accuracy"],
            t.user_attrs["params"],
        )
        for t in trials
        if t.params and t.user_attrs.get("failure") != "lost"
    }


def test_killed_searches_end_as_the_undisturbed_one(undisturbed, tmp_path):
    path = study_file(tmp_path)
    endings = (
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGTERM, 0, f"Terminated; nothing is lost. `optnas run {path}` goes on."),
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGINT, 130, f"Interrupted; nothing is lost. `optnas run {path}` goes on."),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    )
    for number, code, message in endings:
        process = start(sys.executable, "-c", STOPPING, "run", path)
        wait_until_stopped(process)
        known = len(trials_of(path))
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate()
        assert process.returncode == code, err
        assert message in out
        assert err == ""
        running = [t for t in trials_of(path) if t.state == TrialState.RUNNING]
        assert len(running) == (1 if number == signal.SIGKILL else 0)
        assert len(trials_of(path)) == known
    study = optnas.run(path).study
    trials = study.trials
    assert all(t.state.is_finished() for t in trials)
    lost = [t for t in trials if t.user_attrs.get("failure") == "lost"]
    assert len(lost) == len(endings)
    assert results(trials) == results(undisturbed.trials)
    assert len(trials) == len(undisturbed.trials) + len(lost)
    assert study.sampler.found(study) == undisturbed.sampler.found(undisturbed) is not None
    followers = {t.user_attrs["continues"]: t for t in trials if "continues" in t.user_attrs}
    assert followers.keys() == {t.number for t in lost}
    for trial in lost:
        follower, reported = followers[trial.number], len(trial.intermediate_values)
        assert follower.params == trial.params
        assert reported > 0
        # The whole curve, of which this trial itself trained the rest alone.
        assert follower.intermediate_values.items() >= trial.intermediate_values.items()
        if follower.state == TrialState.COMPLETE:
            assert follower.user_attrs["epochs_trained"] <= follower.params["epochs"] - reported
    assert not list((tmp_path / "hit.artifacts").glob("*.pt"))


def test_two_processes_share_a_new_study(tmp_path):
    (tmp_path / "alone").mkdir()
    alone = optnas.run(study_file(tmp_path / "alone", QUICK)).study
    path = study_file(tmp_path, QUICK)
    workers = [start(OPTNAS, "run", path), start(OPTNAS, "run", path)]
    for worker in workers:
        _, err = worker.communicate()
        assert (worker.returncode, err) == (0, "")
    study = optuna.load_study(study_name="hit", storage=f"sqlite:///{tmp_path}/hit.db")
    trained = [t for t in study.trials if t.params]
    assert all(t.state == TrialState.COMPLETE for t in trained)
    assert len({json.dumps(t.params) for t in trained}) == len(trained)
    # Guesses that did not hold cost a few candidates more, and those are all.
    known = results(trained)
    for params, result in results(alone.trials).items():
        assert known[params] == result
    assert optnas.run(path).best.architecture == alone.sampler.found(alone)


def test_a_killed_retraining_goes_on(tmp_path):
    text = QUICK + "budget: {trials: 1}\n"
    folders = [tmp_path / "killed", tmp_path / "undisturbed"]
    for folder in folders:
        folder.mkdir()
        optnas.run(study_file(folder, text))
    process = start(OPTNAS, "retrain", folders[0] / "hit.yaml")
    while not process.stdout.readline().startswith("epoch 20/100 "):
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert not (folders[0] / "hit.network" / "network.json").exists()
    seen: list[list[int]] = [[], []]
    reports = [
        next(
            retrain_found(
                open_existing(str(folder / "hit.yaml")),
                on_epoch=lambda epoch, *_, seen=epochs: seen.append(epoch),
            )
        )
        for folder, epochs in zip(folders, seen, strict=True)
    ]
    assert seen[0][0] > 20
    assert seen[0] == list(range(seen[0][0], 101))
    assert seen[1] == list(range(1, 101))
    assert reports[0].fields["test_accuracy"] == reports[1].fields["test_accuracy"]
    weights = [(folder / "hit.network" / "weights.safetensors").read_bytes() for folder in folders]
    assert weights[0] == weights[1]
