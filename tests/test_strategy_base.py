"""Claims, ticket order, leases, adoption, waiting and failures, on the replay base."""

import dataclasses
import math
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.testing.pytest_samplers import BasicSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.samplers import (
    Candidate,
    History,
    MacroMicroSampler,
    ReplaySampler,
    Step,
    StrategySampler,
)
from optnas.spaces import Architecture, ChainSpace, Space
from optnas.spaces.base import proposal
from optnas.trials.attributes import CLAIM, LEASE
from optnas.trials.claims import Claim
from optnas.trials.failures import mark_failure
from optnas.trials.leases import worker_is_dead

BEST = 7


@dataclasses.dataclass(frozen=True)
class Number(Architecture):
    x: int


class Line(Space[Number]):
    """Architectures that are numbers."""

    architecture_class = Number

    def suggest(self, trial):
        proposal(trial)
        return Number(trial.suggest_int("x", 0, 99))

    def to_params(self, architecture):
        return {"x": architecture.x}

    def from_params(self, params):
        return Number(params["x"])

    def distributions(self):
        return {"x": IntDistribution(0, 99)}

    def random(self, rng):
        return Number(int(rng.integers(100)))


class Climb(ReplaySampler[Number]):
    """Counts up while the value rises."""

    def search(self):
        best = (yield Candidate({"x": 0}, phase="climb")).value
        x = 0
        while x < 20:
            value = (yield Candidate({"x": x + 1}, phase="climb", guess=best + 1)).value
            if value <= best:
                break
            best, x = value, x + 1
        return Number(x)


class Draw(StrategySampler[Number]):
    """A population: draws ten numbers, each near the best so far."""

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        done = [t for t in history.trials if t.state == TrialState.COMPLETE]
        if history.claims >= 10:
            return Step.DONE if len(done) >= 10 else Step.WAIT
        best = max(done, key=lambda t: t.value).params["x"] if done else 50
        return Candidate({"x": int(np.clip(best + rng.integers(-9, 10), 0, 99))}, phase="draw")


def height(trial: optuna.Trial) -> float:
    x = Line().suggest(trial).x
    return float(x if x <= BEST else BEST - x)


def study_with(sampler: BaseSampler, **options: Any) -> optuna.Study:
    options = {"study_name": "line", "direction": "maximize", "load_if_exists": True} | options
    return optuna.create_study(sampler=sampler, **options)


def values(study: optuna.Study) -> list[tuple[int, float | None]]:
    return [(t.params["x"], t.value) for t in study.trials if t.state == TrialState.COMPLETE]


CLIMB = [(x, float(x)) for x in range(BEST + 1)] + [(BEST + 1, -1.0)]


def test_a_replay_stops_by_itself():
    study = study_with(Climb(Line()))
    study.optimize(height)
    assert values(study) == CLIMB
    assert study.sampler.found(study) == Number(BEST)
    assert len(study.trials) == len(CLIMB)


def test_asked_for_more_a_finished_search_adds_one_pruned_trial_at_most():
    study = study_with(Climb(Line()))
    study.optimize(height)
    assert study.sampler.is_finished(study)
    study.optimize(height, n_trials=5)
    assert [t.state for t in study.trials[len(CLIMB) :]] == [TrialState.PRUNED]


def test_under_ask_and_tell_the_end_is_told_without_an_error():
    study = study_with(Climb(Line()))
    while not study.sampler.is_finished(study):
        trial = study.ask()
        study.tell(trial, height(trial))
    assert values(study) == CLIMB


def test_state_is_in_the_storage_alone():
    storage = InMemoryStorage()
    while not study_with(Climb(Line()), storage=storage).sampler.is_finished(
        study_with(Climb(Line()), storage=storage)
    ):
        study_with(Climb(Line()), storage=storage).optimize(height, n_trials=1)
    assert values(study_with(Climb(Line()), storage=storage)) == CLIMB


def test_populations_draw_the_same_however_often_they_are_restarted():
    once = study_with(Draw(Line(), seed=3))
    once.optimize(height)
    storage = InMemoryStorage()
    for _ in range(10):
        study_with(Draw(Line(), seed=3), storage=storage).optimize(height, n_trials=1)
    assert values(once) == values(study_with(Draw(Line(), seed=3), storage=storage))
    other = study_with(Draw(Line(), seed=4))
    other.optimize(height)
    assert values(other) != values(once)


