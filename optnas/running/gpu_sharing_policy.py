"""How many workers a GPU should have: decided from what was measured, and from nothing else."""

import dataclasses
import math
from collections.abc import Collection
from typing import Literal

MARGIN = 0.2
"""What a further worker must bring: this share of what one of those before it does."""
HEADROOM = 1.5
"""Memory kept for a training, over the most that one took so far: searches grow."""
EVENTS = 5
"""Epochs, or trials, that a measurement takes of every worker on average, at least."""
SECONDS = 15.0
"""The shortest measurement."""
LONGEST_RATIO = 5.0
"""How many times as long as the measurement before one may take, with the start of workers."""

Unit = Literal["epochs", "trials"]


@dataclasses.dataclass(frozen=True)
class GpuMemory:
    """What is in use on a GPU, in bytes.

    Args:
        total: What there is.
        foreign: What others use, who are no workers.
        context: What a worker uses beside its tensors: the context, kernels, libraries.
        peak: The most that tensors of a worker have taken so far, with what torch keeps for later.
    """

    total: int
    foreign: int
    context: int
    peak: int

    def workers(self, headroom: float) -> int:
        """How many workers there is room for, each with ``headroom`` times the peak."""
        each = self.context + headroom * self.peak
        return int((self.total - self.foreign) / each) if each else 0


@dataclasses.dataclass(frozen=True)
class TrainingRate:
    """How fast the workers of a GPU are, all together.

    Args:
        workers: Their number.
        speed: What they do in a second.
        unit: What that is counted in.
    """

    workers: int
    speed: float
    unit: Unit


@dataclasses.dataclass(frozen=True)
class Decision:
    """What follows from a measurement.

    Args:
        workers: How many workers there should be.
        is_final: Whether that is not asked again.
        reason: Why there should be no more, if it is final.
    """

    workers: int
    is_final: bool
    reason: str = ""


def decide_workers(
    before: TrainingRate | None, now: TrainingRate, memory: GpuMemory, most: int
) -> Decision:
    """Double the workers for as long as that pays.

    Each of those added last must bring at least ``MARGIN`` of what one of the others did; if they
    do not, they end. Doubled and not increased by one, because twice as many workers are told
    from no gain although every network is another.

    Args:
        before: The measurement before the last workers were added; None if there was none.
        now: The measurement with them, in the same unit.
        memory: The GPU's memory.
        most: How many workers there may be, whatever was measured.
    """
    if before is not None:
        added = (now.workers - before.workers) / before.workers
        if now.speed < before.speed * (1 + MARGIN * added):
            reason = f"{now.workers} were {_times(now, before)}x as fast as {before.workers}"
            return Decision(before.workers, True, reason)
    fitting = memory.workers(HEADROOM)
    if min(most, fitting) > now.workers:
        return Decision(min(2 * now.workers, most, fitting), False)
    reason = "no processor is left for more" if most <= fitting else "no memory is left for more"
    return Decision(now.workers, True, reason)


def _times(now: TrainingRate, before: TrainingRate) -> str:
    return f"{now.speed / before.speed:.2g}" if before.speed else "-"


class RateWindow:
    """What the workers of a GPU do, from the moment when all of them work.

    Networks differ. Where kernels fill the GPU the time of an epoch grows with the network's
    multiply-adds, and hardly at all where starting them takes longest. So an epoch counts as the
    root of the multiply-adds: in both cases that errs by the root of how much networks differ,
    instead of not at all in one and by all of it in the other. (Those of one image, since a study
    has as many images in every epoch.) Where these are not known, finished trials are counted.
    All of it per second of the clock, so that what passes between trainings counts too.

    Args:
        workers: The numbers of the workers. What they do before each was heard of is left out.
    """

    def __init__(self, workers: Collection[int]) -> None:
        self._size = len(workers)
        self._awaited = set(workers)
        self._begin(None)

    def _begin(self, now: float | None) -> None:
        self._start = now
        self._costs: list[int | None] = []
        self._trials = 0

    def epoch(self, worker: int, now: float, cost: int | None) -> None:
        """An epoch was trained.

        Args:
            worker: The worker's number.
            now: The time in seconds.
            cost: The network's multiply-adds, if they are known.
        """
        if self._is_open(worker, now):
            if self._costs and (self._costs[0] is None) != (cost is None):
                self._begin(now)  # Trainings of another kind: not to be mixed.
            else:
                self._costs.append(cost)

    def trial(self, worker: int, now: float) -> None:
        """A trial was finished, at ``now`` seconds."""
        if self._is_open(worker, now):
            self._trials += 1

    def _is_open(self, worker: int, now: float) -> bool:
        self._awaited.discard(worker)
        if self._start is None and not self._awaited:
            self._begin(now)  # What ends now began before.
            return False
        return self._start is not None

    def rate(self, now: float) -> TrainingRate | None:
        """What was measured, or None before it is enough."""
        least = EVENTS * self._size
        if self._start is None or now <= self._start or now - self._start < SECONDS:
            return None
        costs = [cost for cost in self._costs if cost is not None]
        if len(costs) >= least:
            work = math.fsum(map(math.sqrt, costs))
            return TrainingRate(self._size, work / (now - self._start), "epochs")
        if not costs and self._trials >= least:
            return TrainingRate(self._size, self._trials / (now - self._start), "trials")
        return None
