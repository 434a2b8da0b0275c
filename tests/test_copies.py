"""Copies of one study go on beside each other, and delete nothing of each other's."""

import contextlib
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from optnas.config.file import study_from_dict
from optnas.doctor.examination import diagnose
from optnas.storage.artifacts import open_artifacts
from optnas.study.opening import OpenStudy, create_or_open
from optnas.study.record import RECORD
from optnas.trials.attributes import CHECKPOINT


def opened(path: Path, scheme: str = "sqlite") -> OpenStudy:
    keys = {"study": "s", "space": "cell", "data": "digits", "storage": f"{scheme}:///{path}"}
    config = study_from_dict({**keys, "sampler": "random"}, path.parent)
    return create_or_open(config, in_channels=1, classes=10)


def identity(handle: OpenStudy) -> str:
    return str(handle.study.user_attrs[RECORD]["id"])


def copy_of(path: Path, other: Path) -> Path:
    """What `cp` makes of a database that nobody has open."""
    if path.suffix == ".log":
        return Path(shutil.copy(path, other))
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(other)) as target,
    ):
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        source.backup(target)
    return other


@pytest.mark.parametrize(("scheme", "ending"), [("sqlite", "db"), ("journal", "log")])
def test_a_copy_gets_an_identity_of_its_own(tmp_path, scheme, ending):
    first = opened(tmp_path / f"a.{ending}", scheme)
    other = copy_of(tmp_path / f"a.{ending}", tmp_path / f"b.{ending}")
    with pytest.warns(UserWarning, match="is a copy of .*a"):
        copied = opened(other, scheme)
    assert identity(copied) != identity(first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert identity(opened(other, scheme)) == identity(copied)
        assert identity(opened(tmp_path / f"a.{ending}", scheme)) == identity(first)


def test_a_study_that_was_moved_keeps_its_identity(tmp_path):
    first = opened(tmp_path / "a.db")
    moved = copy_of(tmp_path / "a.db", tmp_path / "b.db")
    (tmp_path / "a.db").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert identity(opened(moved)) == identity(first)


def test_a_copy_reads_the_training_states_and_deletes_none(tmp_path):
    first = opened(tmp_path / "a.db")
    store = open_artifacts(first.config.artifacts)
    states = first.checkpoints(store)
    first.study.add_trial(create_trial(state=TrialState.RUNNING))
    states.save(first.study.trials[0]._trial_id, 0, 1, b"weights")
    first.study.tell(0, 0.5)
    other = copy_of(tmp_path / "a.db", tmp_path / "b.db")
    trial = first.study.add_trial(create_trial(state=TrialState.RUNNING))
    assert trial is None
    states.save(first.study.trials[1]._trial_id, 1, 1, b"later")
    _, findings = diagnose(f"sqlite:///{other}", fix=True)
    assert "orphans" not in {each.finding.kind for each in findings}
    with pytest.warns(UserWarning, match="is a copy"):
        copied = opened(other)
    mine = copied.checkpoints(open_artifacts(copied.config.artifacts))
    assert mine.load(copied.study.trials[0]) == b"weights"
    mine.clean(copied.study)
    assert mine.orphans(copied.study) == {}
    assert states.load(first.study.trials[0]) == b"weights"
    assert states.load(first.study.trials[1]) == b"later"
    assert first.study.trials[1].system_attrs[CHECKPOINT]["bytes"] == 5
