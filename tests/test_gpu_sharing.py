"""Several workers on one GPU: how many there should be, and that adding and ending loses nothing.

No GPU is needed: what workers would tell of one is made up.
"""

import builtins
import heapq
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optnas import cli
from optnas.config.keys import Workers
from optnas.devices.gpus import Gpu
from optnas.devices.gpus import gpus as there_are
from optnas.errors import UserError
from optnas.running import gpu_sharing as sharing
from optnas.running.gpu_sharing import GpuSharing, WorkerControl
from optnas.running.gpu_sharing_policy import (
    EVENTS,
    GpuMemory,
    RateWindow,
    TrainingRate,
    decide_workers,
)
from optnas.running.placement import WorkerPlan, check_gpus, cores, plan_workers
from optnas.running.workers import GONE, WorkerPool
from optnas.storage.opening import open_storage
from optnas.trials.attributes import DEVICE_MEMORY

NAPPING = Path(__file__).parents[1] / "benchmarks" / "napping.py"
GB = 10**9
AMPLE = GpuMemory(total=150 * GB, foreign=0, context=GB // 2, peak=GB)
"""Room for 75 workers: 150 / (0.5 + 1.5)."""


def rate(workers: int, speed: float) -> TrainingRate:
    return TrainingRate(workers, speed, "epochs")


@pytest.mark.parametrize(
    ("before", "now", "memory", "most", "workers", "is_final"),
    [
        # Doubled, as far as there is room.
        (None, rate(1, 10), AMPLE, 16, 2, False),
        (None, rate(1, 10), AMPLE, 1, 1, True),
        (rate(1, 10), rate(2, 19), AMPLE, 16, 4, False),
        (rate(2, 19), rate(4, 30), AMPLE, 6, 6, False),
        (rate(4, 19), rate(8, 30), AMPLE, 8, 8, True),
        # Those added must bring a fifth of what the others did: of twice as many, 1.2 times all.
        (rate(1, 10), rate(2, 12.1), AMPLE, 16, 4, False),
        (rate(1, 10), rate(2, 11.9), AMPLE, 16, 1, True),
        (rate(4, 10), rate(8, 7), AMPLE, 16, 4, True),
        # Half as many again: 1.1 times all.
        (rate(4, 10), rate(6, 11.1), AMPLE, 6, 6, True),
        (rate(4, 10), rate(6, 10.9), AMPLE, 6, 4, True),
        # The context counts in full, the peak one and a half times, what others use is not there.
        (None, rate(1, 10), GpuMemory(8 * GB, 0, GB, 2 * GB), 16, 2, False),
        (None, rate(1, 10), GpuMemory(8 * GB, GB, GB, 2 * GB), 16, 1, True),
        (rate(2, 10), rate(4, 20), GpuMemory(10 * GB, 0, GB, GB // 2), 16, 5, False),
        (None, rate(1, 10), GpuMemory(8 * GB, 0, GB, 8 * GB), 16, 1, True),
        # What cannot be measured is no reason for more.
        (None, rate(1, 10), GpuMemory(8 * GB, 0, 0, 0), 16, 1, True),
        (rate(1, 0.0), rate(2, 1), AMPLE, 2, 2, True),
    ],
)
def test_what_a_measurement_comes_to(before, now, memory, most, workers, is_final):
    decision = decide_workers(before, now, memory, most)
    assert (decision.workers, decision.is_final) == (workers, is_final)
    assert bool(decision.reason) == is_final


def test_a_window_begins_when_all_workers_work():
    window = RateWindow([0, 1])
    for now in range(0, 100, 10):
        window.epoch(0, now, 100)
        assert window.rate(now) is None
    window.epoch(1, 100, 400)  # Began before: its end opens the window.
    for now in range(101, 111):
        assert window.rate(now) is None
        window.epoch(now % 2, now, 100 + 800 * (now % 2))
    assert window.rate(114) is None  # Events enough, but too short.
    assert window.rate(116) == TrainingRate(2, (5 * 10 + 5 * 30) / 16, "epochs")


def test_where_costs_are_not_known_trials_are_counted():
    window = RateWindow([0])
    for now in range(0, 30, 5):
        window.epoch(0, now, None)
        window.trial(0, now)
    assert window.rate(25) == TrainingRate(1, 6 / 25, "trials")
    # Networks of another kind begin anew, whose costs are known.
    for now in range(30, 60, 5):
        assert window.rate(now) is None or now == 30
        window.epoch(0, now, 49)
    assert window.rate(60) == TrainingRate(1, EVENTS * 7 / 30, "epochs")


class Machine:
    """Workers on GPUs that train networks of many sizes, on a clock of its own.

    Args:
        speed: How fast so many workers of a GPU are together, beside one.
        devices: The number of GPUs.
        cost: Multiply-adds of a network drawn at random; None tells none.
        memory: What a worker tells of a GPU's memory, given the number of its workers.
        power: The time of an epoch grows with the multiply-adds to this power.
        idle: The worker with this number, if it is added, waits and never trains.
    """

    def __init__(
        self,
        speed: Callable[[int], float],
        *,
        seed: int = 0,
        devices: int = 1,
        cost: Callable[[np.random.Generator], float] | None = lambda rng: rng.lognormal(0, 0.5),
        memory: Callable[[int], dict[str, Any] | None] | None = None,
        power: float = 1.0,
        idle: int | None = None,
    ) -> None:
        self.now = 0.0
        self.notes: list[str] = []
        self.dismissed: set[int] = set()
        self.workers = set(range(devices))
        self.trials: dict[int, Any] = {}
        self._speed, self._cost, self._power = speed, cost, power
        self._memory = memory or (lambda workers: told(workers))
        self._idle = idle
        self._rng = np.random.default_rng(seed)
        self._devices = devices
        self._queue: list[tuple[float, int, int, int]] = []
        workers = Workers(devices=tuple(f"cuda:{i}" for i in range(devices)), per_device="auto")
        control = WorkerControl(
            self._add, self.dismissed.add, self.trials.__getitem__, self.notes.append
        )
        plan = WorkerPlan(workers, devices, is_measured=True)
        self.sharing = GpuSharing(plan, control, clock=lambda: self.now)
        for worker in sorted(self.workers):
            self._begin(worker)

    def of(self, device: int) -> int:
        """How many workers a GPU has."""
        return len([w for w in self.workers if w % self._devices == device])

    def run(self, seconds: float) -> "Machine":
        """Let them train."""
        while self._queue and self.now < seconds:
            self.now, worker, number, epoch = heapq.heappop(self._queue)
            trial = self.trials[number]
            self.sharing.epoch(worker, number)
            if epoch < 4:
                self._train(worker, number, epoch + 1)
                continue
            held = self._memory(self.of(worker % self._devices))
            if held is not None:
                trial.user_attrs[DEVICE_MEMORY] = held
            self.sharing.trial(worker, trial)
            if worker in self.dismissed:
                self.workers.discard(worker)
            else:
                self._begin(worker)
        return self

    def kill(self, worker: int, *, away: float) -> None:
        """Kill a worker, and start another in its place, which takes so many seconds."""
        self._queue = [event for event in self._queue if event[1] != worker]
        heapq.heapify(self._queue)
        self.sharing.lost(worker, is_replaced=True)
        self._begin(worker, start=away)

    def _add(self, worker: int) -> None:
        assert worker not in self.workers
        self.workers.add(worker)
        if worker != self._idle:
            self._begin(worker, start=8.0)

    def _begin(self, worker: int, *, start: float = 0.0) -> None:
        number = len(self.trials)
        million = 1.0 if self._cost is None else self._cost(self._rng)
        attrs = {} if self._cost is None else {"multiply_adds": int(1e6 * million)}
        trial = SimpleNamespace(number=number, user_attrs=attrs, million=million)
        trial.state, trial.constraints = TrialState.COMPLETE, {}
        self.trials[number] = trial
        self._train(worker, number, 1, start=start)

    def _train(self, worker: int, number: int, epoch: int, *, start: float = 0.0) -> None:
        workers = self.of(worker % self._devices)
        alone = self.trials[number].million ** self._power
        seconds = alone * workers / self._speed(workers)
        heapq.heappush(self._queue, (self.now + start + seconds, worker, number, epoch))


def told(workers: int, *, peak: float = 1.0, foreign: float = 0.0, total: float = 150.0) -> Any:
    """What a worker tells: it takes half a gigabyte beside its tensors."""
    used = foreign + workers * (0.5 + peak)
    gigabytes = {"total": total, "free": total - used, "reserved": peak, "peak": peak}
    return {"gpu": "1", **{f"{name}_bytes": int(GB * n) for name, n in gigabytes.items()}}


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch) -> None:
    for module in ("optnas.running.placement", "optnas.running.gpu_sharing"):
        monkeypatch.setattr(f"{module}.cores", lambda: 8)
        monkeypatch.setattr(f"{module}.gpus", lambda: [])
        monkeypatch.setattr(f"{module}.mps_runs", lambda: False)


@pytest.mark.parametrize("power", [0, 0.5, 1])
@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (lambda n: n, 8),  # As many as there are processors.
        (lambda n: min(n, 4.2), 4),
        (lambda n: min(n, 2.1), 2),
        (lambda n: 1 / n, 1),  # They are in each other's way.
    ],
)
def test_workers_are_added_while_that_pays_though_networks_differ(speed, expected, power):
    counts = []
    for seed in range(5):
        machine = Machine(speed, seed=seed, power=power).run(500)
        counts.append(machine.of(0))
        said = len(machine.notes)
        assert (machine.run(1000).of(0), len(machine.notes)) == (counts[-1], said)
    # Never fewer than pay; by chance twice as many may seem to.
    assert min(counts) == expected
    assert sorted(counts)[2] == expected


