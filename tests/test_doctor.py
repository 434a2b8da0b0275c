"""The doctor: what it finds, what it mends, and what it leaves alone."""

import contextlib
import datetime
import functools
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState, create_trial

import optnas
import optnas.trials.leases
from optnas.config.file import load_study_file
from optnas.devices.gpus import Gpu
from optnas.doctor import examination as doctor
from optnas.doctor import trials as diagnosis
from optnas.doctor.examination import TreatedFinding, diagnose, examine
from optnas.errors import RunError
from optnas.running import placement
from optnas.running.events import Display
from optnas.spaces import CellSpace
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import CHECKPOINT
from optnas.study.opening import OpenStudy, create_or_open, open_existing
from optnas.trials.attributes import CLAIM, CONTINUES, FAILURE, LEASE, LOST
from optnas.trials.claims import Claim
from optnas.trials.failures import is_lost, mark_failure
from optnas.trials.leases import renew_lease
from optnas.trials.lineage import without_weights

SPACE = CellSpace()
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STUDY = """\
study: ward
space: cell
sampler: {name: econas, initial: 4}
objective: {name: "napping:Nap", seconds: 0}
budget: {trials: 3}
"""
GROWTH = """\
study: grown
space: {name: growth, cells: 1, channels: 4}
sampler: randgrow
data: {name: digits, classes: [0, 1], samples: 0.3}
train: {epochs: 1}
budget: {trials: 3}
"""


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch) -> None:
    """As on a machine without any."""
    monkeypatch.setattr(doctor, "gpus", lambda: [])
    monkeypatch.setattr(doctor, "mps_runs", lambda: False)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    """A search with three networks whose weights are kept; not to be changed."""
    path = tmp_path_factory.mktemp("healthy") / "grown.yaml"
    path.write_text(GROWTH + "checkpoint: {keep: all}\n")
    assert optnas.run(path).ending == "budget"
    # From another place: a copy of a study that is where it was leaves the training states alone.
    return path.parent.rename(tmp_path_factory.mktemp("moved") / "healthy") / path.name


@pytest.fixture
def grown(healthy, tmp_path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(healthy.parent, tmp_path / "copy")) / "grown.yaml"


@pytest.fixture
def ward(tmp_path) -> Path:
    """The file of a search without training, which has not begun."""
    shutil.copy(BENCHMARKS / "napping.py", tmp_path)
    path = tmp_path / "ward.yaml"
    path.write_text(STUDY)
    create_or_open(load_study_file(path), in_channels=3, classes=10)
    return path


def found(path: Path, *, fix: bool = False) -> list[TreatedFinding]:
    return list(diagnose(str(path), fix=fix)[1])


def kinds(path: Path, *, fix: bool = False) -> list[tuple[str, bool]]:
    """What is found: its kind, and whether it was mended."""
    return [(each.finding.kind, each.mended) for each in found(path, fix=fix)]


def begun(handle: OpenStudy) -> Trial:
    """A trial of this process with a candidate."""
    trial = handle.study.ask()
    SPACE.suggest(trial)
    return trial


def change_lease(trial: Trial, **fields: Any) -> None:
    lease = trial.storage.get_trial_system_attrs(trial._trial_id)[LEASE]
    trial.storage.set_trial_system_attr(trial._trial_id, LEASE, lease | fields)


def dead_pid() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


# Trials without a worker.


def test_a_search_that_is_well(healthy):
    assert found(healthy) == []


LEASES: dict[str, tuple[dict[str, Any], bool]] = {
    "alive": ({}, False),
    "alive, though its promise is broken": ({"until": 1.0}, False),
    "dead": ({"pid": None}, True),
    "another process has its number": ({"started": "0"}, True),
    "elsewhere, promises": ({"host": "elsewhere", "until": 1e12}, False),
    "elsewhere, breaks its promise": ({"host": "elsewhere", "until": 1.0}, True),
    "elsewhere, promises nothing": ({"host": "elsewhere", "until": None}, False),
}