def test_without_a_seed_the_study_name_decides():
    first, second, other = (
        study_with(Draw(Line()), study_name=name) for name in ("one", "one", "two")
    )
    for study in (first, second, other):
        study.optimize(height)
    assert values(first) == values(second) != values(other)


@pytest.mark.parametrize("sampler", [Climb, Draw])
def test_threads_claim_every_candidate_once(sampler):
    def slow(trial):
        value = height(trial)
        time.sleep(0.01)
        return value

    study = study_with(sampler(Line(), seed=0))
    study.optimize(slow, n_jobs=4)
    indices = [c.index for t in study.trials if (c := Claim.of(t)) is not None]
    assert sorted(indices) == list(range(len(indices)))
    if sampler is Climb:
        xs = [x for x, _ in values(study)]
        assert len(set(xs)) == len(xs)
        assert study.sampler.found(study) == Number(BEST)


# Somebody's own trials.


def test_enqueued_trials_neither_stall_nor_corrupt_the_search():
    study = study_with(Climb(Line()))
    study.enqueue_trial({"x": 60})
    study.enqueue_trial({"x": 1})
    study.optimize(height)
    assert study.sampler.found(study) == Number(BEST)
    assert [x for x, _ in values(study)] == [60, 1, 0, *range(2, BEST + 2)]
    assert CLAIM not in study.trials[0].system_attrs


def test_added_trials_are_evidence():
    study = study_with(Climb(Line()))
    for x in range(3):
        study.add_trial(
            create_trial(
                params={"x": x}, distributions={"x": IntDistribution(0, 99)}, value=float(x)
            )
        )
    study.optimize(height)
    assert [x for x, _ in values(study)] == list(range(BEST + 2))


def test_enqueued_trials_are_completed_with_the_strategys_defaults():
    space = ChainSpace(depth=(2, 4), width=(4, 8))
    sampler = MacroMicroSampler(space, in_channels=1, classes=10, epochs=5)
    study = study_with(sampler)
    study.enqueue_trial({"depth": 3, "width": 6})
    study.optimize(
        lambda t: space.suggest(t).depth + 0 * t.suggest_int("epochs", 1, 99), n_trials=1
    )
    assert study.trials[0].params == {
        "depth": 3,
        "width": 6,
        "epochs": 5,
        **{f"op_{i}": "separable" for i in range(3)},
        **{f"kernel_{i}": 3 for i in range(3)},
    }


def test_a_forgotten_trial_is_skipped_after_patience():
    study = study_with(Climb(Line(), patience=0.2))
    forgotten = study.ask()
    study.optimize(height)
    assert study.sampler.found(study) == Number(BEST)
    assert study.trials[forgotten.number].state == TrialState.RUNNING


def test_a_waiting_trial_is_waited_for():
    """Patience is for the idle: a trial that waits for a result renews its lease."""
    study = study_with(Draw(Line(), patience=0.2, seed=0))
    release = threading.Event()

    def slow(trial):
        value = height(trial)
        if trial.number == 0:
            release.wait(1.0)
        return value

    study.optimize(slow, n_jobs=3)
    indices = [c.index for t in study.trials if (c := Claim.of(t)) is not None]
    assert sorted(indices) == list(range(10))


# Losing and failing.


def lose(study: optuna.Study, kind: str = "lost") -> optuna.Trial:
    trial = study.ask()
    height(trial)
    mark_failure(trial, kind, "a test")
    study.tell(trial, state=TrialState.FAIL)
    return trial


@pytest.mark.parametrize("sampler", [Climb, Draw])
def test_a_lost_candidate_is_adopted(sampler):
    undisturbed = study_with(sampler(Line(), seed=0))
    undisturbed.optimize(height)
    study = study_with(sampler(Line(), seed=0))
    study.optimize(height, n_trials=4)
    lost = lose(study)
    study.optimize(height)
    adopter = study.trials[lost.number + 1]
    assert adopter.params == study.trials[lost.number].params
    assert adopter.user_attrs["continues"] == lost.number
    claims = [Claim.of(study.trials[n]) for n in (lost.number, adopter.number)]
    assert claims[0].index == claims[1].index
    assert values(study) == values(undisturbed)