def test_every_decision_is_told_in_a_line():
    notes = Machine(lambda n: min(n, 2.0), cost=lambda rng: 1.0).run(2000).notes
    assert notes == [
        "cuda:0: 1 worker; trying 2; memory 1.5 GB of 150.0 GB",
        "cuda:0: 2 workers (1.9x of one); trying 4; memory 3.0 GB of 150.0 GB",
        "cuda:0: 2 workers (1.9x of one); 4 were 0.97x as fast as 2; memory 6.0 GB of 150.0 GB",
    ]


def test_every_gpu_is_decided_on_by_itself(monkeypatch):
    monkeypatch.setattr(sharing, "cores", lambda: 9)

    def memory(workers: int) -> dict[str, Any]:
        return told(workers, total=4.1)  # Room for two.

    machine = Machine(lambda n: n, devices=2, memory=memory).run(1000)
    assert sorted(machine.workers) == [0, 1, 2, 3]
    ends = [note for note in machine.notes if "no memory is left for more" in note]
    assert sorted(note.partition(":")[2][0] for note in ends) == ["0", "1"]


def test_trials_are_counted_where_nobody_knows_what_networks_cost():
    machine = Machine(lambda n: min(n, 4), cost=None).run(1000)
    assert machine.of(0) == 4


def test_what_others_use_of_a_gpu_is_not_the_workers(monkeypatch):
    """Taken for a worker's own, 80 GB of others would leave room for no second one."""

    def memory(workers: int) -> dict[str, Any]:
        return told(workers, foreign=80)

    assert Machine(lambda n: n, memory=memory).run(1000).of(0) == 1
    present = [Gpu("GPU-1", "NVIDIA H200", 151 * GB, 70 * GB, "default")]
    monkeypatch.setattr(sharing, "gpus", lambda: present)
    assert Machine(lambda n: n, memory=memory).run(1000).of(0) == 8
    # If they left since, nothing is taken off.
    assert Machine(lambda n: n).run(1000).of(0) == 8


