"""Several worker processes: one study, one view, nothing run twice, nothing lost."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

import optnas
from optnas.storage.opening import open_storage

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OPTNAS = str(Path(sys.executable).with_name("optnas"))
NAPS = """\
study: naps
space: cell
sampler: random
objective: {name: "napping:Nap", seconds: 0.1, epochs: 3}
"""

# Signals find a trial of these in its middle.
LONG_NAPS = NAPS.replace("epochs: 3", "epochs: 200")


class Run:
    """A run of `optnas` in processes of its own, and its study as the storage shows it."""

    def __init__(self, folder: Path, text: str = NAPS) -> None:
        self.folder = folder
        self.file = folder / "naps.yaml"
        self.file.write_text(text)
        shutil.copy(BENCHMARKS / "napping.py", folder)
        self.process: subprocess.Popen[str] | None = None
        self._study: optuna.Study | None = None

    def start(self, *arguments: object) -> None:
        pipe = subprocess.PIPE
        command = [OPTNAS, "run", str(self.file), "--json", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
            cwd=self.folder,
        )

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, events and stderr."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err

    def run(self, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        self.start(*arguments)
        return self.end()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        assert self.process is not None
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The study's trials; none before there is a study."""
        if self._study is None and self.file.with_suffix(".db").exists():
            storage = open_storage(f"sqlite:///{self.file.with_suffix('.db')}")
            names = [study.study_name for study in storage.get_all_studies()]
            if names:
                self._study = optuna.load_study(study_name=names[0], storage=storage)
        return [] if self._study is None else self._study.trials

    @property
    def training(self) -> list[FrozenTrial]:
        """The trials that train and have reported an epoch."""
        running = [t for t in self.trials if t.state == TrialState.RUNNING]
        return [t for t in running if t.intermediate_values]

    def worker_of(self, trial: FrozenTrial) -> int:
        return int(trial.system_attrs["optnas:lease"]["pid"])

    @property
    def processes(self) -> list[int]:
        """The worker processes that live."""
        pids = {self.worker_of(t) for t in self.trials if "optnas:lease" in t.system_attrs}
        return [pid for pid in pids if is_alive(pid)]


def status_of(pid: int) -> str:
    """One of `psutil`'s ``STATUS_...``."""
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def is_alive(pid: int) -> bool:
    return status_of(pid) not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@pytest.fixture
