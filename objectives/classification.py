"""The objective: train one architecture on images, report every epoch, return its accuracy."""

import dataclasses
import io
import platform
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
import torch
from optuna.trial import Trial
from torch import nn

import optnas
from optnas.checkpoints import Checkpoints, ancestors
from optnas.errors import UserError
from optnas.objectives import networks
from optnas.objectives.data import Images, load_images
from optnas.objectives.descriptions import Description
from optnas.objectives.models import build_model, count_multiply_adds, count_params
from optnas.objectives.progress import Progress
from optnas.objectives.sizes import check_options, check_training, with_fewer_channels
from optnas.objectives.training import NonFiniteLoss, Trainer, deterministic_algorithms
from optnas.proxies import Proxy
from optnas.seeds import derive_seed, study_seed
from optnas.settings import DataSettings, NetworkSettings, RetrainSettings, TrainSettings
from optnas.spaces import Architecture, Space
from optnas.trials import (
    CANDIDATE,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
    MAX_EPOCHS,
    PHASE,
    SCHEDULE,
    TRAIN_ACCURACY,
    TRAIN_SECONDS,
    mark_failure,
    renew_lease,
)

FIRST_LEASE = 1800.0
"""Seconds promised for the first epoch, whose length nobody knows yet."""
LEAST_LEASE = 300.0
"""Seconds promised for an epoch, at least; ten times the last one, if that is more."""


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
        network: The size of the networks, for spaces that leave it open.
        proxy: The reduced setting in which candidates are judged; its epochs and its samples are
            those of ``train`` and ``images`` already. None is the full setting.
        limits: Greatest ``params`` and ``multiply_adds`` of a feasible network.
        seed: Seed of the study. None derives one from the study's name.
        checkpoints: Where training state is kept after every epoch; None keeps none. Give
            ``checkpoints.clean`` to ``study.optimize`` as a callback, to delete what is done.
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
        network: NetworkSettings | None = None,
        proxy: Proxy | None = None,
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
        self._network = (network or NetworkSettings()).model_dump(exclude_none=True)
        self._proxy = proxy
        self._shown = self.images
        if proxy is not None and proxy.r > 0:
            self._shown = self.images.reduced(proxy.side)
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
        network: NetworkSettings | None = None,
        proxy: Proxy | None = None,
        limits: Mapping[str, int],
        seed: int,
        device: str | None,
    ) -> Self:
        """The objective of a study file.

        Raises:
            UserError: If the data or the device cannot be had, or the networks of the space have
                not what ``network`` or ``proxy`` ask for.
        """
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"the device {device!r} cannot be used: {error}") from None
        if proxy is not None:
            data = data.model_copy(update={"samples": proxy.samples(data.samples)})
        objective = cls(
            space,
            load_images(data, seed),
            train=train,
            network=network,
            proxy=proxy,
            limits=limits,
            seed=seed,
            device=device,
        )
        example = space.random(np.random.default_rng(0))
        check_options(example, objective._network)
        check_training(example, train)
        objective._sized(example)
        return objective

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
        try:
            architecture = self.space.suggest(trial)
            epochs = self.train.epochs or trial.suggest_int("epochs", 1, MAX_EPOCHS)
            self._record_circumstances(trial)
            with deterministic_algorithms(self.train.deterministic):
                return self._evaluate(trial, architecture, epochs)
        except CandidateFailure as failure:
            mark_failure(trial, CANDIDATE, str(failure))
            return float("nan")
        except KeyboardInterrupt:
            mark_failure(trial, LOST, INTERRUPTED)
            raise
        except OSError as error:
            mark_failure(trial, LOST, f"{type(error).__name__}: {error}")
            raise
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            trial.set_constraint("memory", 1.0)
            reason = str(error).partition("\n")[0]
            trial.set_user_attr(FAILURE_REASON, f"out of memory: {reason}")
            return 0.0

    def retrain(
        self,
        architecture: Architecture,
        folder: Path,
        settings: RetrainSettings,
        *,
        origin: dict[str, Any],
        on_epoch: Callable[[int, int, float, float], None] | None = None,
    ) -> Description:
        """Train a network fully, test it once, and keep it: see :func:`networks.retrain`."""
        said = settings.model_dump(exclude_none=True, exclude={"top", "augment"})
        images = self.images
        if settings.augment is not None:
            side = min(images.input_shape[1:])
            recipe = images.augmentation.restricted(settings.augment, side)
            images = dataclasses.replace(images, augmentation=recipe)
        return networks.retrain(
            architecture,
            images,
            self.train.model_copy(update=said),
            folder,
            network=self._network,
            seed=0 if self._seed is None else self._seed,
            origin=origin,
            device=self.device,
            on_epoch=on_epoch,
        )

    def _evaluate(self, trial: Trial, architecture: Architecture, epochs: int) -> float:
        # A trial that trains the beginning of a longer schedule may be continued by another.
        schedule = trial.user_attrs.get(SCHEDULE, epochs)
        seed = derive_seed(
            study_seed(trial.study, self._seed),
            type(architecture).__name__,
            architecture.to_json(),
            schedule,
        )
        generator = torch.Generator().manual_seed(seed)
        shape, classes = self._shown.input_shape, self._shown.classes
        sized, options = self._sized(architecture)
        try:
            model = build_model(sized, shape, classes, generator, **options)
        except (ValueError, RuntimeError) as error:
            if _is_out_of_memory(error):
                raise
            raise CandidateFailure(f"cannot be built: {error}") from error
        if not self._is_feasible(trial, model):
            return 0.0
        trainer = Trainer(
            model.to(self.device), self._shown, self.train, epochs=schedule, seed=seed
        )
        self._train(trial, trainer, epochs)
        return max(_accuracies(trainer))

    def _is_feasible(self, trial: Trial, model: nn.Module) -> bool:
        """Record what the network costs, and hold it to the limits."""
        costs = {
            "params": count_params(model),
            "multiply_adds": count_multiply_adds(model, self._shown.input_shape),
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

    def _sized(self, architecture: Architecture) -> tuple[Architecture, dict[str, Any]]:
        """The architecture and the options of the network that judges it."""
        options = dict(self._network)
        if self.train.auxiliary:
            options["auxiliary"] = True
        if self._proxy is None or self._proxy.c == 0:
            return architecture, options
        return with_fewer_channels(architecture, options, self._proxy.channels)

    def _train(self, trial: Trial, trainer: Trainer, epochs: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        renew_lease(trial.storage, trial._trial_id, FIRST_LEASE)
        resumed = self._resume(trial, trainer)
        while trainer.epoch < epochs:
            # Before the epoch, so that a training that goes on is pruned where it would have been.
            if trainer.epoch and trial.should_prune():
                self._finish(trial, trainer, resumed)
                raise optuna.TrialPruned(f"Pruned after epoch {trainer.epoch}.")
            try:
                result = trainer.train_epoch()
            except NonFiniteLoss as error:
                raise CandidateFailure(str(error)) from error
            self._save(trial, trainer)
            lease = max(LEAST_LEASE, 10 * result.seconds)
            renew_lease(trial.storage, trial._trial_id, lease)
            self._report(trial, trainer, trainer.epoch)
            if self.on_epoch is not None:
                self.on_epoch(_progress(trial, trainer, epochs))
        self._finish(trial, trainer, resumed)

    def _record_circumstances(self, trial: Trial) -> None:
        attrs = {
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

    def _finish(self, trial: Trial, trainer: Trainer, resumed: int) -> None:
        """Record what came of the training and what it took."""
        accuracy = max(result.train_accuracy for result in trainer.history)
        trial.set_user_attr(TRAIN_ACCURACY, accuracy)
        trial.set_user_attr("epochs_trained", trainer.epoch - resumed)
        trial.set_user_attr("peak_memory_bytes", self._peak_memory())

    def _report(self, trial: Trial, trainer: Trainer, first: int) -> None:
        """Report the epochs from ``first`` on, and the seconds so far, which budgets count."""
        for epoch, accuracy in enumerate(_accuracies(trainer)[first - 1 :], start=first):
            trial.report(accuracy, epoch)
        trial.set_user_attr(TRAIN_SECONDS, _seconds(trainer))

    def _resume(self, trial: Trial, trainer: Trainer) -> int:
        """Go on from the nearest lost trial with a checkpoint. Returns its finished epochs.

        They are reported again, so that the pruner and the dashboard see one whole curve.
        """
        if self.checkpoints is None:
            return 0
        trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
        for lost in ancestors(trials, trial):
            state = self.checkpoints.load(lost)
            if state is not None:
                trainer.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
                self._report(trial, trainer, 1)
                break
        return trainer.epoch

    def _save(self, trial: Trial, trainer: Trainer) -> None:
        if self.checkpoints is None:
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


def _progress(trial: Trial, trainer: Trainer, epochs: int) -> Progress:
    return Progress(
        number=trial.number,
        phase=trial.user_attrs.get(PHASE, ""),
        epoch=trainer.epoch,
        epochs=epochs,
        accuracy=max(_accuracies(trainer)),
        seconds=_seconds(trainer),
    )


def _seconds(trainer: Trainer) -> float:
    return sum(result.seconds for result in trainer.history)


def _accuracies(trainer: Trainer) -> list[float]:
    """Validation accuracy after every finished epoch."""
    # Never None: an objective has validation images.
    return [result.validation_accuracy or 0.0 for result in trainer.history]


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch has no class for main memory.
    known = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, known) or "DefaultCPUAllocator" in str(error)
