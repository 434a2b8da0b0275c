"""One worker's loop: trials that others took, lost ones, budgets, and draws of stock samplers."""

import datetime
import errno
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from optnas.config.file import study_from_dict
from optnas.config.keys import Budget
from optnas.errors import RunError
from optnas.running.loop import UNLEASED, Loop
from optnas.running.signals import Signals
from optnas.seeds import derive_seed, reseed
from optnas.spaces import CellSpace, NasBench201Space
from optnas.study.budget import has_room, may_go_on, used_budget
from optnas.study.opening import OpenStudy, create_or_open
from optnas.trials.attributes import CONTINUES, FAILURE, FAILURE_REASON, LEASE, MACHINE
from optnas.trials.failures import fail_as_lost, is_lost

SPACE = NasBench201Space()
TAKEN = "was given to another worker while this one was suspended; its result is dropped"


def opened(folder: Path, **changes: Any) -> OpenStudy:
    """A study whose objective does not matter."""
    mapping = {
        "study": "loop",
        "storage": f"sqlite:///{folder}/loop.db",
        "space": "nasbench201",
        "sampler": "random",
        "objective": {"name": "napping:Nap", "seconds": 0},
    }
    config = study_from_dict(mapping | changes, Path(__file__).parents[1] / "benchmarks")
    return create_or_open(config, in_channels=3, classes=10)


def loop(study: OpenStudy, objective: Callable[[Trial], Any]) -> list[FrozenTrial]:
    """Run the loop to its end; the finished trials it told of."""
    finished: list[FrozenTrial] = []
    Loop(study, objective, Signals(lambda: None, ()), finished.append).run()
    return finished


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """What the machine does wrong ends a run at once."""
    monkeypatch.setattr("optnas.running.loop.PATIENCE", 0)


def value(trial: Trial) -> float:
    operations = SPACE.suggest(trial).operations
    return sum(map(len, operations)) / 100


def lose(trial: Trial) -> float:
    raise OSError(f"no disk for {value(trial)}")


def take(trial: Trial) -> None:
    """What another worker does that takes the trial's worker for dead."""
    fail_as_lost(trial.storage, trial.storage.get_trial(trial._trial_id), "a test")


def test_a_trial_whose_end_could_not_be_stored_is_continued_by_the_same_thread(tmp_path):
    """Its worker lives, so that nobody else would take it for lost."""
    study = opened(
        tmp_path, sampler={"name": "econas", "initial": 4}, space="cell", budget={"trials": 2}
    )
    away = StorageInternalError("away")
    with mock.patch.object(study.study, "tell", side_effect=away), pytest.raises(RunError):
        loop(study, lambda trial: CellSpace().suggest(trial) and 0.5)
    assert [t.state for t in study.study.trials] == [TrialState.RUNNING]
    loop(study, lambda trial: CellSpace().suggest(trial) and 0.5)
    lost, *others = study.study.trials
    assert is_lost(lost)
    assert lost.user_attrs[FAILURE_REASON].startswith(MACHINE)
    assert others[0].params == lost.params
    assert sum(t.state == TrialState.COMPLETE for t in others) == 2


def fail_with(error: BaseException) -> Callable[[Trial], float]:
    def end(trial: Trial) -> float:
        raise error

    return end


ENDS: dict[str, Callable[[Trial], Any]] = {
    "returns": lambda trial: 1.0,
    "reports": lambda trial: trial.report(1.0, 1),
    "writes": lambda trial: trial.set_user_attr("written", 1),
    "suggests": lambda trial: trial.suggest_int("later", 0, 9),
    "fails": lambda trial: float("nan"),
    "raises": fail_with(ZeroDivisionError()),
    "is interrupted": fail_with(KeyboardInterrupt()),
    "loses its disk": fail_with(OSError(errno.ENOSPC, "full")),
    "is pruned": fail_with(optuna.TrialPruned()),
}


