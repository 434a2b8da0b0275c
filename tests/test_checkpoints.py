"""Training state by trial: whole and intact, or not there."""

import os
import subprocess
import sys
import textwrap

import optuna
import pytest
from optuna.trial import TrialState

from optnas.checkpoints import Checkpoints, ancestors
from optnas.storage import open_artifacts
from optnas.trials import CANDIDATE, CONTINUES, LOST, mark_failure


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
    assert checkpoints.load(stored(study, trial)) is None
    for epoch, state in ((1, b"first"), (2, b"second"), (2, b"second again")):
        save(checkpoints, trial, epoch, state)
        assert checkpoints.load(stored(study, trial)) == state
        assert len(list(folder.iterdir())) == 1


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
    with pytest.warns(UserWarning, match="checkpoint of trial 0 is damaged"):
        assert checkpoints.load(stored(study, trial)) is None


def test_a_missing_state_is_no_state(study, checkpoints, folder):
    trial = study.ask()
    save(checkpoints, trial, 1, b"state")
    next(folder.iterdir()).unlink()
    with pytest.warns(UserWarning, match="checkpoint of trial 0"):
        assert checkpoints.load(stored(study, trial)) is None


def test_a_full_disk_leaves_the_state_before(study, checkpoints, folder, monkeypatch):
    trial = study.ask()
    save(checkpoints, trial, 1, b"first")

    def write(name, content):
        (folder / name).write_bytes(content.read(3))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._store, "write", write)
    with pytest.warns(UserWarning, match="No space left"):
        save(checkpoints, trial, 2, b"second")
    assert checkpoints.load(stored(study, trial)) == b"first"
    assert len(list(folder.iterdir())) == 1


def test_a_write_that_was_cut_off_leaves_the_state_before(study, tmp_path):
    """Killed after the bytes, before the mark."""
    url = f"sqlite:///{tmp_path}/study.db"
    code = f"""
        import os, signal
        import optuna
        from optnas.checkpoints import Checkpoints
        from optnas.storage import open_artifacts
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