def test_what_the_driver_keeps_of_a_gpu_is_nobodys(monkeypatch):
    """CUDA does not count it. Taken for others' use, a worker's context would look smaller."""
    present = [Gpu("GPU-1", "NVIDIA T4", 10_400_000_000, 10 * GB, "default")]
    monkeypatch.setattr(sharing, "gpus", lambda: present)

    def memory(workers: int) -> dict[str, Any]:
        return told(workers, total=10)

    machine = Machine(lambda n: n, cost=lambda rng: 1.0, memory=memory).run(1000)
    assert machine.of(0) == 5  # 10 / (0.5 + 1.5)


def test_workers_end_when_trainings_come_to_need_too_much_memory():
    peak = 1.0
    machine = Machine(lambda n: n, memory=lambda workers: told(workers, peak=peak)).run(1000)
    assert machine.of(0) == 8
    peak = 40.0
    machine.run(2000)
    assert machine.of(0) == 3  # 150 / 40.5
    assert machine.notes[-1].startswith("cuda:0: 3 workers; trainings have come to need more")
    peak = 1.0
    assert machine.run(3000).of(0) == 3


def test_a_gpu_for_one_process_keeps_one_worker(monkeypatch):
    present = [Gpu("GPU-1", "NVIDIA H200", 150 * GB, 150 * GB, "exclusive process")]
    monkeypatch.setattr(sharing, "gpus", lambda: present)
    machine = Machine(lambda n: n).run(1000)
    assert machine.of(0) == 1
    [note] = machine.notes
    assert "lets a single process in and MPS is not running" in note
    monkeypatch.setattr(sharing, "mps_runs", lambda: True)
    assert Machine(lambda n: n).run(1000).of(0) == 8