@pytest.mark.parametrize("sampler", ["random", "econas"])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_trial_that_another_worker_took_is_dropped(tmp_path, end, sampler):
    study = opened(tmp_path, sampler=sampler, budget={"trials": 2})

    def objective(trial: Trial) -> Any:
        result = value(trial)
        if trial.number == 0:
            take(trial)
            result = end(trial)
        return result

    with pytest.warns(UserWarning, match=f"Trial 0 {TAKEN}") as caught:
        finished = loop(study, objective)
    assert len(caught) == 1
    assert [trial.number for trial in finished] == [1, 2]
    trials = study.study.trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[0].user_attrs[FAILURE_REASON] == "a test"
    assert trials[1].user_attrs[CONTINUES] == 0
    assert trials[1].params == trials[0].params


@pytest.mark.parametrize("hook", ["before_trial", "after_trial"])
def test_a_trial_that_is_taken_within_the_sampler_is_dropped(tmp_path, monkeypatch, hook):
    study = opened(tmp_path, sampler="econas", budget={"trials": 1})
    original = getattr(study.study.sampler, hook)

    def suspended(the_study: optuna.Study, trial: FrozenTrial, *rest: Any) -> None:
        if trial.number == 0:
            fail_as_lost(the_study._storage, trial, "a test")
        original(the_study, trial, *rest)

    monkeypatch.setattr(study.study.sampler, hook, suspended)
    with pytest.warns(UserWarning, match=TAKEN):
        assert [trial.number for trial in loop(study, value)] == [1]


def test_samplers_can_stop_the_study_and_nobody_else_is_left_in_a_loop(tmp_path):
    study = opened(tmp_path, sampler="brute_force", space="nasbench201", budget={"trials": 3})

    def stop(trial: Trial) -> float:
        study.study.stop()
        return value(trial)

    assert len(loop(study, stop)) == 1
    with pytest.raises(RuntimeError, match="supposed to be invoked inside"):
        study.study.stop()


# What goes wrong.


def test_a_machine_that_fails_loses_the_trial_and_ends_the_run(tmp_path):
    study = opened(tmp_path, budget={"trials": 1})

    def objective(trial: Trial) -> float:
        result = value(trial)
        if trial.number == 0:
            raise OSError(errno.EIO, "Input/output error", "images.bin")
        return result

    with pytest.raises(RunError, match=r"could not go on .* OSError: .*images.bin"):
        loop(study, objective)
    assert study.study.trials[0].user_attrs[FAILURE] == "lost"
    assert [trial.params for trial in loop(study, objective)] == [study.study.trials[0].params]


@pytest.mark.parametrize("sampler", ["random", "econas"])
def test_what_the_machine_loses_is_never_a_failed_candidate(tmp_path, sampler):
    study = opened(tmp_path, sampler=sampler, max_retries=2, budget={"trials": 2})

    def objective(trial: Trial) -> float:
        result = value(trial)
        if trial.number < 3:
            raise OSError("a test")
        return result

    for _ in range(3):
        with pytest.raises(RunError):
            loop(study, objective)
    trials = study.study.trials
    assert [t.user_attrs[FAILURE] for t in trials] == ["lost"] * 3
    assert trials[2].user_attrs[FAILURE_REASON] == "not the candidate's: OSError: a test"
    # However often: the next trial goes on with it.
    assert [trial.number for trial in loop(study, objective)] == [3, 4]
    assert study.study.trials[3].params == trials[0].params
    assert used_budget(study.study).trials == 2


@pytest.mark.parametrize("sampler", ["random", "econas"])
def test_a_dead_workers_candidate_fails_with_a_reason_after_the_last_retry(tmp_path, sampler):
    study = opened(tmp_path, sampler=sampler, max_retries=1, budget={"trials": 2})
    gone = subprocess.Popen(["true"])
    gone.wait()

    def die(trial: Trial) -> float:
        value(trial)
        lease = trial.storage.get_trial_system_attrs(trial._trial_id)[LEASE]
        trial.storage.set_trial_system_attr(trial._trial_id, LEASE, lease | {"pid": gone.pid})
        raise SystemExit if trial.number < 2 else ZeroDivisionError

    for _ in range(2):
        with pytest.raises(SystemExit):
            loop(study, die)
    loop(study, value)
    trials = study.study.trials
    assert trials[0].user_attrs[FAILURE] == "lost"
    assert trials[1].user_attrs[FAILURE] == "candidate"
    assert trials[1].user_attrs[FAILURE_REASON].startswith("lost 2 times; the last time: the wor")
    assert len(trials) == 3


