"""An objective that sleeps instead of training, to watch workers and nothing else."""

import hashlib
import time
from collections.abc import Callable
from typing import Any, Self

from optuna.trial import Trial

from optnas.objectives.training.progress import Progress
from optnas.spaces import Space, proposal
from optnas.trials.attributes import MAX_EPOCHS, PHASE


class Nap:
    """Objective that sleeps, and returns a value that depends on the architecture alone.

    Deeper chains are better, with exceptions; other architectures are good or bad at random.

    Args:
        space: The search space.
        seconds: Length of an epoch.
        epochs: Number of epochs, of whatever the sampler proposes.
    """

    needs_data = False
    in_channels = 3
    classes = 10

    def __init__(self, space: Space[Any], seconds: float, epochs: int = 1) -> None:
        self.space = space
        self.checkpoints: Any = None
        self.on_epoch: Callable[[Progress], None] | None = None
        self._seconds = seconds
        self._epochs = epochs

    @classmethod
    def from_settings(cls, space: Space[Any], *, seconds: float, epochs: int = 1) -> Self:
        """The objective of a study file."""
        return cls(space, seconds, epochs)

    def __call__(self, trial: Trial) -> float:
        architecture = self.space.suggest(trial)
        if "epochs" in proposal(trial):
            trial.suggest_int("epochs", 1, MAX_EPOCHS)
        digest = hashlib.sha256(architecture.to_json().encode()).digest()
        depth = getattr(architecture, "depth", 0)
        value = 1 - 0.9 ** (depth + 2 * digest[0] / 256)
        trial.set_user_attr("multiply_adds", 1000 + int.from_bytes(digest[:2], "big"))
        for epoch in range(1, self._epochs + 1):
            time.sleep(self._seconds)
            trial.report(value, epoch)
            if self.on_epoch is not None:
                phase = trial.user_attrs.get(PHASE, "")
                seconds = epoch * self._seconds
                self.on_epoch(Progress(trial.number, phase, epoch, self._epochs, value, seconds))
        return value
