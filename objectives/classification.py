"""The objective: train one architecture on images, report every epoch, return its accuracy."""

import dataclasses
import io
import platform
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, Trial
from torch import nn

import optnas
from optnas.checkpoints import Checkpoints
from optnas.errors import UserError
from optnas.objectives import networks
from optnas.objectives.data import Images, load_images
from optnas.objectives.models import build_model, count_multiply_adds, count_params
from optnas.objectives.training import (
    NonFiniteLoss,
    Trainer,
    deterministic_algorithms,
)
from optnas.seeds import derive_seed, study_seed
from optnas.settings import DataSettings, TrainSettings
from optnas.spaces import Architecture, Space
from optnas.trials import (
    CANDIDATE,
    CONTINUES,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
    PHASE,
    TRAIN_ACCURACY,
    mark_failure,
    renew_lease,
)

MAX_EPOCHS = 1_000_000
FIRST_LEASE = 1800.0
"""Seconds promised for the first epoch, whose length nobody knows yet."""
LEAST_LEASE = 300.0
"""Seconds promised for an epoch, at least; ten times the last one, if that is more."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a candidate's training stands, after an epoch of it.

    Args:
        number: The trial.
        phase: What the strategy is doing, in a word.
        epoch: Finished epochs.
        epochs: Epochs in all.
        accuracy: Best validation accuracy so far, a fraction.
        seconds: Training time of the finished epochs.
    """

    number: int
    phase: str
    epoch: int
    epochs: int
    accuracy: float
    seconds: float


