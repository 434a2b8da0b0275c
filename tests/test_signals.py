"""Interruptions: what is being stored is stored, and no lock of a journal is left behind."""

import signal
import time

import optuna
import pytest
from optuna.storages.journal import JournalFileSymlinkLock

from optnas.running.signals import Signals
from optnas.storage.opening import open_storage
from optnas.storage.transactions import LONGEST, transaction

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signals of POSIX")


@pytest.fixture
def trial(tmp_path):
    storage = open_storage(f"journal:///{tmp_path}/study.log", create=True)
    return optuna.create_study(storage=storage, study_name="study").ask()


def is_interrupted(signals, what):
    try:
        with signals.may_interrupt():
            what()
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", ["acquire", "release"])
def test_a_signal_while_a_journal_is_locked_waits_until_it_is_not(
    step, number, trial, tmp_path, monkeypatch
):
    """The lock is taken and left in Python: a signal comes to be handled behind each step."""
    done = getattr(JournalFileSymlinkLock, step)

    def press(lock):
        result = done(lock)
        if not signals.ending:
            signal.raise_signal(number)
        return result

    def report():
        monkeypatch.setattr(JournalFileSymlinkLock, step, press)
        trial.report(0.5, 1)

    signals = Signals(lambda: None)
    with signals:
        assert is_interrupted(signals, report)
    assert [path.name for path in tmp_path.iterdir()] == ["study.log"]  # No lock.
    (stored,) = trial.study.get_trials()
    assert stored.intermediate_values == {1: 0.5}


def test_what_waits_for_somebody_is_interrupted():
    seen = []

    @transaction()
    def wait():
        time.sleep(LONGEST)
        signal.raise_signal(signal.SIGINT)
        seen.append("the rest")

    signals = Signals(lambda: None)
    with signals:
        assert is_interrupted(signals, wait)
    assert not seen


def test_a_transaction_that_fails_while_it_is_interrupted_is_an_interruption():
    @transaction()
    def fail():
        signal.raise_signal(signal.SIGINT)
        raise OSError("no answer")

    signals = Signals(lambda: None)
    with signals:
        assert is_interrupted(signals, fail)
    with transaction():  # The next one is not.
        pass