@pytest.mark.parametrize(("lease", "is_gone"), LEASES.values(), ids=LEASES)
def test_trials_whose_worker_is_gone_are_recorded_as_lost_and_continued(ward, lease, is_gone):
    trial = begun(open_existing(str(ward)))
    change_lease(trial, **({"pid": dead_pid()} if "pid" in lease else lease))
    assert kinds(ward) == [("running", False)] * is_gone
    assert open_existing(str(ward)).study.trials[0].state == TrialState.RUNNING
    assert kinds(ward, fix=True) == [("running", True)] * is_gone
    assert kinds(ward) == []
    trials = open_existing(str(ward)).study.trials
    assert is_lost(trials[0]) == is_gone
    if is_gone:
        trials = optnas.run(ward).study.trials
        assert trials[1].user_attrs[CONTINUES] == 0
        assert trials[1].params == trial.params
        assert kinds(ward) == []


FORGOTTEN: dict[str, tuple[dict[str, Any], bool, bool, bool]] = {
    # The lease; whether the trial is overdue; whether its worker has begun another; lost?
    "trains": ({"until": 1e12}, True, True, False),
    "breaks its promise": ({"until": 1.0}, False, True, True),
    "suspended": ({"until": 1.0}, True, False, False),
    "promises nothing": ({"until": None}, False, True, False),
    "promises nothing, overdue": ({"until": None}, True, True, True),
    "takes long": ({"until": None}, True, False, False),
    "takes long elsewhere": ({"until": None, "host": "elsewhere"}, True, False, True),
    "suspended while it decided": ({"until": 1.0, "decides": True}, True, False, False),
    "forgotten while it decided": ({"until": 1.0, "decides": True}, False, True, True),
}


@pytest.mark.parametrize(
    ("lease", "overdue", "began_another", "is_gone"), FORGOTTEN.values(), ids=FORGOTTEN
)
def test_trials_that_their_worker_forgot(
    ward, monkeypatch, lease, overdue, began_another, is_gone
):
    handle = open_existing(str(ward))
    trials = [begun(handle) for _ in range(1 + began_another)]
    for trial in trials:
        change_lease(trial, **{"host": lease.get("host", optnas.trials.leases.this_host())})
    change_lease(trials[0], **lease)
    if overdue:
        monkeypatch.setattr(diagnosis, "SILENCE", datetime.timedelta())
    assert [t.finding.trials for t in found(ward, fix=True)] == [(0,)] * is_gone
    states = [t.state for t in open_existing(str(ward)).study.trials]
    assert states[0] == (TrialState.FAIL if is_gone else TrialState.RUNNING)
    assert states[1:] == [TrialState.RUNNING] * began_another


def test_trials_without_a_lease(ward, monkeypatch):
    """They are of somebody's own loop, unless they are as bare as none of those is for long."""
    study = open_existing(str(ward)).study
    handle = optuna.load_study(study_name="ward", storage=study._storage)
    for bare in (True, False):
        trial = handle.ask()  # The stock sampler writes no lease.
        if not bare:
            trial.suggest_int("x", 0, 9)
    assert kinds(ward) == []
    monkeypatch.setattr("optnas.running.loop.UNLEASED", datetime.timedelta(0))
    assert [t.finding.trials for t in found(ward)] == [(0,)]
    monkeypatch.setattr(diagnosis, "SILENCE", datetime.timedelta())
    assert [t.finding.trials for t in found(ward, fix=True)] == [(0,), (1,)]
    assert [t.state for t in study.trials] == [TrialState.FAIL] * 2


def test_a_candidate_that_is_lost_too_often_counts_as_failed(ward):
    ward.write_text(STUDY + "max_retries: 0\n")
    trial = begun(open_existing(str(ward)))
    change_lease(trial, pid=dead_pid())
    [treated] = found(ward, fix=True)
    assert "Mended: recorded as failed: lost 1 times" in treated.text
    assert open_existing(str(ward)).study.trials[0].user_attrs[FAILURE] == "candidate"


def test_a_worker_that_is_heard_of_again_keeps_its_trial(ward):
    handle = open_existing(str(ward))
    trial = begun(handle)
    change_lease(trial, host="elsewhere", until=1.0)
    [finding] = examine(handle)
    change_lease(trial, until=1e12)
    finding.mend()
    assert handle.study.trials[0].state == TrialState.RUNNING


# Trials run twice, and never.


def test_a_candidate_trained_twice_is_told(ward):
    handle = open_existing(str(ward))
    first = begun(handle)
    handle.study.enqueue_trial(first.params)
    second = begun(handle)
    claim = first.storage.get_trial_system_attrs(first._trial_id)[CLAIM]
    second.storage.set_trial_system_attr(second._trial_id, CLAIM, claim)
    handle.study.tell(first, 0.5)
    assert kinds(ward) == []
    handle.study.tell(second, 0.5)
    [treated] = found(ward, fix=True)
    assert treated.text == (
        "duplicate: trials 0, 1 have trained the same candidate to the end. "
        "Nothing is to be done: the first one counts."
    )