@pytest.mark.parametrize("bad", [None, "much", float("nan"), [1.0, 2.0]])
def test_what_is_no_number_is_a_failed_candidate(tmp_path, bad):
    study = opened(tmp_path, budget={"trials": 1})
    [trial] = loop(study, lambda trial: (value(trial), bad)[1])
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs[FAILURE] == "candidate"
    assert "not a number" in trial.user_attrs[FAILURE_REASON]


@pytest.mark.filterwarnings("ignore:trial . failed")
def test_an_error_of_the_first_candidates_is_recorded_and_raised(tmp_path):
    study = opened(tmp_path, budget={"trials": 9})
    with pytest.raises(ZeroDivisionError):
        loop(study, lambda trial: value(trial) / 0)
    reasons = [t.user_attrs[FAILURE_REASON] for t in study.study.trials]
    assert reasons == ["ZeroDivisionError('float division by zero')"] * 3
    assert used_budget(study.study).trials == 3


def test_an_error_of_one_candidate_is_its_own(tmp_path):
    study = opened(tmp_path, budget={"trials": 4})

    def objective(trial: Trial) -> float:
        return value(trial) / (trial.number != 1)

    with pytest.warns(UserWarning, match="trial 1 failed: ZeroDivisionError: .*test_loop"):
        loop(study, objective)
    states = [trial.state.name for trial in study.study.trials]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_machine_that_recovers_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.running.loop.PATIENCE", 30)
    study = opened(tmp_path, budget={"trials": 1})

    def objective(trial: Trial) -> float:
        result = value(trial)
        if trial.number == 0:
            raise sqlite3.OperationalError("database is locked")
        return result

    with pytest.warns(UserWarning, match="could not go on: OperationalError: .* trying again"):
        loop(study, objective)
    first, second = study.study.trials
    assert (first.user_attrs[FAILURE], second.params) == ("lost", first.params)


def test_a_machine_that_does_not_recover_leaves_few_trials_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.running.loop.PATIENCE", 0.2)
    study = opened(tmp_path, budget={"trials": 1})

    def objective(trial: Trial) -> float:
        value(trial)
        raise OSError("Cannot read the image 7.png")

    with (
        pytest.warns(UserWarning, match="could not go on"),
        pytest.raises(RunError, match=r"7\.png"),
    ):
        loop(study, objective)
    trials = study.study.trials
    assert len(trials) == 3
    assert {t.user_attrs[FAILURE] for t in trials if t.state.is_finished()} == {"lost"}


def test_who_ends_a_run_that_waits_is_answered_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.running.loop.PATIENCE", 6000.0)
    study = opened(tmp_path, budget={"trials": 1})
    signals = Signals(lambda: None, ())

    def objective(trial: Trial) -> float:
        value(trial)
        threading.Timer(0.2, setattr, (signals, "ending", "interrupted")).start()
        raise OSError("Cannot read the image 7.png")

    with pytest.warns(UserWarning, match="could not go on"):
        Loop(study, objective, signals, lambda _: None).run()
    assert len(study.study.trials) == 1


# What others left.


@pytest.mark.parametrize("url", ["sqlite:///{}/loop.db", "journal:///{}/loop.log"])
@pytest.mark.parametrize("harm", ["deleted", "moved", "replaced"])
def test_a_storage_that_is_gone_from_its_place_ends_the_run(tmp_path, monkeypatch, url, harm):
    """What is written to a deleted file is lost, and nothing says so."""
    monkeypatch.setattr("optnas.running.loop.PAUSES", ())
    study = opened(tmp_path, storage=url.format(tmp_path), budget={"trials": 5})
    path = tmp_path / url.rpartition("/")[2]
    finished = []

    def objective(trial: Trial) -> float:
        finished.append(trial.number)
        if harm == "replaced":
            shutil.copy(path, tmp_path / "other")
            (tmp_path / "other").replace(path)
        elif harm == "moved":
            path.rename(tmp_path / "elsewhere")
        else:
            path.unlink()
        return value(trial)

    words = "another file is in its place" if harm == "replaced" else "No such file"
    with pytest.raises(RunError, match=words):
        loop(study, objective)
    assert finished == [0]


