"""Several workers on one GPU: added, and ended, as the first trials show that it pays."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.devices.gpus import Gpu, gpus, mps_runs
from optnas.running.gpu_sharing_policy import EVENTS, PATIENCE, Memory, Rate, Window, decide
from optnas.running.placement import EXCLUSIVE, Crew, cores
from optnas.trials.attributes import DEVICE_MEMORY
from optnas.trials.claims import is_feasible


@dataclasses.dataclass(frozen=True)
class Orders:
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


class Sharing:
    """Adds workers to GPUs, and ends them, as the first trials show that it pays.

    Every device is decided on by itself, by :func:`optnas.running.gpu_sharing_policy.decide`.

    Args:
        crew: The workers at the start, one on each device.
        orders: What it can do.
        clock: Tells seconds.
    """

    def __init__(
        self, crew: Crew, orders: Orders, clock: Callable[[], float] = time.monotonic
    ) -> None:
        devices = crew.workers.devices
        present = {gpu.uuid: gpu for gpu in gpus()}
        most = max(1, cores() // len(devices))
        self._clock = clock
        self._shares = [
            # Numbered as Workers.device deals the devices out.
            _Share(device, itertools.count(index, len(devices)), most, present, orders, clock())
            for index, device in enumerate(devices)
        ]

    def epoch(self, worker: int, number: int) -> None:
        """A worker has trained an epoch of the trial with this number."""
        self._share(worker).epoch(worker, self._clock(), number)

    def trial(self, worker: int, trial: FrozenTrial) -> None:
        """A worker has finished a trial."""
        self._share(worker).trial(worker, self._clock(), trial)

    def lost(self, worker: int, is_replaced: bool) -> None:
        """A worker ended before its time, or could not even start."""
        self._share(worker).lost(worker, is_replaced)

    def _share(self, worker: int) -> "_Share":
        return self._shares[worker % len(self._shares)]


class _Share:
    """The workers of one GPU.

    Args:
        device: Its name.
        numbers: Of its workers, in the order in which they are started.
        most: How many there may be.
        present: All GPUs as they were before the first worker, by identity.
        orders: What can be done.
        now: The time.
    """

    def __init__(
        self,
        device: str,
        numbers: Iterator[int],
        most: int,
        present: Mapping[str, Gpu],
        orders: Orders,
        now: float,
    ) -> None:
        self._device = device
        self._numbers = numbers
        self._most = most
        self._present = present
        self._orders = orders
        self._members = [next(numbers)]
        self._window = Window(self._members)
        self._since = now
        self._deadline = math.inf
        """When a measurement with further workers is given up."""
        self._rates: dict[int, Rate] = {}
        """By number of workers."""
        self._before: Rate | None = None
        self._memory: Memory | None = None
        self._used = 0
        self._costs: dict[int, int | None] = {}
        """Multiply-adds of the networks that train, by trial."""
        self._untold = 0
        """Trainings that did not tell of memory."""
        self._is_settled = False

    def epoch(self, worker: int, now: float, number: int) -> None:
        """See :class:`Sharing`; ``now`` is the time."""
        if self._is_settled:
            return
        if number not in self._costs:
            attrs = self._orders.trial(number).user_attrs
            self._costs[number] = attrs.get("multiply_adds") or None
        self._window.epoch(worker, now, self._costs[number])
        self._decide(now)

    def trial(self, worker: int, now: float, trial: FrozenTrial) -> None:
        """See :class:`Sharing`; ``now`` is the time."""
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
        """See :class:`Sharing`."""
        if worker not in self._members:
            return
        if not is_replaced:
            self._members.remove(worker)
        if self._is_settled:
            return
        if is_replaced:  # What the others do until it has come back does not count.
            self._window = Window(self._members)
        else:
            self._stay("a worker was lost")

    def _measure(self, told: Mapping[str, Any]) -> None:
        """Take in what a worker told of the GPU's memory."""
        gpu = self._present.get(f"GPU-{told['gpu']}")
        total, self._used = told["total_bytes"], told["total_bytes"] - told["free_bytes"]
        memory = self._memory or Memory(total, foreign=0, context=0, peak=0)
        memory = dataclasses.replace(memory, peak=max(memory.peak, told["peak_bytes"]))
        if len(self._members) == 1:
            rest = self._used - told["reserved_bytes"]
            # Not what NVML calls used: that has the driver's own part, which CUDA leaves out.
            foreign = max(0, total - gpu.free) if gpu is not None else 0
            # Others may have left since. What nobody knows is the context's, to be safe.
            foreign = foreign if foreign < rest else 0
            memory = dataclasses.replace(memory, foreign=foreign, context=rest - foreign)
        self._memory = memory
        fitting = max(1, memory.workers(headroom=1.0))
        if fitting < len(self._members):
            self._settle(fitting, "trainings have come to need more memory")
        elif gpu is not None and gpu.is_exclusive and not mps_runs() and not self._is_settled:
            self._settle(1, EXCLUSIVE)

    def _decide(self, now: float) -> None:
        rate = self._window.rate(now)
        if rate is not None and self._before is not None and rate.unit != self._before.unit:
            self._window, rate = Window(self._members), None
        if self._memory is None or rate is None:
            if now > self._deadline:
                self._stay(f"{len(self._members)} could not be measured")
            return
        self._rates[rate.workers] = rate
        decision = decide(self._before, rate, self._memory, self._most)
        if decision.is_final:
            self._settle(decision.workers, decision.reason)
        else:
            self._before = rate
            self._deadline = now + PATIENCE * (now - self._since)
            self._since = now
            self._grow(decision.workers)

    def _grow(self, workers: int) -> None:
        self._say(f"{self._told(len(self._members))}; trying {workers}")
        for number in itertools.islice(self._numbers, workers - len(self._members)):
            self._members.append(number)
            self._orders.add(number)
        self._window = Window(self._members)

    def _stay(self, reason: str) -> None:
        """Go back to what was measured last."""
        self._settle(self._before.workers if self._before is not None else 1, reason)

    def _settle(self, workers: int, reason: str) -> None:
        self._is_settled = True
        dismissed = self._members[workers:]
        del self._members[workers:]
        self._say(f"{self._told(len(self._members))}; {reason}")
        for number in dismissed:
            self._orders.dismiss(number)

    def _told(self, workers: int) -> str:
        """A number of workers, and how fast they were beside one."""
        one, now = self._rates.get(1), self._rates.get(workers)
        count = f"{workers} worker{'' if workers == 1 else 's'}"
        if workers == 1 or one is None or now is None or not one.speed:
            return count
        return f"{count} ({now.speed / one.speed:.2g}x of one)"

    def _say(self, what: str) -> None:
        from optnas.units import size  # With rich, which worker processes do without.

        memory = ""
        if self._memory is not None:
            memory = f"; memory {size(self._used)} of {size(self._memory.total)}"
        self._orders.say(f"{self._device}: {what}{memory}")