def test_an_objective_that_does_not_tell_its_memory_keeps_one_worker():
    machine = Machine(lambda n: n, memory=lambda workers: None).run(1000)
    assert machine.of(0) == 1
    assert machine.notes == [
        "cuda:0: 1 worker; the objective does not tell how much memory it takes"
    ]


@pytest.mark.parametrize("cost", [None, lambda rng: 1.0])
def test_trials_that_did_not_train_say_nothing(cost):
    """A network beyond a limit is not built on the GPU, and a failed one may not be."""
    machine = Machine(lambda n: min(n, 2), cost=cost)
    for number in range(1000, 1100):
        trial = SimpleNamespace(number=number, user_attrs={}, state=TrialState.COMPLETE)
        trial.constraints = {"params": 1.0}
        if number % 2:
            trial.state, trial.constraints = TrialState.FAIL, {}
        machine.now += 0.1
        machine.sharing.trial(0, trial)
    assert machine.notes == []
    assert machine.run(1000).of(0) == 2
    assert "trying 2" in machine.notes[0]


@pytest.mark.parametrize("idle", [1, 3])
def test_a_worker_that_waits_holds_the_decision_up_for_a_while_only(idle):
    machine = Machine(lambda n: n, idle=idle).run(2000)
    before = (idle + 1) // 2
    assert machine.dismissed == set(range(before, 2 * before))
    assert machine.notes[-1].startswith(f"cuda:0: {before} worker")
    assert f"; {2 * before} could not be measured; memory" in machine.notes[-1]


def test_speeds_that_cannot_be_compared_are_given_up():
    """Epochs were counted of the one worker; of these networks nobody knows the cost."""
    costs = iter([1.0] * 4)  # Of the trials until 16 seconds.
    machine = Machine(lambda n: n, power=0, cost=lambda rng: next(costs, 0.0)).run(2000)
    assert machine.of(0) == 1
    assert [note.partition("; memory")[0] for note in machine.notes] == [
        "cuda:0: 1 worker; trying 2",
        "cuda:0: 1 worker; 2 could not be measured",
    ]


@pytest.mark.parametrize(
    ("trying", "lost", "dismissed", "kept"),
    [
        (2, 1, set(), "1 worker;"),  # It could not start, say.
        (2, 0, set(), "1 worker;"),  # The other one is not sent after it.
        (4, 3, {2}, "2 workers (1.9x of one);"),
        (4, 0, {3}, "2 workers (1.9x of one);"),
    ],
)
def test_without_a_worker_it_stays_as_it_was_before(trying, lost, dismissed, kept):
    machine = Machine(lambda n: n, cost=lambda rng: 1.0)
    while not machine.notes or f"trying {trying}" not in machine.notes[-1]:
        machine.run(machine.now + 1)
    machine.sharing.lost(lost, is_replaced=False)
    assert machine.dismissed == dismissed
    assert machine.notes[-1].startswith(f"cuda:0: {kept} a worker was lost; memory")
    said = len(machine.notes)
    machine.sharing.lost(max(dismissed, default=9), is_replaced=False)
    assert len(machine.notes) == said


@pytest.mark.parametrize("killed", [0, 1])
def test_the_time_in_which_a_killed_worker_is_replaced_does_not_count(killed):
    machine = Machine(lambda n: n, cost=lambda rng: 1.0).run(26)
    assert machine.of(0) == 2
    machine.kill(killed, away=20)
    assert machine.run(1000).of(0) == 8


