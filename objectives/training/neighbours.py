"""Trainings that share a process: who else has memory of a device, and how to have it alone.

Threads of one process train on one device with one context: what is free for one depends on what
the others hold. So memory that does not suffice says something of a network only if nobody else
trained there.
"""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TypeVar

import torch

from optnas.objectives.training.memory import (
    hand_back,
    is_out_of_memory,
    release,
    reset_peak_memory,
)
from optnas.trials.pulse import Pulse, beating

T = TypeVar("T")

_LOOK = 0.1
"""Seconds between two looks at whether a wait is over."""


class Place:
    """A training's place beside others on a device.

    Args:
        device: The device.
        waiting: Tells that it waits, and lets it be left, as trainings are.
        wait: Called again and again while it waits.

    Attributes:
        is_shared: Whether another training was there since this one came, or has it alone.
    """

    def __init__(
        self,
        device: torch.device,
        waiting: Pulse | None = None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_shared = False
        self._device = device
        self._waiting = waiting or Pulse()
        self._wait = wait
        self._others = _OTHERS[device.type, device.index]

    def enter(self) -> None:
        """Take the place, once nobody trains alone any more, nor waits to.

        Raises:
            Paused: If the run ends meanwhile.
        """
        others = self._others
        with others.changed:
            if others.alone:
                with beating(self._waiting):
                    while others.alone:
                        self._look(self._waiting)
            others.training.append(self)
            self._notice()

    def have_alone(self, waiting: Pulse | None = None) -> None:
        """Wait until all others have ended; nobody comes before this training ends, too.

        Of several that wait, each comes in its turn. They hold little meanwhile: their networks.

        Args:
            waiting: Of the training, if that has a pulse already which beats.

        Raises:
            Paused: If the run ends meanwhile.
        """
        others = self._others
        hand_back(self._device)
        with others.changed, beating(self._waiting) if waiting is None else nullcontext():
            others.training.remove(self)
            others.alone.append(self)
            others.changed.notify_all()
            while others.training or others.alone[0] is not self:
                self._look(waiting or self._waiting)
            self.is_shared = False
        reset_peak_memory(self._device)

    def leave(self) -> None:
        """The training is over."""
        others = self._others
        with others.changed:
            for places in (others.training, others.alone):
                if self in places:
                    places.remove(self)
            others.changed.notify_all()

    def fitting(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, which is done again alone if it lacked memory beside others."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not (self.is_shared and is_out_of_memory(error)):
                raise
            release(error, self._device)
        self.have_alone()
        return work()

    def _notice(self) -> None:
        """Note who trains beside whom; the first one measures its memory anew."""
        if len(self._others.training) == 1:
            reset_peak_memory(self._device)
            return
        for place in self._others.training:
            place.is_shared = True

    def _look(self, waiting: Pulse) -> None:
        """Let others go on for a moment."""
        self._others.changed.wait(_LOOK)
        self._others.changed.release()
        try:
            waiting.check()
            self._wait()  # It may write to a storage, and take long.
        finally:
            self._others.changed.acquire()


class _Others:
    """Who trains on a device.

    Attributes:
        training: Those that train beside each other.
        alone: Those that have it alone or wait to, in their order.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.training: list[Place] = []
        self.alone: list[Place] = []


_OTHERS: defaultdict[tuple[str, int | None], _Others] = defaultdict(_Others)


class _Here(threading.local):
    place: Place | None = None


_HERE = _Here()


def here() -> Place:
    """The place of the training of this thread; one that nobody shares if it has none."""
    return _HERE.place or Place(torch.device("meta"))


@contextlib.contextmanager
def placed(place: Place) -> Iterator[None]:
    """Train inside, at a place beside what other threads train on the device."""
    before = _HERE.place
    try:
        place.enter()
        _HERE.place = place
        yield
    finally:
        _HERE.place = before
        place.leave()
