"""Several workers on one GPU: added, and ended, as the first trials show that it pays."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.devices.gpus import Gpu, gpus, mps_runs
from optnas.running.gpu_sharing_policy import (
    EVENTS,
    LONGEST_RATIO,
    GpuMemory,
    RateWindow,
    TrainingRate,
    decide_workers,
)
from optnas.running.placement import EXCLUSIVE, WorkerPlan, cores
from optnas.trials.attributes import DEVICE_MEMORY
from optnas.trials.claims import is_feasible


@dataclasses.dataclass(frozen=True)
class WorkerControl:
    """What decisions are made of, and made with.

    Args:
        add: Starts the worker with a number.
        dismiss: Lets the worker with a number end after its trial.
        trial: The trial with a number, as the storage shows it.
        say: Told of every decision, a line each.
    """

    add: Callable[[int], None]
    dismiss: Callable[[int], None]
    trial: Callable[[int], FrozenTrial]
    say: Callable[[str], None]


class GpuSharing:
    """Adds workers to GPUs, and ends them, as the first trials show that it pays.

    Every device is decided on by itself, by `decide_workers`.

    Args:
        plan: The workers at the start, one on each device.
        control: What it can do.
        clock: Tells seconds.
    """

    def __init__(
        self, plan: WorkerPlan, control: WorkerControl, clock: Callable[[], float] = time.monotonic
    ) -> None:
        devices = plan.workers.devices
        present = {gpu.uuid: gpu for gpu in gpus()}
        most = max(1, cores() // len(devices))
        self._clock = clock
        self._gpus = [
            # Numbered as Workers.device deals the devices out.
            _SharedGpu(
                device, itertools.count(index, len(devices)), most, present, control, clock()
            )
            for index, device in enumerate(devices)
        ]

    def epoch(self, worker: int, number: int) -> None:
        """A worker has trained an epoch of the trial with this number."""
        self._gpu(worker).epoch(worker, self._clock(), number)

    def trial(self, worker: int, trial: FrozenTrial) -> None:
        """A worker has finished a trial."""
        self._gpu(worker).trial(worker, self._clock(), trial)

    def lost(self, worker: int, is_replaced: bool) -> None:
        """A worker ended before its time, or could not even start."""
        self._gpu(worker).lost(worker, is_replaced)

    def _gpu(self, worker: int) -> "_SharedGpu":
        return self._gpus[worker % len(self._gpus)]


class _SharedGpu:
    """The workers of one GPU.

    Args:
        device: Its name.
        numbers: Of its workers, in the order in which they are started.
        most: How many there may be.
        present: All GPUs as they were before the first worker, by identity.
        control: What can be done.
        now: The time.
    """

    def __init__(
        self,
        device: str,
        numbers: Iterator[int],
        most: int,
        present: Mapping[str, Gpu],
        control: WorkerControl,
        now: float,
    ) -> None:
        self._device = device
        self._numbers = numbers
        self._most = most
        self._present = present
        self._control = control
        self._workers = [next(numbers)]
        self._window = RateWindow(self._workers)
        self._since = now
        self._deadline = math.inf
        """When a measurement with further workers is given up."""
        self._rates: dict[int, TrainingRate] = {}
        """By number of workers."""
        self._before: TrainingRate | None = None
        self._memory: GpuMemory | None = None
        self._used = 0
        self._costs: dict[int, int | None] = {}
        """Multiply-adds of the networks that train, by trial."""
        self._untold = 0
        """Trainings that did not tell of memory."""
        self._is_settled = False

    def epoch(self, worker: int, now: float, number: int) -> None:
        """See :class:`GpuSharing`; ``now`` is the time."""
        if self._is_settled:
            return
        if number not in self._costs:
            attrs = self._control.trial(number).user_attrs
            self._costs[number] = attrs.get("multiply_adds") or None
        self._window.epoch(worker, now, self._costs[number])
        self._decide(now)

    def trial(self, worker: int, now: float, trial: FrozenTrial) -> None:
        """See :class:`GpuSharing`; ``now`` is the time."""
        self._costs.pop(trial.number, None)
        has_trained = trial.state == TrialState.COMPLETE and is_feasible(trial)
        if DEVICE_MEMORY in trial.user_attrs:
            self._measure(trial.user_attrs[DEVICE_MEMORY])
        elif has_trained and self._memory is None:
            self._untold += 1
            if self._untold == EVENTS:
                self._settle(1, "the objective does not tell how much memory it takes")
        if not self._is_settled:
            if has_trained:
                self._window.trial(worker, now)
            self._decide(now)

    def lost(self, worker: int, is_replaced: bool) -> None:
        """See :class:`GpuSharing`."""
        if worker not in self._workers:
            return
        if not is_replaced:
            self._workers.remove(worker)
        if self._is_settled:
            return
        if is_replaced:  # What the others do until it has come back does not count.
            self._window = RateWindow(self._workers)
        else:
            self._stay("a worker was lost")

    def _measure(self, reported: Mapping[str, Any]) -> None:
        """Take in what a worker told of the GPU's memory."""
        gpu = self._present.get(f"GPU-{reported['gpu']}")
        total, self._used = (
            reported["total_bytes"],
            reported["total_bytes"] - reported["free_bytes"],
        )
        memory = self._memory or GpuMemory(total, foreign=0, context=0, peak=0)
        memory = dataclasses.replace(memory, peak=max(memory.peak, reported["peak_bytes"]))
        if len(self._workers) == 1:
            rest = self._used - reported["reserved_bytes"]
            # Not what NVML calls used: that has the driver's own part, which CUDA leaves out.
            foreign = max(0, total - gpu.free) if gpu is not None else 0
            # Others may have left since. What nobody knows is the context's, to be safe.
            foreign = foreign if foreign < rest else 0
            memory = dataclasses.replace(memory, foreign=foreign, context=rest - foreign)
        self._memory = memory
        fitting = max(1, memory.workers(headroom=1.0))
        if fitting < len(self._workers):
            self._settle(fitting, "trainings have come to need more memory")
        elif gpu is not None and gpu.is_exclusive and not mps_runs() and not self._is_settled:
            self._settle(1, EXCLUSIVE)

    def _decide(self, now: float) -> None:
        rate = self._window.rate(now)
        if rate is not None and self._before is not None and rate.unit != self._before.unit:
            self._window, rate = RateWindow(self._workers), None
        if self._memory is None or rate is None:
            if now > self._deadline:
                self._stay(f"{len(self._workers)} could not be measured")
            return
        self._rates[rate.workers] = rate
        decision = decide_workers(self._before, rate, self._memory, self._most)
        if decision.is_final:
            self._settle(decision.workers, decision.reason)
        else:
            self._before = rate
            self._deadline = now + LONGEST_RATIO * (now - self._since)
            self._since = now
            self._grow(decision.workers)

    def _grow(self, workers: int) -> None:
        self._say(f"{self._speed_text(len(self._workers))}; trying {workers}")
        for number in itertools.islice(self._numbers, workers - len(self._workers)):
            self._workers.append(number)
            self._control.add(number)
        self._window = RateWindow(self._workers)

    def _stay(self, reason: str) -> None:
        """Go back to what was measured last."""
        self._settle(self._before.workers if self._before is not None else 1, reason)

    def _settle(self, workers: int, reason: str) -> None:
        self._is_settled = True
        dismissed = self._workers[workers:]
        del self._workers[workers:]
        self._say(f"{self._speed_text(len(self._workers))}; {reason}")
        for number in dismissed:
            self._control.dismiss(number)

    def _speed_text(self, workers: int) -> str:
        """A number of workers, and how fast they were beside one."""
        alone, now = self._rates.get(1), self._rates.get(workers)
        count = f"{workers} worker{'' if workers == 1 else 's'}"
        if workers == 1 or alone is None or now is None or not alone.speed:
            return count
        return f"{count} ({now.speed / alone.speed:.2g}x of one)"

    def _say(self, what: str) -> None:
        from optnas.units import size  # With rich, which worker processes do without.

        memory = ""
        if self._memory is not None:
            memory = f"; memory {size(self._used)} of {size(self._memory.total)}"
        self._control.say(f"{self._device}: {what}{memory}")