@pytest.mark.parametrize("deleted", ["", "LIMIT 1"])
def test_a_trial_whose_parameters_were_deleted_is_told(ward, deleted):
    handle = open_existing(str(ward))
    handle.study.tell(begun(handle), 0.5)
    assert found(ward) == []
    (file,) = ward.parent.glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        some = f"SELECT param_id FROM trial_params {deleted}"
        connection.execute(f"DELETE FROM trial_params WHERE param_id IN ({some})")
    assert kinds(ward) == [("parameters", False)]


def test_a_lost_trial_continued_twice_is_told(ward):
    handle = open_existing(str(ward))
    lost = begun(handle)
    mark_failure(lost, LOST, "a test")
    handle.study.tell(lost, state=TrialState.FAIL)
    trials = [begun(handle), begun(handle)]
    for trial in trials:
        trial.set_user_attr(CONTINUES, 0)
    # A copy that came too late, and ended before it began.
    late = create_trial(state=TrialState.PRUNED, user_attrs={CONTINUES: 0})
    handle.study.add_trial(late)
    [treated] = found(ward)
    assert treated.text.startswith(
        "duplicate: trials 1, 2 all go on with trial 0, which was lost. "
    )
    for trial in trials:
        handle.study.tell(trial, 0.5)
    assert kinds(ward) == [("duplicate", False)]


@pytest.mark.parametrize("ending", ["goes on", "finished", "budget"])
def test_queued_trials_that_nobody_will_run(ward, monkeypatch, ending):
    study = optnas.run(ward).study if ending == "budget" else open_existing(str(ward)).study
    study.enqueue_trial({})
    monkeypatch.setattr(OpenStudy, "is_finished", ending == "finished")
    expected = {"goes on": [], "finished": [("waiting", True)], "budget": [("waiting", False)]}
    assert kinds(ward, fix=True) == expected[ending]
    state = study.trials[-1].state
    assert state == (TrialState.PRUNED if ending == "finished" else TrialState.WAITING)


def test_a_queued_trial_that_a_worker_takes_meanwhile_is_not_ended(ward, monkeypatch):
    handle = open_existing(str(ward))
    handle.study.enqueue_trial({})
    monkeypatch.setattr(OpenStudy, "is_finished", True)
    [finding] = examine(handle)
    handle.study.ask()
    finding.mend()
    assert handle.study.trials[0].state == TrialState.RUNNING


# Checkpoints.


def state_of(path: Path, number: int) -> Path:
    trial = open_existing(str(path)).study.trials[number]
    return path.parent / "grown.artifacts" / trial.system_attrs[CHECKPOINT]["id"]


def missing(path: Path) -> None:
    path.unlink()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [missing, damaged])
def test_weights_that_are_needed_but_not_there_are_recorded(grown, harm):
    harm(state_of(grown, 1))
    [treated] = found(grown)
    assert treated.text == (
        f"checkpoint: the checkpoint of trial 1 is {harm.__name__}. "
        "With --fix: recorded, so that no network starts from it."
    )
    study = open_existing(str(grown)).study
    assert without_weights(study._storage, study._study_id) == {}
    assert kinds(grown, fix=True) == [("checkpoint", True)]
    assert without_weights(study._storage, study._study_id).keys() == {1}
    assert kinds(grown) == []


def test_a_folder_of_artifacts_that_is_gone(grown):
    shutil.rmtree(grown.parent / "grown.artifacts")
    assert kinds(grown, fix=True) == [("checkpoint", True)] * 3
    assert not (grown.parent / "grown.artifacts").exists()
    assert kinds(grown) == []


def test_the_state_of_a_lost_trial_is_needed(grown):
    """And the state to which no trial refers any more is an orphan."""
    handle = open_existing(str(grown))
    storage, name = handle.study._storage, state_of(grown, 2).name
    lost = create_trial(
        state=TrialState.FAIL, system_attrs={CHECKPOINT: {"id": name, "sha256": "", "bytes": 1}}
    )
    handle.study.add_trial(lost)
    [treated] = found(grown, fix=True)
    assert treated.text.endswith("damaged. Mended: recorded; its epochs are trained again.")
    assert without_weights(storage, handle.study._study_id) == {
        3: "the checkpoint of trial 3 is damaged"
    }
    assert kinds(grown) == []


