"""What the trials of one process share while they train, and what each of them took."""

import contextlib
import time
from collections.abc import Iterator

import torch
from optuna.trial import Trial

from optnas.config.settings import TrainSettings
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.cuda_graphs import own_stream
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.memory import is_out_of_memory
from optnas.objectives.training.neighbours import Place, placed
from optnas.objectives.training.records import record_memory
from optnas.trials.leases import renew_lease
from optnas.trials.pulse import Pulse

KEPT = 300.0
"""Seconds promised while a trial waits for others."""


@contextlib.contextmanager
def at_work(trial: Trial, train: TrainSettings, device: torch.device) -> Iterator[None]:
    """A trial trains inside, beside those of other threads: its place, and the process's switches.

    What the training took is recorded if it runs out of memory; else whoever trains does it.

    Args:
        trial: The trial.
        train: Its recipe.
        device: Where it trains.

    Raises:
        Paused: If the run ends while it waits for others.
    """
    place = Place(device, Pulse(number=trial.number, step="waits for others"), _KeptLease(trial))
    with (
        placed(place),
        own_stream(device),
        deterministic_algorithms(train.deterministic),
        kept_memory(),
    ):
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                record_memory(trial, device)
            raise


class _KeptLease:
    """Renews the lease of a trial that waits, now and then."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._renewed = -KEPT

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._renewed > KEPT / 5:
            self._renewed = now
            renew_lease(self._trial.storage, self._trial._trial_id, KEPT)
