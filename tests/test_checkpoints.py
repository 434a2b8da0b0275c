"""Training state by trial: whole and intact, or not there."""

import os
import shutil
import subprocess
import sys
import textwrap

import optuna
import pytest
from optuna.trial import TrialState

from optnas.errors import RunError
from optnas.storage.artifacts import open_artifacts
from optnas.storage.checkpoints import CheckpointError, Checkpoints
from optnas.storage.retention import deciding
from optnas.trials.attributes import CANDIDATE, CONTINUES, LOST
from optnas.trials.claims import Claim
from optnas.trials.failures import mark_failure
from optnas.trials.lineage import ancestors, without_weights


@pytest.fixture
def study():
    return optuna.create_study(study_name="kept", direction="maximize")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def checkpoints(study, folder):
    return Checkpoints(open_artifacts(folder), study._storage, study.study_name)


def save(checkpoints, trial, epoch, state):
    checkpoints.save(trial._trial_id, trial.number, epoch, state)


def stored(study, trial):
    return study._storage.get_trial(trial._trial_id)


def lose(study, trial):
    mark_failure(trial, LOST, "killed")
    study.tell(trial, state=TrialState.FAIL)
    return stored(study, trial)


def adopt(study, lost):
    trial = study.ask()
    trial.set_user_attr(CONTINUES, lost.number)
    return trial


def test_the_latest_state_replaces_the_one_before(study, checkpoints, folder):
    trial = study.ask()
    with pytest.raises(CheckpointError, match="trial 0 has no checkpoint"):
        checkpoints.load(stored(study, trial))
    for epoch, state in ((1, b"first"), (2, b"second"), (2, b"second again")):
        save(checkpoints, trial, epoch, state)
        assert checkpoints.load(stored(study, trial)) == state
        assert len(list(folder.iterdir())) == 1


def test_studies_of_one_name_in_two_storages_do_not_overwrite_each_other(
    study, checkpoints, folder
):
    trial = study.ask()
    save(checkpoints, trial, 1, b"ours")
    other = optuna.create_study(study_name="kept")
    theirs = Checkpoints(open_artifacts(folder), other._storage, "kept")
    stranger = other.ask()
    save(theirs, stranger, 1, b"theirs")
    other.tell(stranger, 0.5)
    assert checkpoints.load(stored(study, trial)) == b"ours"
    theirs.clean(other)
    assert checkpoints.load(stored(study, trial)) == b"ours"


def test_trials_and_studies_are_kept_apart(study, checkpoints, folder):
    other = optuna.create_study(study_name="other", storage=study._storage)
    theirs = Checkpoints(open_artifacts(folder), study._storage, "other")
    trials = [study.ask(), study.ask()]
    for trial in trials:
        save(checkpoints, trial, 1, f"kept {trial.number}".encode())
    stranger = other.ask()
    save(theirs, stranger, 1, b"other 0")
    assert checkpoints.load(stored(study, trials[0])) == b"kept 0"
    assert checkpoints.load(stored(study, trials[1])) == b"kept 1"
    assert theirs.load(stored(study, stranger)) == b"other 0"


@pytest.mark.parametrize("content", [b"", b"stat", b"State of epoch 1", b"x" * 100])
def test_a_damaged_state_is_no_state(study, checkpoints, folder, content):
    trial = study.ask()
    save(checkpoints, trial, 1, b"state of epoch 1")
    next(folder.iterdir()).write_bytes(content)
    with pytest.raises(CheckpointError, match="checkpoint of trial 0 is damaged"):
        checkpoints.load(stored(study, trial))


def test_a_missing_state_is_no_state(study, checkpoints, folder):
    trial = study.ask()
    save(checkpoints, trial, 1, b"state")
    next(folder.iterdir()).unlink()
    assert not checkpoints.exists(stored(study, trial))
    with pytest.raises(CheckpointError, match="checkpoint of trial 0 is missing"):
        checkpoints.load(stored(study, trial))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_state_before_until_there_is_space(study, small_disk):
    checkpoints = Checkpoints(open_artifacts(small_disk / "a"), study._storage, "kept")
    trial = study.ask()
    first, second = b"1" * 100_000, b"2" * 100_000
    save(checkpoints, trial, 1, first)
    other = small_disk / "other"
    other.write_bytes(b"x" * 100_000)
    for epoch in (2, 1):  # Under another name, and in place of the state itself.
        with pytest.warns(UserWarning, match="No space left"):
            assert not checkpoints.save(trial._trial_id, 0, epoch, second)
        assert checkpoints.load(stored(study, trial)) == first
        assert len(list((small_disk / "a").iterdir())) == 1
    other.unlink()
    assert checkpoints.save(trial._trial_id, 0, 3, second)
    assert checkpoints.load(stored(study, trial)) == second