def test_states_to_which_no_trial_refers_are_deleted(grown):
    """Not those of running trials, whose mark is yet to be written, nor other studies' ones."""
    handle = open_existing(str(grown))
    prefix = state_of(grown, 0).name.partition("-")[0]
    running = handle.study.ask()
    assert running.number == 3
    folder = grown.parent / "grown.artifacts"
    names = [f"{prefix}-0-7.pt", f"{prefix}-9-1.pt", f"{prefix}-3-1.pt", "0123456789ab-0-7.pt"]
    for name in names:
        (folder / name).write_bytes(bytes(1500))
    before = {path.name for path in folder.iterdir()}
    [treated] = found(grown)
    assert f"no trial refers to {names[0]}, {names[1]}, in {folder}. " in treated.text
    assert treated.text.endswith("With --fix: deleted, which frees 3.0 kB.")
    assert {path.name for path in folder.iterdir()} == before
    assert kinds(grown, fix=True) == [("orphans", True)]
    assert {path.name for path in folder.iterdir()} == before - set(names[:2])
    assert kinds(grown) == []


def test_a_study_of_the_same_name_in_another_storage_keeps_its_states(grown, tmp_path):
    """Both keep them in one folder, and neither takes the other's for orphans."""
    other = tmp_path / "other" / "grown.yaml"
    other.parent.mkdir()
    other.write_text(
        GROWTH + f"checkpoint: {{keep: all}}\nartifacts: {grown.parent}/grown.artifacts\n"
    )
    assert optnas.run(other).ending == "budget"
    assert kinds(grown, fix=True) == kinds(other, fix=True) == []
    for path in (grown, other):
        handle = diagnose(str(path))[0]
        stored = handle.checkpoints(open_artifacts(handle.config.artifacts))
        assert all(map(stored.exists, handle.study.trials))


def test_a_folder_that_is_not_mounted_loses_nothing(grown):
    folder = grown.parent / "grown.artifacts"
    away = folder.rename(grown.parent / "away")
    with pytest.raises(RunError, match="hold none of the 3 training states"):
        optnas.run(grown)
    study = diagnose(str(grown))[0].study
    assert without_weights(study._storage, study._study_id) == {}
    folder.rmdir()
    away.rename(folder)
    assert optnas.run(grown).ending == "budget"
    assert kinds(grown) == []


def test_a_folder_that_was_deleted_is_told_by_the_doctor(grown):
    shutil.rmtree(grown.parent / "grown.artifacts")
    assert kinds(grown, fix=True) == [("checkpoint", True)] * 3
    assert optnas.run(grown).ending == "budget"


def test_what_cannot_be_mended_is_told(grown, monkeypatch):
    prefix = state_of(grown, 0).name.partition("-")[0]
    (grown.parent / "grown.artifacts" / f"{prefix}-0-7.pt").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("optnas.storage.artifacts.Folder.remove", refuse)
    [treated] = found(grown, fix=True)
    assert treated.text.endswith("Not mended: Read-only file system.")
    assert not treated.mended


# The configuration, the places, the versions.


def test_a_file_that_differs_from_its_study_is_told_key_by_key(ward):
    ward.write_text(STUDY.replace("initial: 4", "initial: 5") + "seed: 3\n")
    texts = [each.text for each in found(ward)]
    assert [text.partition(". ")[0] for text in texts] == [
        "configuration: seed: stored null, file says 3",
        "configuration: sampler.initial: stored 4, file says 5",
    ]


def test_a_disk_that_is_nearly_full(ward, monkeypatch):
    usage = shutil.disk_usage(ward)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_500_000))
    [treated] = found(ward)
    assert treated.text.startswith("space: 1.5 MB are left on the disk of ")


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_storage_that_cannot_be_written_to(tmp_path, monkeypatch, kind):
    url = f"{kind}:///{tmp_path}/ward"
    path = tmp_path / "ward.yaml"
    shutil.copy(BENCHMARKS / "napping.py", tmp_path)
    path.write_text(f"{STUDY}storage: {url}\nartifacts: {tmp_path}/a\n")
    create_or_open(load_study_file(path), in_channels=3, classes=10)
    assert kinds(path) == []
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path / "ward")
    assert [each.text for each in found(path)] == [
        f"storage: {url}: the storage cannot be written to: this user may not write there. "
        "No trial can be stored there."
    ]


