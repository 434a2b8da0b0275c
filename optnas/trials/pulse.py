"""What trains in this process at this moment: for those who watch, and for those who end it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any


class Paused(KeyboardInterrupt):
    """A training stops in the middle of an epoch, as it was asked to; its state is whole."""


@dataclasses.dataclass(eq=False)
class Pulse:
    """Where a training stands.

    The thread that trains writes it, a number at a time; others read it without a lock.

    Args:
        number: The trial.
        phase: What the strategy is doing, in a word.
        step: Where the strategy stands with it, in words.
        epoch: Finished epochs.
        epochs: Epochs in all.
        accuracy: Best value so far; None before the first.
        seconds: Training time of the finished epochs.
        batch: Finished batches of the epoch that runs. A GPU may be some batches behind.
        batches: Batches of an epoch.
        gpu: NVIDIA's identity of the device, if it is one of theirs.
        pausing: Whether the training is asked to stop at its next batch.
    """

    number: int = -1
    phase: str = ""
    step: str = ""
    epoch: int = 0
    epochs: int = 0
    accuracy: float | None = None
    seconds: float = 0.0
    batch: int = 0
    batches: int = 0
    gpu: str | None = None
    pausing: bool = False
    began: float = dataclasses.field(default_factory=time.monotonic)
    """When the epoch that runs began, as of ``time.monotonic``."""

    def fields(self) -> dict[str, Any]:
        """What there is to say of it, for other processes."""
        fields = dataclasses.asdict(self)
        del fields["pausing"], fields["began"]
        fields["running"] = time.monotonic() - self.began
        return fields

    def check(self) -> None:
        """Called between two batches.

        Raises:
            Paused: If somebody asked for it.
        """
        if self.pausing:
            raise Paused


_RUNNING: list[Pulse] = []
"""One per thread that trains. Only whole lists are read, and items added and removed at once."""


def running() -> list[Pulse]:
    """What trains in this process."""
    return list(_RUNNING)


@contextlib.contextmanager
def beating(pulse: Pulse) -> Iterator[None]:
    """Show a pulse while it is entered, and let it be paused."""
    _RUNNING.append(pulse)
    try:
        yield
    finally:
        _RUNNING.remove(pulse)


def pause() -> bool:
    """Ask everything that trains here to stop at its next batch; whether there is something."""
    pulses = running()
    for pulse in pulses:
        pulse.pausing = True
    return bool(pulses)
