"""A training that belongs to a trial: it reports, is kept, goes on, and can be inherited from."""

import io
import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, Trial

from optnas.config.settings import CheckpointSettings
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.training.epochs import EpochResult
from optnas.objectives.training.memory import (
    gpu_identity,
    is_out_of_memory,
    is_shared,
    release,
    reset_peak_memory,
)
from optnas.objectives.training.neighbours import here
from optnas.objectives.training.progress import Progress
from optnas.objectives.training.trainer import NonFiniteLoss, Trainer
from optnas.spaces import Architecture
from optnas.storage.checkpoints import CheckpointError, Checkpoints, checkpoint_of
from optnas.trials.attributes import (
    ACCUMULATION,
    EPOCH_SHARE,
    EPOCHS_TRAINED,
    INHERITED,
    PHASE,
    STEP,
    TRAIN_ACCURACY,
    TRAIN_JOULES,
    TRAIN_SECONDS,
)
from optnas.trials.leases import renew_lease
from optnas.trials.lineage import ancestors, parent_of
from optnas.trials.pulse import Paused, beating

FIRST_LEASE = 1800.0
"""Seconds promised for the first epoch, whose length nobody knows yet."""
LEAST_LEASE = 300.0
"""Seconds promised for an epoch, at least; ten times the last one, if that is more."""
EAGER_REASON = "eager_reason"
"""User attribute, on CUDA: why the steps were not replayed from a graph; see `Trainer`."""


_ONE_VALUE = "Expected more than 1 value per channel"


class CandidateFailure(Exception):
    """A candidate cannot be judged; the message is the reason."""