def test_a_trial_that_never_got_a_lease_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("optnas.running.loop.UNLEASED", datetime.timedelta(seconds=1))
    study = opened(tmp_path, budget={"trials": 1})
    storage = study.study._storage
    old = create_trial(state=TrialState.RUNNING)
    old.datetime_start = datetime.datetime.now() - 2 * UNLEASED
    storage.create_new_trial(study.study._study_id, template_trial=old)
    # Of a worker that may be about to write one: its place in the budget is waited for.
    storage.create_new_trial(study.study._study_id)
    loop(study, value)
    assert [t.state.name for t in study.study.trials] == ["FAIL", "FAIL", "COMPLETE"]


def test_a_lost_trial_that_several_workers_queue_runs_once(tmp_path):
    study = opened(tmp_path, budget={"trials": 2})
    with pytest.raises(RunError):
        loop(study, lose)
    params = study.study.trials[0].params
    for _ in range(3):
        study.study.enqueue_trial(params, user_attrs={CONTINUES: 0})
    loop(study, value)
    trials = study.study.trials
    same = [t for t in trials[1:] if t.params == params]
    assert [t.number for t in same] == [1]
    assert [t.state.name for t in trials[1:]] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert used_budget(study.study).trials == 2


@pytest.mark.parametrize("sampler", ["random", "econas"])
def test_peoples_own_candidates_are_tried_again(tmp_path, sampler):
    study = opened(tmp_path, sampler=sampler, budget={"trials": 2})
    own = {f"edge_{i}_{j}": "none" for i in range(1, 4) for j in range(i)}
    study.study.enqueue_trial(own)
    with pytest.raises(RunError):
        loop(study, lose)
    loop(study, value)
    trials = study.study.trials
    assert [t.params for t in trials[:2]] == [own, own]
    assert trials[1].user_attrs[CONTINUES] == 0
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_peoples_own_candidates_wait_for_a_budget(tmp_path):
    study = opened(tmp_path, budget={"trials": 2})
    for number in range(4):
        study.study.enqueue_trial({"edge_1_0": "none"}, user_attrs={"mine": number})
    loop(study, value)
    assert used_budget(study.study).trials == 2
    assert [t.state.name for t in study.study.trials] == ["COMPLETE"] * 2 + ["WAITING"] * 2
    loop(opened(tmp_path, budget={"trials": 5}), value)
    trials = study.study.trials
    assert [t.user_attrs.get("mine") for t in trials] == [0, 1, 2, 3, None]
    assert used_budget(study.study).trials == 5


@pytest.mark.parametrize("sampler", ["random", "econas"])
@pytest.mark.parametrize("value_", ["no operation", 1, None, 10**30, [1]])
def test_a_queued_candidate_that_the_space_does_not_have_fails_alone(tmp_path, sampler, value_):
    study = opened(tmp_path, sampler=sampler, budget={"trials": 1})
    study.study.enqueue_trial({"edge_1_0": value_})
    with pytest.warns(UserWarning, match="queued with edge_1_0 .* expected a value of Categ"):
        loop(study, value)
    assert [t.state.name for t in study.study.trials] == ["FAIL", "COMPLETE"]
    assert study.study.trials[0].params == {}


def test_a_number_out_of_range_is_never_stored(tmp_path):
    """Nobody could read the study afterwards."""
    space: dict[str, Any] = {"name": "chain", "depth": [2, 3], "width": [4, 8]}
    study = opened(tmp_path, sampler="random", space=space, budget={"trials": 1})
    study.study.enqueue_trial({"depth": 99})
    with pytest.warns(UserWarning, match="queued with depth 99, expected a value of IntDist"):
        loop(study, lambda trial: study.config.search_space.suggest(trial) and 0.5)
    trials = opened(tmp_path, sampler="random", space=space).study.trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"]


# Budgets.