def test_a_database_in_which_one_may_not_write(tmp_path, postgresql):
    url = postgresql.new_database()
    path = tmp_path / "ward.yaml"
    shutil.copy(BENCHMARKS / "napping.py", tmp_path)
    path.write_text(f"{STUDY}storage: {url}\n")
    study = create_or_open(load_study_file(path), in_channels=3, classes=10).study
    assert kinds(path) == []
    with study._storage._backend.engine.begin() as connection:
        name = url.rpartition("/")[2]
        read_only = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        connection.exec_driver_sql(read_only)
    [treated] = found(path)
    assert "the storage cannot be written to: cannot execute UPDATE in a read-only" in treated.text


def test_artifacts_that_cannot_be_kept(ward):
    (ward.parent / "ward.artifacts").write_text("a file")
    [treated] = found(ward, fix=True)
    assert treated.text.startswith("artifacts: ")
    assert "is not a folder; name another place. No training state" in treated.text


def with_attrs(path: Path, number: int, **attrs: Any) -> None:
    """Add a trial that ran in other circumstances."""
    study = open_existing(str(path)).study
    user_attrs = study.trials[number].user_attrs | attrs
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=user_attrs))


def test_versions_and_devices_that_differ(grown):
    first = open_existing(str(grown)).study.trials[0].user_attrs
    here = first["versions"]
    failed = {FAILURE: "candidate"}
    with_attrs(grown, 0, **failed, versions=here | {"torch": here["torch"] + "+other"})
    assert kinds(grown) == []
    with_attrs(grown, 0, **failed, versions=here | {"optuna": "4.0.0"}, device="abacus")
    assert [each.text for each in found(grown)] == [
        f"versions: trials 0-3 ran with optuna {optuna.__version__}, trial 4 ran with optuna "
        f"4.0.0; here it is {optuna.__version__}. Results of different versions may differ.",
        f"devices: trials 0-3 ran on {first['device']}, trial 4 ran on abacus. "
        "Their results are not comparable to the last digit.",
    ]


# The command.


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def unwell(path: Path) -> None:
    """Everything that can be mended."""
    handle = open_existing(str(path))
    lease = {"host": "elsewhere", "pid": 1, "started": "1", "until": 1.0, "decides": False}
    trial = handle.study.ask()
    Claim(9, {"parent": 0, "growth_seed": 1}).write(trial.storage, trial._cached_frozen_trial)
    trial.storage.set_trial_system_attr(trial._trial_id, LEASE, lease)
    state = state_of(path, 1)
    damaged(state)
    state.with_name(state.name.partition("-")[0] + "-0-7.pt").write_bytes(b"orphan")


@pytest.fixture
def command(optnas_command) -> Callable[..., tuple[int, str, str]]:
    return functools.partial(optnas_command, "doctor")