class TrialTraining:
    """Trains for a trial, epoch by epoch.

    Args:
        trial: The trial.
        trainer: The training.
        checkpoints: Where its state is kept; None keeps none.
        settings: How often it is kept.
        inherited: Whether other networks may start from its weights: then it cannot end before
            its last state is stored.
        prunable: Whether the study's pruner may cut it short.
        on_epoch: Called after every epoch.
    """

    def __init__(
        self,
        trial: Trial,
        trainer: Trainer,
        *,
        checkpoints: Checkpoints | None,
        settings: CheckpointSettings,
        inherited: bool,
        prunable: bool = True,
        on_epoch: Callable[[Progress], None] | None,
    ) -> None:
        self.trial = trial
        self.trainer = trainer
        self._checkpoints = checkpoints
        self._settings = settings
        self._inherited = inherited
        self._prunable = prunable
        self._on_epoch = on_epoch
        self._resumed = 0
        self._reported = 0
        self._saved = time.monotonic()
        self._state = b""

    def resume(self, trials: Sequence[FrozenTrial]) -> bool:
        """Go on from the nearest trial before this one that has a checkpoint.

        Its epochs are reported again, so that the pruner and the dashboard see one whole curve.
        A training that memory sufficed for in parts alone goes on so.

        Args:
            trials: All trials of the study, by number.

        Returns:
            Whether there was one.
        """
        for before in ancestors(trials, self.trial):
            if ACCUMULATION in before.user_attrs:
                self._accumulate(before.user_attrs[ACCUMULATION])
            if self._checkpoints is None or checkpoint_of(before) is None:
                continue
            try:
                state = self._checkpoints.load(before)
            except CheckpointError as error:
                warnings.warn(f"{error}: its epochs are trained again.", stacklevel=2)
                continue
            self.trainer.load_state_dict(_loaded(state))
            self._resumed = self.trainer.epoch
            if INHERITED in before.user_attrs:
                self.trial.set_user_attr(INHERITED, before.user_attrs[INHERITED])
            self._report()
            return True
        return False

    def inherit(self, parent: FrozenTrial, before: Architecture, child: Architecture) -> None:
        """Start from the weights of another trial's network.

        Args:
            parent: The trial.
            before: Its architecture, in the size in which it was trained.
            child: The architecture of this training.

        Raises:
            CandidateFailure: If the weights are missing or damaged; nobody will choose them again.
            ValueError: If no checkpoints are kept.
        """
        if self._checkpoints is None:
            raise ValueError(
                "Networks that start from their parent's weights need `checkpoints`, where these "
                "are kept."
            )
        try:
            state = _loaded(self._checkpoints.load(parent))
        except CheckpointError as error:
            self._checkpoints.say_lost(self.trial.study, parent.number, str(error))
            raise CandidateFailure(f"cannot start from its parent's weights: {error}") from error
        copied = inherit(self.trainer.model, state["model"], before, child)
        self.trial.set_user_attr(INHERITED, copied)

    def run(self, epochs: int) -> None:
        """Train until ``epochs`` are finished.

        What runs out of memory goes on once more from its last state, every batch in two parts.
        Where others hold memory of the device too, it is first tried as it was, because what was
        missing may have been their doing, which says nothing of the network: alone, once the
        trainings of other threads have ended.

        Raises:
            CandidateFailure: If the loss is not finite.
            Paused: If the training is left in the middle of an epoch, which is kept.
            TrialPruned: If the study's pruner says so.
            OSError: If the last state cannot be stored, and others may start from it.
            RuntimeError: If there is not even memory for parts of a batch; on the host it may be
                a MemoryError.
        """
        self._state = _dumped(self.trainer)
        with beating(self.trainer.pulse):
            self._run_fitting(epochs)

    def _run_fitting(self, epochs: int) -> None:
        """Train, in parts if memory does not suffice for whole batches."""
        if self._fits(epochs):
            return
        was_beside = here().is_shared
        if was_beside or is_shared(self.trainer.device):
            self._go_back()
            if was_beside:
                here().have_alone(self.trainer.pulse)
            if self._fits(epochs):
                return
        self._accumulate(2)
        self._go_back()
        self._run(epochs)

    def _fits(self, epochs: int) -> bool:
        """Train, if memory suffices; what it does not suffice for in parts is raised."""
        try:
            self._run(epochs)
        except (RuntimeError, MemoryError) as error:
            if self.trainer.accumulation > 1 or not is_out_of_memory(error):
                raise
            release(error, self.trainer.device)
            return False
        return True

    def _go_back(self) -> None:
        """Go on from the last state."""
        reset_peak_memory(self.trainer.device)
        self.trainer.load_state_dict(_loaded(self._state))

    @property
    def accuracy(self) -> float:
        """Best validation accuracy, or another metric, over the epochs: a fraction."""
        return max(self._accuracies())

    def _accumulate(self, parts: int) -> None:
        """Train on every batch in parts, and say so."""
        self.trainer.accumulation = parts
        self.trial.set_user_attr(ACCUMULATION, parts)

    def _run(self, epochs: int) -> None:
        trial, trainer = self.trial, self.trainer
        renew_lease(trial.storage, trial._trial_id, FIRST_LEASE)
        if trainer.epoch >= epochs:
            # The trial before was lost between its last epoch and its result.
            self._save(must=self._inherited)
        while trainer.epoch < epochs:
            # Before the epoch, so that a training that goes on is pruned where it would have been.
            if self._prunable and trainer.epoch and trial.should_prune():
                self._finish()
                raise optuna.TrialPruned(f"Pruned after epoch {trainer.epoch}.")
            self._show(epochs)
            result = self._train_epoch()
            is_last = trainer.epoch == epochs
            if is_last or self._settings.is_due(trainer.epoch, time.monotonic() - self._saved):
                self._save(must=is_last and self._inherited)
            renew_lease(trial.storage, trial._trial_id, max(LEAST_LEASE, 10 * result.seconds))
            self._report()
            if self._on_epoch is not None:
                self._on_epoch(self._progress(epochs))
        self._finish()

    def _train_epoch(self) -> EpochResult:
        """An epoch; one that is left in its middle is kept as it is."""
        try:
            return self.trainer.train_epoch()
        except Paused:
            pulse = self.trainer.pulse
            if self._save(must=False):
                share = round(pulse.batch / max(1, pulse.batches), 3)
                self.trial.set_user_attr(EPOCH_SHARE, share)
            raise
        except NonFiniteLoss as error:
            raise CandidateFailure(str(error)) from error
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise CandidateFailure(
                "cannot be trained: batch normalisation sees a batch of one image of one pixel"
            ) from error

    def _show(self, epochs: int) -> None:
        """Have the pulse say where the training stands, before an epoch."""
        pulse, trainer, attrs = self.trainer.pulse, self.trainer, self.trial.user_attrs
        pulse.number, pulse.phase = self.trial.number, attrs.get(PHASE, "")
        pulse.step = attrs.get(STEP, "")
        pulse.epoch, pulse.epochs = trainer.epoch, self._epochs_in_all(epochs)
        pulse.accuracy = self.accuracy if trainer.epoch else None
        pulse.seconds = self._seconds()
        pulse.batch, pulse.batches = 0, trainer.batches
        pulse.gpu = gpu_identity(trainer.device)
        pulse.began = time.monotonic()

    def _finish(self) -> None:
        """Record what came of the training and what it took."""
        accuracy = max(result.train_accuracy for result in self.trainer.history)
        self.trial.set_user_attr(TRAIN_ACCURACY, accuracy)
        self.trial.set_user_attr(EPOCHS_TRAINED, self.trainer.epoch - self._resumed)
        if self.trainer.eager_reason is not None:
            self.trial.set_user_attr(EAGER_REASON, self.trainer.eager_reason)
        joules = [result.joules for result in self.trainer.history]
        known = None if None in joules else math.fsum(filter(None, joules))
        if known is not None or TRAIN_JOULES in self.trial.user_attrs:
            self.trial.set_user_attr(TRAIN_JOULES, known)

    def _report(self) -> None:
        """Report the epochs that were not yet, and the seconds so far, which budgets count."""
        for accuracy in self._accuracies()[self._reported :]:
            self._reported += 1
            self.trial.report(accuracy, self._reported)
        self.trial.set_user_attr(TRAIN_SECONDS, self._seconds())

    def _save(self, *, must: bool) -> bool:
        """Keep the state as it is; whether that was possible."""
        self._state = _dumped(self.trainer)
        self._saved = time.monotonic()
        if self._checkpoints is None:
            return False
        trial, epoch = self.trial, self.trainer.epoch
        saved = self._checkpoints.save(trial._trial_id, trial.number, epoch, self._state)
        if must and not saved:
            raise OSError(
                "the checkpoint of the last epoch could not be saved, and other networks start "
                "from it: make space for the artifacts, and run again"
            )
        return saved

    def _progress(self, epochs: int) -> Progress:
        return Progress(
            number=self.trial.number,
            phase=self.trial.user_attrs.get(PHASE, ""),
            epoch=self.trainer.epoch,
            epochs=self._epochs_in_all(epochs),
            accuracy=self.accuracy,
            seconds=self._seconds(),
        )

    def _epochs_in_all(self, epochs: int) -> int:
        """The epochs to be trained; what is trained so far may not be all: a budget may end it."""
        further = self.trainer.further_epochs
        return self.trainer.epochs + further if further else epochs

    def _seconds(self) -> float:
        return sum(result.seconds for result in self.trainer.history)

    def _accuracies(self) -> list[float]:
        """What is maximised, after every finished epoch."""
        return [result.objective_value for result in self.trainer.history]


def parent_trial(trial: Trial, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial that ``trial`` starts from, or None.

    Raises:
        CandidateFailure: If it is no finished trial of the study.
    """
    number = parent_of(trial)
    if number is None:
        return None
    if number >= len(trials) or not trials[number].state.is_finished():
        raise CandidateFailure(f"its parent, trial {number}, is no finished trial of the study")
    return trials[number]


def _dumped(trainer: Trainer) -> bytes:
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    return buffer.getvalue()


def _loaded(state: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    return loaded