@pytest.mark.parametrize("sampler", ["random", "econas"])
@pytest.mark.parametrize("queued", [0, 3])
def test_a_budget_of_trials_is_exact_for_any_number_of_workers(tmp_path, sampler, queued):
    changes = {"sampler": sampler, "storage": f"journal:///{tmp_path}/loop.log"}
    first = opened(tmp_path, **changes, budget={"trials": 9}).study
    for number in range(queued):
        first.enqueue_trial({"edge_1_0": "none"}, user_attrs={"mine": number})
    together = threading.Barrier(4)

    def slow(trial: Trial) -> float:
        time.sleep(0.01)
        return value(trial)

    def work() -> None:
        study = opened(tmp_path, **changes, budget={"trials": 9})
        together.wait()
        loop(study, slow)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [t.state for t in first.trials if t.params]
    assert states == [TrialState.COMPLETE] * 9
    assert sum("mine" in t.user_attrs for t in first.trials) == queued
    assert all(t.state.is_finished() for t in first.trials)


def finished(number: int, *, epochs: int = 0, lost: bool = False, **attrs: Any) -> FrozenTrial:
    trial = optuna.trial.create_trial(
        state=TrialState.FAIL if lost else TrialState.COMPLETE,
        value=None if lost else 1.0,
        params={"x": 1},
        distributions={"x": optuna.distributions.IntDistribution(0, 9)},
        user_attrs=attrs,
        intermediate_values=dict.fromkeys(range(1, epochs + 1), 0.5),
    )
    trial.number = number
    return trial


def unfinished(number: int, state: TrialState = TrialState.RUNNING, **attrs: Any) -> FrozenTrial:
    trial = optuna.trial.create_trial(state=state, user_attrs=attrs)
    trial.number = number
    return trial


@pytest.mark.parametrize(
    ("trials", "number", "room"),
    [
        ([], 0, True),
        ([finished(0), finished(1)], 2, True),
        ([finished(0), finished(1), finished(2)], 3, False),
        # Of those that start at once, the lowest come first.
        ([finished(0), unfinished(1), unfinished(2), unfinished(3)], 2, True),
        ([finished(0), unfinished(1), unfinished(2), unfinished(3)], 3, False),
        # What waits in the queue has its place; what was lost or never began has none.
        ([unfinished(0, TrialState.WAITING), finished(1), finished(2)], 3, False),
        ([unfinished(0, TrialState.WAITING), finished(1), finished(2)], 0, True),
        ([finished(0, lost=True), unfinished(1, TrialState.PRUNED), finished(2)], 3, True),
        # Started late from the queue, when others have used the budget.
        ([unfinished(0), finished(1), finished(2), finished(3)], 0, False),
    ],
)
def test_room_is_decided_by_number(trials, number, room):
    assert has_room(Budget(trials=3), trials, number) is room
    assert has_room(Budget(), trials, number)


def test_epochs_of_a_candidate_count_once_however_often_it_was_continued():
    study = optuna.create_study()
    for trial in (
        finished(0, epochs=5, lost=True, failure="lost", train_seconds=50.0),
        finished(1, epochs=2, lost=True, failure="lost", train_seconds=20.0),
    ):
        study.add_trial(trial)
    assert (used_budget(study).epochs, used_budget(study).hours) == (7, 70 / 3600)
    # Its worker loads the checkpoint: the epochs are not reported again yet.
    study.add_trial(unfinished(2, continues=0))
    assert (used_budget(study).epochs, used_budget(study).hours) == (7, 70 / 3600)
    study.add_trial(unfinished(3, TrialState.WAITING, continues=1))
    assert used_budget(study).epochs == 7
    study.add_trial(finished(4, epochs=6, continues=1))
    assert used_budget(study).epochs == 11
    assert may_go_on(Budget(epochs=12), study.trials)
    assert not may_go_on(Budget(epochs=11), study.trials)


# Stock samplers.