def naps(tmp_path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    if run.process is not None and run.process.poll() is None:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate()


def lost(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.user_attrs.get("failure") == "lost"]


def test_workers_share_one_study_and_one_view(naps):
    naps.file.write_text(NAPS + "budget: {trials: 14}\nworkers: {count: 3}\n")
    code, events, err = naps.run()
    assert (code, err) == (0, "")
    assert Counter(e["event"] for e in events)["start"] == 1
    assert events[0]["event"] == "start"
    assert events[-1] == events[-1] | {"event": "end", "ending": "budget"}
    assert {e["worker"] for e in events[1:-1] if e["event"] != "note"} == {0, 1, 2}
    complete = [t for t in naps.trials if t.state == TrialState.COMPLETE]
    # Exactly, though three ask at once; and each draws for itself.
    assert len(complete) == 14
    assert len({json.dumps(t.params) for t in complete}) == 14
    assert {t.state for t in naps.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    finished = [e["number"] for e in events if e["event"] == "trial" and e["state"] == "complete"]
    assert sorted(finished) == [t.number for t in complete]
    # The command line wins, and the count may change.
    assert naps.run("--workers", 1)[1][-1]["ending"] == "budget"


def test_files_that_are_named_like_modules_are_left_alone(naps):
    """In the current folder: all that Python has here, and much of what is used."""
    others = {"torch", "optuna", "numpy", "scipy", "sqlalchemy", "rich", "typer", "psutil", "yaml"}
    names = {name for name in sys.stdlib_module_names if name[0] != "_"}
    for name in {name for name in names if importlib.util.find_spec(name)} | others:
        (naps.folder / f"{name}.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    naps.file.write_text(NAPS + "budget: {trials: 4}\n")
    code, _, err = naps.run("--workers", 2)
    assert (code, err) == (0, "")
    assert len(naps.trials) == 4
    assert not (naps.folder / "ran").exists()


def test_a_killed_worker_is_replaced(naps):
    naps.file.write_text(NAPS + "budget: {trials: 8}\n")
    naps.start("--workers", 2)
    naps.wait_for(lambda: len(naps.training) == 2)
    victim = naps.training[0]
    os.kill(naps.worker_of(victim), signal.SIGKILL)
    code, events, err = naps.end()
    assert code == 0
    assert err.count("\n") == 1
    assert "was killed (SIGKILL); another takes its place (1 of at most 10)" in err
    assert events[-1]["ending"] == "budget"
    trials = naps.trials
    assert [t.number for t in lost(trials)] == [victim.number]
    follower = next(t for t in trials if t.user_attrs.get("continues") == victim.number)
    assert follower.params == victim.params
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 8


def test_a_run_whose_workers_die_says_so_and_goes_on_later(naps):
    naps.file.write_text(NAPS + "budget: {trials: 4}\nworkers: {count: 2, max_restarts: 0}\n")
    naps.start()
    killed: set[int] = set()

    def all_are_killed() -> bool:
        for trial in naps.training:
            if naps.worker_of(trial) not in killed:
                killed.add(naps.worker_of(trial))
                os.kill(naps.worker_of(trial), signal.SIGKILL)
        return len(killed) == 2

    naps.wait_for(all_are_killed)
    code, _, err = naps.end()
    assert code == 1
    assert err.count("no restarts are left") == 2
    assert "and not replaced; nothing is lost: the same command goes on" in err
    assert "Traceback" not in err
    assert {t.state for t in naps.trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert naps.run()[0] == 0
    assert sum(t.state == TrialState.COMPLETE for t in naps.trials) == 4


def test_bad_input_is_told_once_and_ends_the_run(naps):
    text = NAPS.replace('"napping:Nap", seconds: 0.1, epochs: 3', "tabular, table: a, column: b")
    naps.file.write_text(text)
    code, events, err = naps.run("--workers", 3)
    assert (code, events) == (2, [])
    assert err == f"optnas: {naps.folder}/a: there is no such table.\n"
    assert not naps.file.with_suffix(".db").exists()


def test_an_error_in_one_worker_ends_the_run(naps):
    naps.file.write_text(NAPS.replace("seconds: 0.1", "seconds: -1"))
    code, _, err = naps.run("--workers", 2)
    assert code == 1
    assert "ValueError: sleep length must be non-negative" in err
    assert err.splitlines()[-1].endswith("failed; its error is above")


@pytest.mark.parametrize("who", ["parent", "group", "worker"])
def test_sigterm_hands_the_trials_back(naps, who):
    naps.file.write_text(NAPS + "budget: {trials: 6}\n" if who == "worker" else LONG_NAPS)
    naps.start("--workers", 2)
    naps.wait_for(lambda: len(naps.training) == 2)
    workers = naps.processes
    if who == "worker":
        os.kill(workers[0], signal.SIGTERM)
    else:
        (os.killpg if who == "group" else os.kill)(naps.process.pid, signal.SIGTERM)
    code, events, err = naps.end()
    assert (code, err) == (0, "")
    handed_back = lost(naps.trials)
    assert {t.user_attrs["failure_reason"] for t in handed_back} <= {"interrupted"}
    assert not any(map(is_alive, workers))
    if who == "worker":
        assert events[-1]["ending"] == "budget"
        assert sum(t.state == TrialState.COMPLETE for t in naps.trials) == 6
    else:
        assert events[-1]["ending"] == "terminated"
        assert len(handed_back) == 2
        assert all(t.state.is_finished() for t in naps.trials)


def test_ctrl_c_of_a_terminal_reaches_every_process_and_is_heard_once(naps):
    naps.file.write_text(LONG_NAPS)
    naps.start("--workers", 2)
    naps.wait_for(lambda: len(naps.training) == 2)
    os.killpg(naps.process.pid, signal.SIGINT)
    code, events, err = naps.end()
    assert (code, err) == (130, "")
    assert events[-1]["ending"] == "interrupted"
    assert len(lost(naps.trials)) == 2


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_workers_that_do_not_end_are_killed(naps, signals):
    """One that is stopped hears nothing."""
    naps.file.write_text(LONG_NAPS)
    naps.start("--workers", 2)
    naps.wait_for(lambda: len(naps.training) == 2)
    workers = naps.processes
    os.kill(workers[0], signal.SIGSTOP)
    for number in signals:
        os.kill(naps.process.pid, number)
        time.sleep(0.5)
    code, _, err = naps.end()
    assert (code, err) == (130 if len(signals) == 2 else 0, "")
    assert not any(map(is_alive, workers))
    assert {t.state for t in naps.trials} == {TrialState.FAIL}, naps.trials


def test_workers_whose_parent_is_killed_hand_their_trials_back(naps):
    naps.file.write_text(LONG_NAPS)
    naps.start("--workers", 2)
    naps.wait_for(lambda: len(naps.training) == 2)
    workers = naps.processes
    naps.process.kill()
    naps.process.communicate()
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(t.state.is_finished() for t in naps.trials)
    reasons = {t.user_attrs["failure_reason"] for t in lost(naps.trials)}
    assert reasons == {"interrupted"}


SUSPENDED = """
import os, signal, sys
import napping
import optnas.trials.leases
from optnas.running.runner import run

class Suspended(napping.Nap):
    def __call__(self, trial):
        optnas.trials.leases.renew_lease(trial.storage, trial._trial_id, 1.0)
        go_on = self.on_epoch
        def stop(progress):
            self.on_epoch = go_on
            os.kill(os.getpid(), signal.SIGSTOP)  # Not while it holds the lock of sqlite.
            go_on(progress)
        if trial.number == 0:
            self.on_epoch = stop
        return super().__call__(trial)

optnas.trials.leases.this_host = lambda: "another machine"
napping.Nap = Suspended
print(run(sys.argv[1]).ending)
"""


def test_a_worker_that_was_taken_for_dead_drops_its_result_and_goes_on(naps):
    naps.file.write_text(NAPS + "budget: {trials: 4}\n")
    (naps.folder / "suspended.py").write_text(SUSPENDED)
    pipe = subprocess.PIPE
    naps.process = subprocess.Popen(
        [sys.executable, str(naps.folder / "suspended.py"), str(naps.file)],
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )
    naps.wait_for(lambda: status_of(naps.process.pid) == psutil.STATUS_STOPPED)
    [number] = [trial.number for trial in naps.training]
    until = naps.trials[number].system_attrs["optnas:lease"]["until"]
    time.sleep(max(0.0, until - time.time()))
    assert optnas.run(naps.file).ending == "budget"
    os.kill(naps.process.pid, signal.SIGCONT)
    out, err = naps.process.communicate(timeout=60)
    assert (naps.process.returncode, out) == (0, "budget\n")
    assert f"Trial {number} was given to another worker while this one was suspended" in err
    assert "Error" not in err
    trials = naps.trials
    assert trials[number].user_attrs["failure"] == "lost"
    assert [t.params for t in trials if t.user_attrs.get("continues") == number] == [
        trials[number].params
    ]
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 4
