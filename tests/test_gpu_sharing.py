"""Several processes on one GPU, or several trials in one: who may, and what is said.

But for the last test of trainings no GPU is needed.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from optnas.config.file import load_study_file
from optnas.config.keys import Workers
from optnas.devices.gpus import Gpu
from optnas.devices.gpus import gpus as there_are
from optnas.errors import UserError
from optnas.running.placement import check_gpus, plan_workers
from optnas.storage.opening import open_storage
from optnas.study.opening import open_existing
from optnas.trials.attributes import DEVICE_MEMORY

NAPPING = Path(__file__).parents[1] / "benchmarks" / "napping.py"
GB = 10**9
STUDY = """\
study: naps
space: cell
sampler: random
objective: {name: "napping:Nap", seconds: 0.01}
budget: {trials: 2}
"""


@pytest.mark.parametrize(
    ("keys", "count", "devices"),
    [
        ({}, 1, ()),
        ({"count": 5, "devices": ("cuda:0", "cuda:1")}, 5, ("cuda:0", "cuda:1")),
        ({"per_device": 3, "devices": ("cuda:0", "cuda:1")}, 6, ("cuda:0", "cuda:1")),
        ({"per_device": 3}, 3, ("cpu",)),
        ({"per_device": 1, "devices": ("cuda",), "streams": 4}, 1, ("cuda",)),
    ],
)
def test_the_workers_of_a_run(monkeypatch, keys, count, devices):
    monkeypatch.setattr("optnas.running.placement._default_device", lambda: "cpu")
    plan = plan_workers(Workers(**keys))
    assert (plan.count, plan.workers.devices) == (count, devices)


def test_what_measured_how_many_pay_is_one_for_each_device(tmp_path, optnas_command, monkeypatch):
    """In a file, and in what is stored of a study; both say it in a line, and run."""
    shutil.copy(NAPPING, tmp_path)
    file, url = tmp_path / "naps.yaml", f"sqlite:///{tmp_path / 'naps.db'}"
    file.write_text(STUDY + "workers:\n  per_device: auto\n  devices: [cpu]\n")
    said = "workers.per_device: `auto` is taken for 1 now, a process for each device: say a number"
    with pytest.warns(UserWarning, match="naps.yaml:7") as caught:
        assert load_study_file(file).workers == Workers(per_device=1, devices=("cpu",))
    assert [said in str(warning.message) for warning in caught] == [True]
    _, out, err = optnas_command("run", file)
    assert err.count(said) == err.count("\n") == 1
    assert "The budget is used up" in out

    study = optuna.load_study(study_name="naps", storage=url)
    record = dict(study.user_attrs["optnas"])
    record["config"] = dict(record["config"]) | {"workers": {"per_device": "auto"}}
    study.set_user_attr("optnas", record)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="`auto` is taken for 1 now"):
        handle = open_existing(url, "naps", allow=["napping:Nap"])
    assert handle.config.workers.per_device == 1


@pytest.mark.parametrize(
    ("keys", "modes", "mps", "refused"),
    [
        ({"per_device": 2, "devices": ("cuda",)}, ["exclusive process"], False, True),
        ({"count": 3, "devices": ("cuda:0", "cuda:1")}, ["exclusive process"] * 2, False, True),
        ({"per_device": 2, "devices": ("cuda",)}, ["exclusive process"], True, False),
        ({"per_device": 2, "devices": ("cuda",)}, ["default"], False, False),
        # Which of them torch means by a name is not known here.
        ({"per_device": 2, "devices": ("cuda",)}, ["default", "exclusive process"], False, False),
        ({"per_device": 1, "devices": ("cuda",)}, ["exclusive process"], False, False),
        ({"count": 2}, ["exclusive process"], False, True),
        ({}, ["exclusive process"], False, False),
        ({"count": 2}, [], False, False),
        ({"count": 2, "devices": ("cpu",)}, ["exclusive process"], False, False),
        ({"per_device": 2, "devices": ("cuda",)}, [], False, False),
        ({"per_device": 2, "devices": ("cpu",)}, ["exclusive process"], False, False),
    ],
)
def test_several_processes_are_refused_where_one_is_let_in(monkeypatch, keys, modes, mps, refused):
    present = [Gpu(f"GPU-{i}", "NVIDIA T4", GB, GB, mode) for i, mode in enumerate(modes)]
    monkeypatch.setattr("optnas.running.placement.gpus", lambda: present)
    monkeypatch.setattr("optnas.running.placement.mps_runs", lambda: mps)
    monkeypatch.setattr("optnas.running.placement._default_device", lambda: "cuda")
    plan = plan_workers(Workers(**keys))
    if refused:
        with pytest.raises(UserError, match="nvidia-cuda-mps-control -d"):
            check_gpus(plan)
    else:
        check_gpus(plan)


def test_devices_are_not_looked_for_without_need(monkeypatch):
    """That loads torch, which takes seconds."""
    monkeypatch.setattr(
        "optnas.running.placement._default_device", lambda: pytest.fail("torch was loaded")
    )
    assert not plan_workers(Workers(count=4)).shares_gpus  # Without a driver.
    monkeypatch.setattr(
        "optnas.running.placement.gpus", lambda: [Gpu("GPU-1", "T4", GB, GB, "default")]
    )
    assert not plan_workers(Workers()).shares_gpus
    check_gpus(plan_workers(Workers(count=4)))


TRAININGS = """\
study: trainings
space: {name: chain, depth: [2, 4], width: [4, 16]}
sampler: random
data: {name: digits, samples: 0.2}
train: {epochs: 20}
budget: {trials: 40}
workers: {devices: ["cuda:0"]}
"""


@pytest.mark.skipif(not there_are(), reason="needs a GPU")
@pytest.mark.parametrize("how", [("--per-device", "2"), ("--streams", "4")], ids=str)
def test_trainings_share_a_gpu(tmp_path, how):
    (tmp_path / "trainings.yaml").write_text(TRAININGS)
    optnas = str(Path(sys.executable).with_name("optnas"))
    command = [optnas, "run", "trainings.yaml", "--json", *how]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["ending"] == "budget"
    notes = [e["text"] for e in events if e["event"] == "note"]
    assert any("MPS is" in text for text in notes) == (how[0] == "--per-device")
    storage = open_storage(f"sqlite:///{tmp_path / 'trainings.db'}")
    trials = optuna.load_study(study_name="trainings", storage=storage).trials
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 40
    assert all(trial.user_attrs[DEVICE_MEMORY]["peak_bytes"] > 0 for trial in complete)
    assert not any("failure" in trial.user_attrs for trial in trials)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "2", "--per-device", "2"], "`count` and `per_device` both say how many"),
        (["--per-device", "many"], "Input should be a valid integer"),
        (["--per-device", "0"], "greater than or equal to 1"),
        (["--streams", "0"], "greater than or equal to 1"),
        (["--streams", "9"], "workers.streams: expected at most 8"),
        (["--per-device", "2", "--devices", "cpu,cpu"], "every device is named once"),
    ],
)
def test_bad_options_end_with_a_line(tmp_path, optnas_command, arguments, said):
    (tmp_path / "naps.yaml").write_text(STUDY)
    shutil.copy(NAPPING, tmp_path)
    code, _, err = optnas_command("run", tmp_path / "naps.yaml", *arguments)
    assert code == 2
    assert said in err
