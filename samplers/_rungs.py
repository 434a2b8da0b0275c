"""Rungs: the epochs at which trainings are compared, and how far up a trial has come.

The one place that writes and reads them: the pruner says at what epochs they are, and writes
which one a trial has reached; samplers read it there, however many there are.
"""

import dataclasses
import sys
from collections.abc import Sequence

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optnas.trials.attributes import RUNG

WHOLE = sys.maxsize
"""The rung of a trial that was trained to its end: above all others, however many there are."""


@dataclasses.dataclass(frozen=True)
class Rungs:
    """The epochs of the rungs, ascending; the last one is the whole training.

    Args:
        epochs: One number of epochs for every rung.
    """

    epochs: tuple[int, ...]

    @classmethod
    def arithmetic(cls, step: int, number: int) -> "Rungs":
        """E, 2E, 3E and so on (EcoNAS, section 4)."""
        return cls(tuple(step * rung for rung in range(1, number + 1)))

    @classmethod
    def geometric(cls, first: int, factor: float, number: int) -> "Rungs":
        """Every rung ``factor`` times as far as the one before (successive halving)."""
        return cls(tuple(round(first * factor**rung) for rung in range(number)))

    def reached(self, epoch: int) -> int:
        """The number of rungs that a training has reached after so many epochs, from 0."""
        return sum(epoch >= epochs for epochs in self.epochs)

    def arrived(self, steps: Sequence[int]) -> int | None:
        """The rung reached with the last of the epochs reported, or None between rungs."""
        last = sorted(steps)[-2:]
        if not last:
            return None
        before = self.reached(last[0]) if len(last) == 2 else 0
        rung = self.reached(last[-1])
        return rung if rung > before else None

    def belongs(self, epoch: int, rung: int) -> bool:
        """Whether what was reported after ``epoch`` epochs counts on this rung, from 1."""
        return self.reached(epoch) < rung or epoch == self.epochs[rung - 1]


def write_rung(storage: BaseStorage, trial: FrozenTrial, rung: int) -> None:
    """Store which rung a trial has reached, from 1."""
    storage.set_trial_system_attr(trial._trial_id, RUNG, rung)


def rung_of(trial: FrozenTrial) -> int:
    """The rung that a trial has reached, from 1; ``WHOLE`` if it was trained to its end."""
    if trial.state == TrialState.COMPLETE:
        return WHOLE
    rung = trial.system_attrs.get(RUNG, 1)
    return rung if isinstance(rung, int) and 1 <= rung < WHOLE else 1