def test_without_fix_nothing_is_written(grown, command):
    unwell(grown)
    with sqlite3.connect(grown.with_suffix(".db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        dump = list(connection.iterdump())
    connection.close()
    before = contents(grown.parent)
    code, out, err = command(grown)
    assert (code, err) == (1, "")
    assert [line.partition(":")[0] for line in out.splitlines()[:-2]] == [
        "running",
        "checkpoint",
        "orphans",
    ]
    assert out.splitlines()[-2:] == [
        "'grown' (4 trials): 3 found, 3 can be mended with --fix.",
        f"Next: optnas doctor {grown} --fix",
    ]
    with sqlite3.connect(grown.with_suffix(".db")) as connection:
        assert list(connection.iterdump()) == dump
    connection.close()
    after = contents(grown.parent)
    beside = {"grown.db-wal", "grown.db-shm"}
    assert {k: v for k, v in after.items() if k not in beside} == {
        k: v for k, v in before.items() if k not in beside
    }


def test_mending_is_done_once(grown, command):
    unwell(grown)
    code, out, _ = command(grown, "--fix")
    assert code == 0
    assert out.count(" Mended: ") == 3
    assert out.splitlines()[-2:] == [
        "'grown' (4 trials): 3 found, 3 mended.",
        f"Next: optnas best {grown}",
    ]
    url = f"sqlite:///{grown.with_suffix('.db')}"
    code, out, _ = command(url, "grown")
    assert (code, out.splitlines()) == (
        0,
        ["Nothing is wrong with 'grown' (4 trials).", f"Next: optnas best {url} grown"],
    )


def test_gpus_are_shown(grown, command, monkeypatch):
    gpu = Gpu("GPU-1", "NVIDIA H200", 150_000_000_000, 149_400_000_000, "default")
    monkeypatch.setattr(doctor, "gpus", lambda: [gpu])
    code, out, _ = command(grown)
    assert (code, out.splitlines()) == (
        0,
        [
            "NVIDIA H200: 149.4 GB of 150.0 GB free, compute mode default, MPS is not running.",
            "Nothing is wrong with 'grown' (3 trials).",
            f"Next: optnas best {grown}",
        ],
    )
    fields = json.loads(command(grown, "--json")[1])
    assert fields["gpus"] == [
        {"uuid": "GPU-1", "name": gpu.name, "total": gpu.total, "free": gpu.free, "mode": gpu.mode}
    ]
    assert fields["mps"] is False


@pytest.mark.parametrize(
    ("workers", "what", "cure"),
    [
        (
            "{devices: [cuda], per_device: 2}",
            "several workers on one GPU, but its compute mode lets a single process in and MPS "
            "is not running",
            "Start it with `nvidia-cuda-mps-control -d`, or have root set "
            "`nvidia-smi --compute-mode=DEFAULT`",
        ),
    ],
)
def test_workers_that_this_machine_cannot_have(ward, monkeypatch, workers, what, cure):
    gpu = Gpu("GPU-1", "NVIDIA T4", 16_000_000_000, 15_500_000_000, "exclusive process")
    monkeypatch.setattr(placement, "gpus", lambda: [gpu])
    monkeypatch.setattr(placement, "mps_runs", lambda: False)
    ward.write_text(STUDY + f"workers: {workers}\n")
    [finding] = [each.finding for each in found(ward)]
    assert (finding.kind, finding.what, finding.cure) == ("workers", what, cure)
    monkeypatch.setattr(placement, "mps_runs", lambda: True)
    assert not found(ward)


def test_for_programs(grown, command):
    missing(state_of(grown, 1))
    code, out, _ = command(grown, "--json")
    assert code == 1
    assert json.loads(out) == {
        "study": "grown",
        "trials": 3,
        "left": 1,
        "gpus": [],
        "mps": False,
        "findings": [
            {
                "kind": "checkpoint",
                "what": "the checkpoint of trial 1 is missing",
                "cure": "recorded, so that no network starts from it",
                "trials": [1],
                "mendable": True,
                "mended": False,
                "error": None,
            }
        ],
    }


@pytest.mark.parametrize("target", ["absent.yaml", "sqlite:///absent.db", "nonsense://"])
def test_bad_input(command, target):
    code, out, err = command(target)
    assert (code, out) == (2, "")
    assert err.startswith("optnas: ")
    assert err.count("\n") == 1


def test_doctors_side_by_side_do_no_harm(grown):
    unwell(grown)
    doctors = [diagnose(str(grown), fix=True)[1] for _ in range(2)]
    first = [next(doctor) for doctor in doctors]
    rest = [list(doctor) for doctor in doctors]
    assert all(treated.error is None for treated in (*first, *rest[0], *rest[1]))
    assert kinds(grown) == []
    study = open_existing(str(grown)).study
    assert is_lost(study.trials[3])
    assert without_weights(study._storage, study._study_id).keys() == {1}


def test_a_doctor_beside_a_worker_leaves_it_alone(grown):
    """It looks on after every epoch of a search."""
    seen: list[TreatedFinding] = []

    class Visits(Display):
        def epoch(self, progress, worker):
            seen.extend(found(grown, fix=True))

        trial = epoch

    from optnas.running.runner import run

    grown.write_text(grown.read_text().replace("trials: 3", "trials: 5"))
    outcome = run(grown, display=Visits())
    assert seen == []
    assert [t.state for t in outcome.study.trials] == [TrialState.COMPLETE] * 5


def test_a_lease_says_more_than_it_used_to(ward):
    """A lease without the key that says that it decides is that of a trial with a candidate."""
    trial = begun(open_existing(str(ward)))
    renew_lease(trial.storage, trial._trial_id, None)
    lease = trial.storage.get_trial_system_attrs(trial._trial_id)[LEASE]
    del lease["decides"]
    lease |= {"host": "elsewhere", "until": 1.0}
    trial.storage.set_trial_system_attr(trial._trial_id, LEASE, lease)
    assert kinds(ward) == [("running", False)]