def test_a_write_that_was_cut_off_leaves_the_state_before(study, tmp_path):
    """Killed after the bytes, before the mark."""
    url = f"sqlite:///{tmp_path}/study.db"
    code = f"""
        import os, signal
        import optuna
        from optnas.storage.checkpoints import Checkpoints
        from optnas.storage.artifacts import open_artifacts
        study = optuna.create_study(study_name="kept", storage={url!r})
        checkpoints = Checkpoints(open_artifacts({str(tmp_path / "a")!r}), study._storage, "kept")
        trial = study.ask()
        checkpoints.save(trial._trial_id, 0, 1, b"first")
        study._storage.set_trial_system_attr = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        checkpoints.save(trial._trial_id, 0, 2, b"second")
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert run.returncode == -9
    storage = optuna.storages.RDBStorage(url)
    trial = optuna.load_study(study_name="kept", storage=storage).trials[0]
    checkpoints = Checkpoints(open_artifacts(tmp_path / "a"), storage, "kept")
    assert checkpoints.load(trial) == b"first"


def test_states_are_deleted_with_the_trial_that_needed_them(study, checkpoints, folder):
    first = study.ask()
    save(checkpoints, first, 1, b"first")
    lost = lose(study, first)
    checkpoints.clean(study, lost)
    second = adopt(study, lost)
    save(checkpoints, second, 2, b"second")
    checkpoints.clean(study, stored(study, second))
    assert checkpoints.load(lost) == b"first"
    assert checkpoints.load(stored(study, second)) == b"second"
    study.tell(second, 0.5)
    checkpoints.clean(study, stored(study, second))
    assert not list(folder.iterdir())
    checkpoints.clean(study, stored(study, second))


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_failed_candidates_and_pruned_trials_need_no_state(study, checkpoints, folder, state):
    trial = study.ask()
    trial.report(0.5, 1)
    save(checkpoints, trial, 1, b"state")
    if state == TrialState.FAIL:
        mark_failure(trial, CANDIDATE, "the loss is not finite")
    study.tell(trial, state=state)
    checkpoints.clean(study, stored(study, trial))
    assert not list(folder.iterdir())


def complete(study, checkpoints, value, cost=None, **attrs):
    """A finished trial with weights. Returns its number."""
    trial = study.ask()
    for name, attr in attrs.items():
        trial.set_user_attr(name, attr)
    if cost is not None:
        trial.set_user_attr("multiply_adds", cost)
    save(checkpoints, trial, 1, f"weights {trial.number}".encode())
    study.tell(trial, value)
    return trial.number


def kept(study, checkpoints):
    return [trial.number for trial in study.trials if checkpoints.exists(trial)]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(None, []), ("best:2", [2, 3]), ("hull", [0, 3]), ("all", [0, 1, 2, 3])],
)
def test_keep_says_whose_weights_stay(study, folder, keep, expected):
    checkpoints = Checkpoints(open_artifacts(folder), study._storage, "kept", keep=keep)
    for value, cost in ((0.5, 1), (0.6, 9), (0.8, 9), (0.9, 4)):
        number = complete(study, checkpoints, value, cost)
        checkpoints.clean(study, study.trials[number])
    assert kept(study, checkpoints) == expected
    gone = without_weights(study._storage, study._study_id)
    assert sorted(gone) == ([] if keep is None else sorted({0, 1, 2, 3} - set(expected)))


def test_parents_of_trials_that_are_not_done_stay(study, checkpoints):
    parents = [complete(study, checkpoints, 0.1) for _ in range(4)]
    running = study.ask()
    running.set_user_attr("parent", parents[0])
    lost = study.ask()
    lost.set_user_attr("parent", parents[1])
    lose(study, lost)
    study.enqueue_trial({"parent": parents[2]})
    Claim(0, {"x": 1}).write(study._storage, stored(study, running))
    checkpoints.clean(study)
    assert kept(study, checkpoints) == parents[:3]
    study.tell(running, 0.5)
    checkpoints.clean(study)
    assert kept(study, checkpoints) == parents[1:3]


def test_the_parent_that_a_lost_trial_had_stays_for_whoever_goes_on_with_it(study, checkpoints):
    parents = [complete(study, checkpoints, 0.1) for _ in range(3)]
    study.enqueue_trial({"parent": parents[2]})
    lost = study.ask()
    lost.suggest_int("parent", -1, 9)
    lost.set_user_attr("parent", parents[1])  # The other one had no weights.
    lose(study, lost)
    study.enqueue_trial({"parent": parents[2]}, user_attrs={CONTINUES: lost.number})
    checkpoints.clean(study)
    assert kept(study, checkpoints) == parents[1:]


class Choosing(optuna.samplers.RandomSampler):
    """Another worker's trial chooses trial 0 after the trials were read."""

    inherits = True

    def weights_needed(self, study):
        if len(study.trials) == 2:
            trial = study.ask()
            trial.set_user_attr("parent", 0)
            Claim(0, {"x": 1}).write(study._storage, stored(study, trial))
        return ()