class Classification:
    """Objective that trains the suggested architecture and returns its validation accuracy.

    The value is the best accuracy on the held-out images over the epochs, a fraction; every
    epoch is reported, from 1. A training is a pure function of the study's seed, the
    architecture and its epochs; one that was cut off goes on from its checkpoint and ends the
    same. Recorded as user attributes: ``params``, ``multiply_adds``, ``train_accuracy``,
    ``train_seconds``, ``epochs_trained`` (by this trial itself), ``peak_memory_bytes``,
    ``device``, ``seed`` and ``versions``.

    A loss that is not finite and a network that cannot be built end as a failed trial with the
    reason. Running out of memory and broken limits end with the value 0 and a violated
    constraint.

    Args:
        space: The search space.
        images: The images, split.
        train: How to train. Without ``train.epochs`` the objective suggests ``epochs``.
        limits: Greatest ``params`` and ``multiply_adds`` of a feasible network.
        seed: Seed of the study. None derives one from the study's name.
        checkpoints: Where training state is kept while a trial runs; None keeps none.
        device: A torch device; None takes CUDA where there is one.
        on_epoch: Called after every epoch. An exception it raises ends the trial, and
            KeyboardInterrupt hands it back, to be continued.
    """

    def __init__(
        self,
        space: Space[Any],
        images: Images,
        *,
        train: TrainSettings | None = None,
        limits: Mapping[str, int] | None = None,
        seed: int | None = None,
        checkpoints: Checkpoints | None = None,
        device: str | torch.device | None = None,
        on_epoch: Callable[[Progress], None] | None = None,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.space = space
        self.images = images.to(self.device)
        self.train = train or TrainSettings()
        self._limits = dict(limits or {})
        self._seed = seed
        self.checkpoints = checkpoints
        self.on_epoch = on_epoch

    @classmethod
    def from_settings(
        cls,
        space: Space[Any],
        data: DataSettings,
        *,
        train: TrainSettings,
        limits: Mapping[str, int],
        seed: int,
        device: str | None,
    ) -> "Classification":
        """The objective of a study file.

        Raises:
            UserError: If the data or the device cannot be had.
        """
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"the device {device!r} cannot be used: {error}") from None
        images = load_images(data, seed)
        return cls(space, images, train=train, limits=limits, seed=seed, device=device)

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return self.images.in_channels

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.images.classes

    def __call__(self, trial: Trial) -> float:
        torch.set_num_threads(self.train.threads)
        architecture = self.space.suggest(trial)
        epochs = self.train.epochs or trial.suggest_int("epochs", 1, MAX_EPOCHS)
        try:
            with deterministic_algorithms(self.train.deterministic):
                return self._evaluate(trial, architecture, epochs)
        except CandidateFailure as failure:
            mark_failure(trial, CANDIDATE, str(failure))
            return float("nan")
        except torch.OutOfMemoryError as error:
            trial.set_constraint("memory", 1.0)
            trial.set_user_attr(FAILURE_REASON, f"out of memory: {error}".splitlines()[0])
            return 0.0
        except KeyboardInterrupt:
            mark_failure(trial, LOST, INTERRUPTED)
            raise
        except OSError as error:
            mark_failure(trial, LOST, f"{type(error).__name__}: {error}")
            raise

    def retrain(
        self,
        architecture: Architecture,
        folder: Path,
        *,
        epochs: int,
        origin: dict[str, Any],
        on_epoch: Callable[[int, int, float, float], None] | None = None,
    ) -> networks.Description:
        """Train a network fully, test it once, and keep it: see :func:`networks.retrain`."""
        return networks.retrain(
            architecture,
            self.images,
            self.train,
            folder,
            epochs=epochs,
            seed=0 if self._seed is None else self._seed,
            origin=origin,
            device=self.device,
            on_epoch=on_epoch,
        )

    def _evaluate(self, trial: Trial, architecture: Architecture, epochs: int) -> float:
        seed = derive_seed(
            study_seed(trial.study, self._seed),
            type(architecture).__name__,
            architecture.to_json(),
            epochs,
        )
        generator = torch.Generator().manual_seed(seed)
        try:
            model = build_model(
                architecture, self.images.input_shape, self.images.classes, generator
            )
        except (ValueError, RuntimeError) as error:
            raise CandidateFailure(f"cannot be built: {error}") from error
        if not self._is_feasible(trial, model):
            return 0.0
        trainer = Trainer(model.to(self.device), self.images, self.train, epochs=epochs, seed=seed)
        self._train(trial, trainer)
        return max(_accuracies(trainer))

    def _is_feasible(self, trial: Trial, model: nn.Module) -> bool:
        """Record what the network costs, and hold it to the limits."""
        costs = {
            "params": count_params(model),
            "multiply_adds": count_multiply_adds(model, self.images.input_shape),
        }
        for name, cost in costs.items():
            trial.set_user_attr(name, cost)
        for name, limit in self._limits.items():
            trial.set_constraint(name, float(costs[name] - limit))
        broken = [name for name, limit in self._limits.items() if costs[name] > limit]
        if broken:
            reason = ", ".join(f"{name} {costs[name]} > {self._limits[name]}" for name in broken)
            trial.set_user_attr(FAILURE_REASON, f"over the limit: {reason}")
        return not broken

    def _train(self, trial: Trial, trainer: Trainer) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        renew_lease(trial.storage, trial._trial_id, FIRST_LEASE)
        resumed = self._resume(trial, trainer)
        while trainer.epoch < trainer.epochs:
            try:
                result = trainer.train_epoch()
            except NonFiniteLoss as error:
                raise CandidateFailure(str(error)) from error
            self._save(trial, trainer)
            lease = max(LEAST_LEASE, 10 * result.seconds)
            renew_lease(trial.storage, trial._trial_id, lease)
            trial.report(_accuracies(trainer)[-1], trainer.epoch)
            if self.on_epoch is not None:
                self.on_epoch(_progress(trial, trainer))
            if trainer.epoch < trainer.epochs and trial.should_prune():
                self._finish(trial, trainer, resumed)
                raise optuna.TrialPruned(f"Pruned after epoch {trainer.epoch}.")
        self._finish(trial, trainer, resumed)

    def _finish(self, trial: Trial, trainer: Trainer, resumed: int) -> None:
        """Record what the training took, and drop its checkpoints."""
        attrs = {
            TRAIN_ACCURACY: max(result.train_accuracy for result in trainer.history),
            "train_seconds": sum(result.seconds for result in trainer.history),
            "epochs_trained": trainer.epoch - resumed,
            "peak_memory_bytes": self._peak_memory(),
            "device": self._device_name(),
            "seed": study_seed(trial.study, self._seed),
            "versions": {
                "optnas": optnas.__version__,
                "optuna": optuna.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        for name, value in attrs.items():
            trial.set_user_attr(name, value)
        if self.checkpoints is not None:
            self.checkpoints.remove(trial._trial_id)
            for lost in _ancestors(trial):
                self.checkpoints.remove(lost._trial_id)

    def _resume(self, trial: Trial, trainer: Trainer) -> int:
        """Go on from the nearest lost trial with a checkpoint. Returns its finished epochs.

        They are reported again, so that the pruner and the dashboard see one whole curve.
        """
        if self.checkpoints is None:
            return 0
        for lost in _ancestors(trial):
            state = self.checkpoints.load(lost)
            if state is not None:
                trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
                break
        for epoch, accuracy in enumerate(_accuracies(trainer), start=1):
            trial.report(accuracy, epoch)
        return trainer.epoch

    def _save(self, trial: Trial, trainer: Trainer) -> None:
        if self.checkpoints is None or trainer.epoch == trainer.epochs:
            return
        buffer = io.BytesIO()
        torch.save(trainer.state_dict(), buffer)
        self.checkpoints.save(trial._trial_id, trial.number, trainer.epoch, buffer.getvalue())

    def _peak_memory(self) -> int:
        """Bytes: of the device's tensors on CUDA, of the whole process on CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu ({self.train.threads} threads, {platform.machine()})"


class CandidateFailure(Exception):
    """A candidate cannot be judged; the message is the reason."""


def _progress(trial: Trial, trainer: Trainer) -> Progress:
    return Progress(
        number=trial.number,
        phase=trial.user_attrs.get(PHASE, ""),
        epoch=trainer.epoch,
        epochs=trainer.epochs,
        accuracy=max(_accuracies(trainer)),
        seconds=sum(result.seconds for result in trainer.history),
    )


def _accuracies(trainer: Trainer) -> list[float]:
    """Validation accuracy after every finished epoch."""
    # Never None: an objective has validation images.
    return [result.validation_accuracy or 0.0 for result in trainer.history]


def _ancestors(trial: Trial) -> Iterator[FrozenTrial]:
    """The lost trials that ``trial`` goes on from, nearest first."""
    number = trial.user_attrs.get(CONTINUES)
    if number is None:
        return
    trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
    while number is not None:
        yield trials[number]
        number = trials[number].user_attrs.get(CONTINUES)