@pytest.mark.parametrize(
    ("keys", "threads", "count", "devices", "is_measured"),
    [
        ({}, 1, 1, (), False),
        ({"count": 5, "devices": ("cuda:0", "cuda:1")}, 1, 5, ("cuda:0", "cuda:1"), False),
        ({"per_device": 3, "devices": ("cuda:0", "cuda:1")}, 1, 6, ("cuda:0", "cuda:1"), False),
        ({"per_device": 3}, 1, 3, ("cpu",), False),
        ({"per_device": "auto"}, 1, 8, ("cpu",), False),
        ({"per_device": "auto", "devices": ("cpu",)}, 3, 2, ("cpu",), False),
        ({"per_device": "auto", "devices": ("cpu",)}, 9, 1, ("cpu",), False),
        ({"per_device": "auto", "devices": ("cuda",)}, 1, 1, ("cuda",), True),
        (
            {"per_device": "auto", "devices": ("cuda:1", "cuda:0")},
            1,
            2,
            ("cuda:1", "cuda:0"),
            True,
        ),
    ],
)
def test_the_workers_of_a_start(monkeypatch, keys, threads, count, devices, is_measured):
    monkeypatch.setattr("optnas.running.placement._default_device", lambda: "cpu")
    plan = plan_workers(Workers(**keys), threads)
    assert (plan.count, plan.workers.devices, plan.is_measured) == (count, devices, is_measured)


@pytest.mark.parametrize("devices", [("mps",), ("cuda:0", "cpu")])
def test_other_devices_want_a_number(devices):
    with pytest.raises(UserError, match="give a number"):
        plan_workers(Workers(per_device="auto", devices=devices), 1)


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
    plan = plan_workers(Workers(**keys), 1)
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
    assert not plan_workers(Workers(count=4), 1).shares_gpus  # Without a driver.
    monkeypatch.setattr(
        "optnas.running.placement.gpus", lambda: [Gpu("GPU-1", "T4", GB, GB, "default")]
    )
    assert not plan_workers(Workers(), 1).shares_gpus
    check_gpus(plan_workers(Workers(count=4), 1))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 48),
        ({"cpu.max": "max 100000"}, 48),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "250000 100000"}, 3),
        ({"cpu.max": "9000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 48),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 48),
        ({"cpu/cpu.cfs_quota_us": "75000", "cpu/cpu.cfs_period_us": "50000"}, 2),
    ],
)
def test_no_more_processors_than_the_container_lets_it_use(monkeypatch, tmp_path, files, expected):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")

    def moved(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if isinstance(path, str):
                path = path.replace("/sys/fs/cgroup", str(tmp_path))
            return function(path, *args, **options)

        return call

    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(48)), raising=False)
    monkeypatch.setattr(os.path, "exists", moved(os.path.exists))
    monkeypatch.setattr(builtins, "open", moved(open))
    assert cores() == expected


def beat(number: int, tell: Callable[[str, Any], bool]) -> None:
    """A worker that goes on until it is dismissed; 1 never heeds it, and 2 cannot start."""
    if number == 2:
        raise UserError("no room")
    while tell("beat", os.getpid()) or number == 1:
        time.sleep(0.01)


def test_workers_join_and_are_dismissed_and_nobody_takes_a_dismissed_ones_place():
    pids: dict[int, set[int]] = {}
    losses: list[tuple[int, bool]] = []

    def failed() -> bool:
        return any("cannot start" in str(warning.message) for warning in caught)

    def listen(number: int, event: str, pid: int) -> None:
        if event == GONE:
            losses.append((number, bool(pid)))
            return
        before = pids.setdefault(number, set())
        is_new = pid not in before
        before.add(pid)
        if number == 0 and is_new and len(before) == 1:
            pool.add(1)
        elif number == 0 and is_new:  # It was killed and replaced.
            pool.dismiss(1)
            pool.add(2)
        elif number == 1 and is_new:
            os.kill(min(pids[0]), signal.SIGKILL)
        elif number == 1 and failed():
            os.kill(pid, signal.SIGKILL)
            pool.dismiss(0)

    pool = WorkerPool(beat, count=1, max_restarts=5, listen=listen)
    with pytest.warns(UserWarning, match=r"worker \d") as caught:
        assert pool.run() is None
    assert sorted(str(warning.message) for warning in caught) == [
        "worker 0 was killed (SIGKILL); another takes its place (1 of at most 5)",
        "worker 2 cannot start (no room); the others go on",
    ]
    assert {number: len(seen) for number, seen in pids.items()} == {0: 2, 1: 1}
    assert pool.lost is None
    assert sorted(losses) == [(0, True), (2, False)]  # And not the one dismissed.