def test_a_parent_chosen_while_somebody_tidies_up_stays(study, checkpoints):
    numbers = [complete(study, checkpoints, 0.1) for _ in range(2)]
    study.sampler = Choosing()
    checkpoints.clean(study)
    assert kept(study, checkpoints) == [0]
    assert without_weights(study._storage, study._study_id).keys() == set(numbers)


def test_a_trial_whose_parent_may_yet_be_replaced_is_deciding(study):
    trial = study.ask()
    trial.suggest_int("parent", -1, 9)
    assert deciding(stored(study, trial))
    trial.set_user_attr("parent", 0)
    assert not deciding(stored(study, trial))


@pytest.mark.parametrize("parent", [-1, 99])
def test_a_parent_that_does_not_exist_is_nobody(study, folder, parent):
    checkpoints = Checkpoints(open_artifacts(folder), study._storage, "kept", keep="best:1")
    running = study.ask()
    Claim(0, {"parent": parent}).write(study._storage, stored(study, running))
    complete(study, checkpoints, 0.9)
    complete(study, checkpoints, 0.1)
    checkpoints.clean(study)
    assert kept(study, checkpoints) == [1]
    assert checkpoints.find_lost(study) == []


def test_what_is_gone_is_said_once_whoever_finds_it(study, checkpoints, folder, monkeypatch):
    complete(study, checkpoints, 0.5)
    for writer in ("one", "another"):
        monkeypatch.setattr("optnas.trials.lineage._WRITER", writer)
        Checkpoints(open_artifacts(folder), study._storage, "kept", keep="best:1").clean(study)
        assert study.user_attrs == {}
    complete(study, checkpoints, 0.6)
    for writer in ("one", "another"):
        monkeypatch.setattr("optnas.trials.lineage._WRITER", writer)
        Checkpoints(open_artifacts(folder), study._storage, "kept", keep="best:1").clean(study)
        assert list(study.user_attrs) == [f"optnas:no_weights:one-{os.getpid()}"]


def test_what_a_trial_may_be_choosing_stays_for_a_while(study, checkpoints, monkeypatch):
    complete(study, checkpoints, 0.1)
    study.ask()  # Has not decided.
    checkpoints.clean(study)
    assert kept(study, checkpoints) == [0]
    monkeypatch.setattr("optnas.storage.checkpoints.GRACE", 0.0)
    checkpoints.clean(study)
    assert kept(study, checkpoints) == []


def test_lost_weights_are_found_and_said_once(study, folder):
    checkpoints = Checkpoints(open_artifacts(folder), study._storage, "kept", keep="all")
    for _ in range(3):
        complete(study, checkpoints, 0.5)
    (folder / study.trials[1].system_attrs["optnas:checkpoint"]["id"]).unlink()
    assert checkpoints.find_lost(study) == [1]
    assert checkpoints.find_lost(study) == []
    assert without_weights(study._storage, study._study_id) == {1: "missing"}


def test_a_store_that_cannot_be_read_says_nothing_of_what_is_lost(study, folder):
    checkpoints = Checkpoints(open_artifacts(folder), study._storage, "kept", keep="all")
    complete(study, checkpoints, 0.5)
    path = next(folder.iterdir())
    path.unlink()
    path.mkdir()  # What nobody can read, root neither.
    with pytest.raises(RunError, match=r"artifacts cannot be read.*make them readable"):
        checkpoints.find_lost(study)
    assert without_weights(study._storage, study._study_id) == {}


def test_the_space_used_is_that_of_the_study(study, checkpoints, folder):
    other = optuna.create_study(study_name="other", storage=study._storage)
    theirs = Checkpoints(open_artifacts(folder), study._storage, "other")
    save(theirs, other.ask(), 1, b"12345")
    assert checkpoints.used_bytes() == 0
    save(checkpoints, study.ask(), 1, b"123")
    assert (checkpoints.used_bytes(), theirs.used_bytes()) == (3, 5)


def test_ancestors_are_nearest_first(study):
    lost = lose(study, study.ask())
    again = lose(study, adopt(study, lost))
    trial = adopt(study, again)
    assert [t.number for t in ancestors(study.trials, trial)] == [1, 0]
    assert [t.number for t in ancestors(study.trials, stored(study, trial))] == [1, 0]
    assert list(ancestors(study.trials, lost)) == []


def test_the_folder_is_made_with_its_parents(tmp_path):
    open_artifacts(tmp_path / "a" / "b")
    assert os.path.isdir(tmp_path / "a" / "b")