STOCK: dict[str, Callable[[], Any]] = {
    "random": lambda: optuna.samplers.RandomSampler(seed=1),
    "tpe": lambda: optuna.samplers.TPESampler(seed=1, n_startup_trials=4),
    "multivariate": lambda: optuna.samplers.TPESampler(
        seed=1, n_startup_trials=4, multivariate=True, group=True
    ),
    "nsgaii": lambda: optuna.samplers.NSGAIISampler(seed=1, population_size=4),
    "brute_force": lambda: optuna.samplers.BruteForceSampler(seed=1),
}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("make", STOCK.values(), ids=STOCK)
def test_draws_depend_on_the_trials_number_alone(make):
    """So a search that goes on in a new process goes on as it would have."""

    def search(*, restarts: bool) -> list[Any]:
        study = optuna.create_study(sampler=make(), direction="maximize")
        for number in range(12):
            if restarts:
                study.sampler = make()
            trial = study.ask()
            assert reseed(study.sampler, derive_seed(1, number))
            study._thread_local.in_optimize_loop = True
            study.tell(trial, value(trial))
        return [trial.params for trial in study.trials]

    assert search(restarts=False) == search(restarts=True)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii"])
def test_workers_that_start_at_once_draw_different_candidates(tmp_path, sampler):
    study = opened(tmp_path, sampler=sampler, space="cell", budget={"trials": 4})
    together = threading.Barrier(4)
    drawn = []

    def objective(trial: Trial) -> float:
        together.wait()
        drawn.append(CellSpace().suggest(trial))
        return 0.5

    def work() -> None:
        loop(opened(tmp_path, sampler=sampler, space="cell", budget={"trials": 4}), objective)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 4
    assert len(study.study.trials) >= 4


class Hidden(optuna.samplers.RandomSampler):
    """Keeps its random state where nobody sees it."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self.calls = 0
        del self._rng

    def sample_independent(self, study, trial, param_name, param_distribution):
        return 1

    def reseed_rng(self) -> None:
        self.calls += 1


def test_samplers_with_a_hidden_random_state_are_seeded_as_optuna_does(tmp_path):
    study = opened(tmp_path, budget={"trials": 2})
    study.study.sampler = Hidden()
    loop(study, lambda trial: trial.suggest_int("x", 0, 9) / 9)
    assert study.study.sampler.calls == 0
    again = opened(tmp_path, budget={"trials": 4})
    again.study.sampler = Hidden()
    loop(again, lambda trial: trial.suggest_int("x", 0, 9) / 9)
    assert again.study.sampler.calls == 1


# Signals.


class Dropping:
    """Interrupted while it is collected: Python drops what is raised then."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_an_interruption_that_python_drops_is_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("optnas.running.signals.AGAIN", 0.05)
    study = opened(tmp_path)
    signals = Signals(lambda: None)

    def objective(trial: Trial) -> float:
        value(trial)
        Dropping()
        while True:  # An epoch that does not end.
            time.sleep(0.01)

    hooks = [sys.unraisablehook, signal.getsignal(signal.SIGALRM)]
    with pytest.raises(KeyboardInterrupt), signals:
        Loop(study, objective, signals, lambda trial: None).run()
    assert hooks == [sys.unraisablehook, signal.getsignal(signal.SIGALRM)]
    assert signals.ending == "terminated"
    assert study.study.trials[0].user_attrs[FAILURE_REASON] == "interrupted"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [StorageInternalError("a commit"), OSError("a pipe")])
def test_what_an_interruption_breaks_off_is_no_failure_of_the_candidate(tmp_path, error):
    study = opened(tmp_path)
    signals = Signals(lambda: None)

    def objective(trial: Trial) -> float:
        value(trial)
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise error from None
        return 1.0

    with pytest.raises(KeyboardInterrupt), signals:
        Loop(study, objective, signals, lambda trial: None).run()
    (trial,) = study.study.trials
    assert is_lost(trial)
    assert trial.user_attrs[FAILURE_REASON] == "interrupted"


def test_what_does_not_heed_sigterm_is_interrupted_wherever_it_is(monkeypatch):
    monkeypatch.setattr("optnas.running.signals.AGAIN", 0.05)

    def wait_for_a_storage() -> None:
        with Signals(lambda: None, patience=0.2):
            signal.raise_signal(signal.SIGTERM)
            while True:
                time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        wait_for_a_storage()