def test_a_candidate_lost_too_often_counts_as_failed():
    study = study_with(Climb(Line(), max_retries=2))
    study.optimize(height, n_trials=3)
    trials = [lose(study) for _ in range(3)]
    assert {Claim.of(study.trials[t.number]).params["x"] for t in trials} == {3}
    assert study.sampler.found(study) == Number(2)


def test_progress_and_interruption_are_no_vain_attempts():
    study = study_with(Climb(Line(), max_retries=0))
    for epoch in range(1, 4):
        trial = study.ask()
        height(trial)
        for step in range(1, epoch + 1):
            trial.report(0.0, step)
        mark_failure(trial, "lost", "a test")
        study.tell(trial, state=TrialState.FAIL)
    for _ in range(3):
        trial = study.ask()
        height(trial)
        mark_failure(trial, "lost", "interrupted")
        study.tell(trial, state=TrialState.FAIL)
    study.optimize(height)
    assert values(study) == CLIMB


def test_a_failed_candidate_is_the_worst_at_once():
    study = study_with(Climb(Line()))
    study.optimize(lambda trial: float("nan") if height(trial) == 3 else height(trial))
    assert study.sampler.found(study) == Number(2)
    assert len(study.trials) == 4


def test_an_exception_is_a_failed_candidate():
    study = study_with(Climb(Line()))

    def objective(trial):
        if height(trial) == 3:
            raise RuntimeError("boom")
        return height(trial)

    study.optimize(objective, catch=(RuntimeError,))
    assert study.sampler.found(study) == Number(2)


def test_a_pruned_candidate_answers_with_its_best_report():
    study = study_with(Climb(Line()))

    def objective(trial):
        value = height(trial)
        trial.report(value, 1)
        trial.report(value - 5, 2)
        raise optuna.TrialPruned

    study.optimize(objective)
    assert study.sampler.found(study) == Number(BEST)


def test_an_infeasible_candidate_is_the_worst():
    study = study_with(Climb(Line()))

    def objective(trial):
        value = height(trial)
        trial.set_constraint("size", value - 4)
        return value

    study.optimize(objective)
    assert study.sampler.found(study) == Number(4)


def kill_a_worker(url: str) -> None:
    """A process of its own that is killed while its second trial runs."""
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
        import test_strategy_base as here
        study = here.study_with(here.Climb(here.Line()), storage={url!r})
        def objective(trial):
            value = here.height(trial)
            if trial.number == 1:
                trial.report(0.5, 1)
                os.kill(os.getpid(), signal.SIGKILL)
            return value
        study.optimize(objective)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert run.returncode == -9