SHARED = """\
from pathlib import Path
import napping

class Shared(napping.Nap):
    "Tells of a GPU's memory what a training would."

    def __call__(self, trial):
        value = super().__call__(trial)
        told = dict(total_bytes=9, free_bytes=7, reserved_bytes=1, peak_bytes=1)
        trial.set_user_attr("device_memory", {"gpu": "1", **told})
        if Path("enough").exists():
            trial.study.stop()
        return value
"""
RUN = """\
import sys
from pathlib import Path
import optnas.running.placement, optnas.running.gpu_sharing, optnas.running.gpu_sharing_policy
from optnas.cli.displays import JsonDisplay
from optnas.running.runner import run
from optnas.running.gpu_sharing_policy import Decision

class Display(JsonDisplay):
    left = None

    def note(self, text):
        super().note(text)
        self.left = 8 if "no more pay" in text else None

    def trial(self, trial, worker):
        super().trial(trial, worker)
        if worker == 0 and self.left is not None:
            self.left -= 1
            if self.left == 0:
                Path("enough").touch()

if __name__ == "__main__":
    optnas.running.gpu_sharing_policy.SECONDS = 0
    decisions = [Decision(2, False), Decision(1, True, "no more pay")]
    optnas.running.gpu_sharing.decide_workers = lambda *_: decisions.pop(0)
    # Whatever GPUs this machine has.
    optnas.running.placement.mps_runs = lambda: False
    optnas.running.placement.gpus = optnas.running.gpu_sharing.gpus = lambda: []
    print(run(sys.argv[1], display=Display()).ending)
"""
STUDY = """\
study: naps
space: cell
sampler: random
objective: {name: "shared:Shared", seconds: 0.05, epochs: 3}
workers: {per_device: auto, devices: ["cuda:0"]}
"""


def test_a_run_in_which_workers_join_and_end_loses_nothing(tmp_path):
    """The decisions are made up; what is measured would depend on this machine."""
    for name, text in {"shared.py": SHARED, "go.py": RUN, "naps.yaml": STUDY}.items():
        (tmp_path / name).write_text(text)
    shutil.copy(NAPPING, tmp_path)
    command = [sys.executable, "go.py", "naps.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, ending = done.stdout.splitlines()
    assert ending == "finished"
    events = [json.loads(line) for line in lines]
    notes = [event["text"].partition("; memory")[0] for event in events if "text" in event]
    assert notes[0].startswith("MPS is not running: workers of one GPU take turns")
    assert notes[1:] == ["cuda:0: 1 worker; trying 2", "cuda:0: 1 worker; no more pay"]
    # The one dismissed came to the end of its trial (of another, if it had just begun that), and
    # the other one went on.
    settled = next(i for i, event in enumerate(events) if "no more pay" in str(event))
    joined = [e["event"] for e in events[:settled] if e.get("worker") == 1]
    assert joined
    after = [e["event"] for e in events[settled:] if e.get("worker") == 1]
    assert after.count("trial") <= 2
    assert after[-1:] in ([], ["trial"])
    # Nothing was lost, handed back or done twice.
    storage = open_storage(f"sqlite:///{tmp_path / 'naps.db'}")
    trials = optuna.load_study(study_name="naps", storage=storage).trials
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    finished = [e["number"] for e in events if e["event"] == "trial" and e["state"] == "complete"]
    assert sorted(finished) == [t.number for t in trials if t.state == TrialState.COMPLETE]


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
@pytest.mark.parametrize("per_device", ["2", "auto"])
def test_trainings_share_a_gpu(tmp_path, per_device):
    (tmp_path / "trainings.yaml").write_text(TRAININGS)
    optnas = str(Path(sys.executable).with_name("optnas"))
    command = [optnas, "run", "trainings.yaml", "--json", "--per-device", per_device]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-2000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["ending"] == "budget"
    assert "MPS is" in next(e["text"] for e in events if e["event"] == "note")
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
        (["--per-device", "many"], "workers.per_device: expected an integer or 'auto'"),
        (["--per-device", "0"], "workers.per_device: expected at least 1"),
        (["--per-device", "2", "--devices", "cpu,cpu"], "every device is named once"),
    ],
)
def test_bad_options_end_with_a_line(tmp_path, capsys, monkeypatch, arguments, said):
    (tmp_path / "naps.yaml").write_text(STUDY.replace("shared:Shared", "napping:Nap"))
    shutil.copy(NAPPING, tmp_path)
    monkeypatch.setattr(sys, "argv", ["optnas", "run", str(tmp_path / "naps.yaml"), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