def test_a_killed_workers_trial_is_adopted_at_once(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    kill_a_worker(url)
    study = study_with(Climb(Line()), storage=url)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    study.optimize(height)
    assert values(study) == CLIMB
    assert study.trials[1].state == TrialState.FAIL
    assert study.trials[1].user_attrs["failure"] == "lost"
    assert study.trials[2].user_attrs["continues"] == 1


def test_leases_tell_the_living_from_the_dead():
    study = study_with(Climb(Line()))
    trial = study.ask()
    frozen = study._storage.get_trial(trial._trial_id)
    lease = frozen.system_attrs[LEASE]
    assert not worker_is_dead(frozen)
    for change, dead in [
        ({"pid": 2**22 + 1}, True),
        ({"started": "before the machine was restarted"}, True),
        ({"host": "elsewhere", "until": None}, False),
        ({"host": "elsewhere", "until": time.time() + 99}, False),
        ({"host": "elsewhere", "until": time.time() - 1}, True),
    ]:
        frozen.system_attrs = {LEASE: lease | change, CLAIM: {"index": 0, "params": {}}}
        assert worker_is_dead(frozen) is dead, change
    # Whoever has claimed nothing yet may have been asked for and forgotten, in a living process.
    frozen.system_attrs = {LEASE: lease | {"host": "elsewhere", "until": time.time() - 1}}
    assert not worker_is_dead(frozen)


def leased_by(pid: int, started: str) -> FrozenTrial:
    """A trial with a lease of a process of this host, as version 0.1.0 wrote it."""
    study = study_with(Climb(Line()))
    frozen = study._storage.get_trial(study.ask()._trial_id)
    frozen.system_attrs[LEASE] |= {"pid": pid, "started": started}
    return frozen


@pytest.mark.skipif(not psutil.LINUX, reason="needs /proc")
def test_leases_of_version_0_1_0_tell_the_living_from_the_dead():
    worker = subprocess.Popen(["sleep", "60"])
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        started = fields[19]  # Field 22 of proc(5).
        assert not worker_is_dead(leased_by(worker.pid, started))
        assert worker_is_dead(leased_by(worker.pid, str(int(started) - 1)))
    finally:
        worker.kill()
    while psutil.Process(worker.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert worker_is_dead(leased_by(worker.pid, started))
    worker.wait()
    assert worker_is_dead(leased_by(worker.pid, started))


def test_a_lease_that_says_no_more_than_that_a_process_exists():
    # As systems without /proc had it.
    assert not worker_is_dead(leased_by(os.getpid(), "exists"))
    assert worker_is_dead(leased_by(2**22 + 1, "exists"))


def test_setting_the_clock_kills_nobody(monkeypatch):
    study = study_with(Climb(Line()))
    frozen = study._storage.get_trial(study.ask()._trial_id)
    now, start = psutil.boot_time(), psutil.Process.create_time
    monkeypatch.setattr(psutil, "boot_time", lambda: now + 3600)
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: start(process) + 3600)
    assert not worker_is_dead(frozen)


def test_a_process_that_may_not_be_looked_at_lives(monkeypatch):
    frozen = leased_by(4242, "99")

    def denied(pid: int) -> None:
        raise psutil.AccessDenied(pid)

    def hidden(pid: int) -> None:
        raise psutil.NoSuchProcess(pid)

    def another_users(pid: int, signal: int) -> None:
        assert signal == 0
        raise PermissionError

    monkeypatch.setattr(psutil, "Process", denied)
    assert not worker_is_dead(frozen)
    # As with hidepid=2, which shows a user no other users' processes.
    monkeypatch.setattr(psutil, "Process", hidden)
    monkeypatch.setattr(os, "kill", another_users)
    assert not worker_is_dead(frozen)


# Misuse.


def test_a_trial_that_says_something_else_voids_its_claim_with_a_warning():
    study = study_with(Climb(Line(), max_retries=1))
    with pytest.warns(UserWarning, match=r"Trial 0 was given \{'x': 0\}"):
        study.optimize(lambda trial: trial.suggest_int("y", 0, 9), n_trials=1)
    with pytest.warns(UserWarning, match="from a range that holds the proposal"):
        study.optimize(lambda trial: trial.suggest_int("x", 50, 60), n_trials=1)
    assert study.sampler.found(study) is None
    # Never an endless loop: the candidate has failed after max_retries.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.optimize(lambda trial: trial.suggest_int("y", 0, 9), n_trials=50)
    assert len(study.trials) < 10


def test_a_minimising_study_is_warned_of():
    study = optuna.create_study(sampler=Climb(Line()))
    with pytest.warns(UserWarning, match="create it with direction='maximize'"):
        study.optimize(height, n_trials=1)


def test_the_objectives_own_parameters_are_drawn_beside_the_candidates():
    study = study_with(Climb(Line()))

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        assert 1e-4 <= lr <= 1e-1
        return height(trial)

    study.optimize(objective)
    assert study.sampler.found(study) == Number(BEST)
    again = study_with(Climb(Line()))
    again.optimize(objective)
    assert [t.params for t in again.trials] == [t.params for t in study.trials]


def test_a_constant_before_the_space_changes_nothing():
    study = study_with(Climb(Line()))

    def objective(trial):
        trial.suggest_categorical("dataset", ["digits"])
        return height(trial)

    study.enqueue_trial({"lr": 0.1})
    study.optimize(objective)
    assert values(study) == CLIMB


def test_parameters_of_the_space_beyond_the_candidates_do_no_harm():
    space = ChainSpace(depth=(2, 4), width=(4, 8))
    sampler = MacroMicroSampler(space, in_channels=1, classes=10)

    def objective(trial):
        for layer in range(4):
            trial.suggest_categorical(f"op_{layer}", ("separable", "conv"))
        trial.suggest_int("epochs", 1, 99)
        return space.suggest(trial).depth / 10

    study = study_with(sampler)
    study.optimize(objective)
    assert sampler.found(study).depth == 4
    assert len(study.trials) == len({t.number for t in study.trials if "phase" in t.user_attrs})


def test_own_parameters_are_the_same_after_a_loss():
    def objective(trial):
        return height(trial) + trial.suggest_float("lr", 0, 1)

    undisturbed = study_with(Climb(Line()))
    undisturbed.optimize(objective, n_trials=4)
    study = study_with(Climb(Line()))
    study.optimize(objective, n_trials=2)
    lose(study)
    study.optimize(objective, n_trials=2)
    complete = [t.params for t in study.trials if t.state == TrialState.COMPLETE]
    assert complete == [t.params for t in undisturbed.trials]


def test_ctrl_c_under_plain_optuna_is_no_failed_candidate():
    study = study_with(Climb(Line()))

    def interrupted(trial):
        if height(trial) == 3 and len(study.trials) == 4:
            raise KeyboardInterrupt
        return height(trial)

    with pytest.raises(KeyboardInterrupt):
        study.optimize(interrupted)
    assert study.trials[3].user_attrs["failure"] == "lost"
    study.optimize(interrupted)
    assert values(study) == CLIMB


def test_the_reason_of_a_failure_is_recorded():
    study = study_with(Climb(Line()))

    def objective(trial):
        if height(trial) == 1:
            raise RuntimeError("boom")
        return height(trial)

    study.optimize(objective, catch=(RuntimeError,))
    assert study.trials[1].user_attrs["failure"] == "candidate"
    assert study.trials[1].user_attrs["failure_reason"] == "RuntimeError('boom')"
    study = study_with(Climb(Line()))
    study.optimize(lambda trial: float("nan") if height(trial) == 1 else height(trial))
    assert study.trials[1].user_attrs["failure_reason"] == "the value is not a number"


def test_a_trial_failed_by_somebody_else_is_lost():
    study = study_with(Climb(Line()))
    study.optimize(height, n_trials=2)
    trial = study.ask()
    height(trial)
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    study.optimize(height)
    assert values(study) == CLIMB


def test_a_trial_without_a_lease_is_given_up_after_patience():
    study = study_with(Climb(Line(), patience=0.2))
    study._storage.create_new_trial(study._study_id)
    study.optimize(height)
    assert values(study) == CLIMB
    assert study.trials[0].state == TrialState.FAIL


def test_a_result_that_cannot_be_guessed_is_waited_for():
    class Read(ReplaySampler[Number]):
        def search(self):
            x = 0
            while x < 5:
                result = yield Candidate({"x": x}, phase="read")
                x += result.attrs["step"]
            return Number(x)

    def objective(trial):
        value = height(trial)
        time.sleep(0.01)
        trial.set_user_attr("step", 2)
        return value

    study = study_with(Read(Line()))
    study.optimize(objective, n_jobs=3)
    assert sorted(values(study)) == [(0, 0.0), (2, 2.0), (4, 4.0)]
    assert study.sampler.found(study) == Number(6)


def test_who_waits_decides_anew_only_where_trials_say_more(monkeypatch):
    monkeypatch.setattr("optnas.samplers._turns.DECIDED", math.inf)
    waits = []

    class One(StrategySampler[Number]):
        def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
            if not history.claims:
                return Candidate({"x": 0}, phase="one")
            if history.results:
                return Step.DONE
            waits.append(len(history.trials))
            return Step.WAIT

    def objective(trial):
        Line().suggest(trial)
        time.sleep(0.5)  # Some ten looks.
        trial.set_user_attr("half", True)
        time.sleep(0.5)
        return 0.0

    study = study_with(One(Line()))
    study.optimize(objective, n_jobs=2)
    assert values(study) == [(0, 0.0)]
    # At first, and where the trial that runs got its parameter and its attribute.
    assert 1 <= waits.count(2) <= 4


def test_adopters_are_given_the_lost_trials_attributes():
    class Told(Draw):
        def propose(self, history, rng):
            step = super().propose(history, rng)
            if isinstance(step, Candidate):
                return dataclasses.replace(step, attrs={"role": f"number {history.claims}"})
            return step

    study = study_with(Told(Line(), seed=0))
    study.optimize(height, n_trials=1)
    lost = lose(study)
    study.optimize(height, n_trials=1)
    assert study.trials[lost.number + 1].user_attrs["role"] == "number 1"
    assert study.trials[lost.number + 1].user_attrs["phase"] == "draw"


def test_a_strategy_that_waits_for_nothing_is_told_so():
    class Stuck(StrategySampler[Number]):
        def propose(self, history, rng):
            return Step.WAIT

    with pytest.raises(RuntimeError, match="Stuck waits, but no candidate is running"):
        study_with(Stuck(Line())).optimize(height)


def test_samplers_can_be_pickled():
    study = study_with(Climb(Line()))
    study.optimize(height, n_trials=3)
    sampler = pickle.loads(pickle.dumps(study.sampler))
    assert sampler.found(study) is None


def test_under_hyperband_the_whole_study_is_seen():
    study = study_with(
        Climb(Line()), pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    )
    study.optimize(height)
    assert values(study) == CLIMB


def test_on_rdb_and_in_memory_alike(tmp_path):
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
    study = study_with(Draw(Line(), seed=3), storage=storage)
    study.optimize(height)
    memory = study_with(Draw(Line(), seed=3))
    memory.optimize(height)
    assert values(study) == values(memory)


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestConformance(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's own cases."""

    @pytest.fixture
    def sampler(self):
        return lambda: MacroMicroSampler(ChainSpace(), in_channels=3, classes=10)


# Batches.


class Sweep(ReplaySampler[Number]):
    """Looks at every tenth number at once, then at the neighbours of the best."""

    def search(self):
        best, phase = 0, "wide"
        for step in (10, 1):
            tried = [x for x in range(best - 4 * step, best + 5 * step, step) if x >= 0]
            results = yield [Candidate({"x": x}, phase=phase) for x in tried]
            best = max(zip(tried, results, strict=True), key=lambda pair: pair[1].value)[0]
            phase = "near"
        return Number(best)


SWEPT = [0, 10, 20, 30, 40, 0, 1, 2, 3, 4]


def test_a_batch_is_trained_and_received_together():
    study = study_with(Sweep(Line()))
    study.optimize(height)
    # 0 is known from the first batch.
    assert [x for x, _ in values(study)] == [0, 10, 20, 30, 40, 1, 2, 3, 4]
    assert study.sampler.found(study) == Number(4)
    assert study.sampler.candidates(study)[0] == (8, Number(4), 4.0)


def test_a_batch_in_threads_and_after_losses_is_the_same():
    threads = study_with(Sweep(Line()))
    threads.optimize(height, n_jobs=4)
    lossy = study_with(Sweep(Line()))

    def lose(trial):
        x = height(trial)
        if trial.number % 3 == 1:
            mark_failure(trial, "lost", "a test")
            return float("nan")
        return x

    lossy.optimize(lose)
    for study in (threads, lossy):
        assert {x for x, _ in values(study)} == set(SWEPT)
        assert len(values(study)) == len(set(SWEPT))
        assert study.sampler.found(study) == Number(4)


def test_the_former_names_of_the_base_are_known():
    from optnas.samplers import _base, _replay

    assert (_base.Candidate, _base.Step, _base.StrategySampler) == (
        Candidate,
        Step,
        StrategySampler,
    )
    assert _replay.ReplaySampler is ReplaySampler


def test_importing_the_strategies_is_light():
    heavy = "{'torch', 'sklearn', 'pydantic'} & sys.modules.keys()"
    code = f"import sys, optnas.samplers; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
