"""The objective: train one architecture on images, report every epoch, return its accuracy."""

import dataclasses
import platform
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, Trial
from torch import nn

from optnas._version import __version__
from optnas.config.proxy import Proxy
from optnas.config.settings import (
    CheckpointSettings,
    DataSettings,
    NetworkSettings,
    RetrainSettings,
    TrainSettings,
)
from optnas.errors import UserError
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.kept import ensembles, trained
from optnas.objectives.kept.descriptions import Description, EnsembleDescription
from optnas.objectives.networks.build import build_model, count_params, forward_costs
from optnas.objectives.networks.sizes import (
    channels_of,
    check_options,
    check_training,
    judged,
    with_channels,
)
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.memory import (
    bound_compiled_code,
    device_memory,
    is_out_of_memory,
    peak_memory,
    release,
    reset_peak_memory,
)
from optnas.objectives.training.progress import Progress
from optnas.objectives.training.trainer import Trainer, deterministic_algorithms
from optnas.objectives.training.trial_training import CandidateFailure, TrialTraining
from optnas.seeds import derive_seed, study_seed
from optnas.spaces import Architecture, Space
from optnas.storage.checkpoints import Checkpoints
from optnas.trials.attributes import (
    CANDIDATE,
    DEVICE_MEMORY,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
    MAX_EPOCHS,
    SCHEDULE,
    TRAINING_SEED,
)
from optnas.trials.failures import mark_failure
from optnas.trials.lineage import parent_of


class Classification:
    """Objective that trains the suggested architecture and returns its validation accuracy.

    The value is the best accuracy on the held-out images over the epochs, a fraction; every
    epoch is reported, from 1. A training is a pure function of the study's seed, the
    architecture, its epochs and, where it starts from a parent's weights, the parent's training;
    one that was cut off goes on from its checkpoint and ends the same. A trial has a parent if it
    says so, by a parameter or a user attribute ``parent``: every tensor of the network with the
    name and shape of one of the parent's is copied.

    Recorded as user attributes: ``params``, ``multiply_adds`` and ``memory_bytes`` (see
    :class:`optnas.objectives.networks.build.ForwardCosts`), ``train_accuracy``, ``train_seconds``,
    ``train_joules`` where the device counts them, ``epochs_trained`` (by this trial itself),
    ``peak_memory_bytes``, ``device_memory`` on CUDA (see
    `optnas.objectives.training.memory`), ``input_shape``, ``device``, ``seed``, ``versions``,
    ``training_seed``, ``inherited_tensors``, ``accumulation`` and, on CUDA,
    ``eager_reason`` (see :class:`optnas.objectives.training.trainer.Trainer`).

    A loss that is not finite and a network that cannot be built end as a failed trial with the
    reason. A training that runs out of memory goes on once more with every batch in two parts
    (``accumulation``: 2), which leaves the gradients what they are but lets batch normalisation
    see halves: it is a function of the device too. If that does not help, the trial ends with the
    value 0 and a violated constraint ``memory``; broken limits end alike.

    Args:
        space: The search space.
        images: The images, split.
        train: How to train. Without ``train.epochs`` the objective suggests ``epochs``.
        network: The size of the networks, for spaces that leave it open.
        proxy: The reduced setting in which candidates are judged; its epochs and its samples are
            those of ``train`` and ``images`` already. None is the full setting.
        limits: Greatest ``params`` and ``multiply_adds`` of a feasible network.
        seed: Seed of the study. None derives one from the study's name.
        checkpoints: Where training state is kept; None keeps none. Give ``checkpoints.clean`` to
            ``study.optimize`` as a callback, to delete what is done.
        checkpoint: How often it is kept.
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
        checkpoint: CheckpointSettings | None = None,
        device: str | torch.device | None = None,
        on_epoch: Callable[[Progress], None] | None = None,
    ) -> None:
        bound_compiled_code()
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
        self._checkpoint = checkpoint or CheckpointSettings.model_validate({})
        self.on_epoch = on_epoch

    @staticmethod
    def load_images(
        data: DataSettings,
        *,
        seed: int,
        proxy: Proxy | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> Images:
        """The images of a study file, as many as the proxy leaves.

        Args:
            data: Which images.
            seed: Seed of the study.
            proxy: The reduced setting; None is the full one.
            known: What the study has recorded of its data.

        Raises:
            UserError: If the data cannot be had.
        """
        if proxy is not None:
            data = data.model_copy(update={"samples": proxy.samples(data.samples)})
        return load_images(data, seed, known=known)

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
        checkpoint: CheckpointSettings | None = None,
        device: str | None,
        known: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """The objective of a study file; ``options`` are those of a subclass.

        Raises:
            UserError: If the data or the device cannot be had, or the networks of the space have
                not what ``network`` or ``proxy`` ask for.
        """
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"the device {device!r} cannot be used: {error}") from None
        objective = cls(
            space,
            cls.load_images(data, seed=seed, proxy=proxy, known=known),
            train=train,
            network=network,
            proxy=proxy,
            limits=limits,
            seed=seed,
            checkpoint=checkpoint,
            device=device,
            **options,
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
        reset_peak_memory(self.device)
        try:
            return self._judge(trial)
        except optuna.TrialPruned as pruned:
            # Optuna's loop and the exception hold each other, and with them the network, until
            # the garbage collector comes by.
            traceback.clear_frames(pruned.__traceback__)
            raise
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
            if not is_out_of_memory(error):
                raise
            release(error, self.device)
            trial.set_constraint("memory", 1.0)
            reason = str(error).partition("\n")[0]
            trial.set_user_attr(FAILURE_REASON, f"out of memory: {reason}")
            self._record_peak_memory(trial)
            return 0.0

    def retrain(
        self,
        architecture: Architecture,
        folder: Path,
        settings: RetrainSettings,
        *,
        channels: int | None = None,
        repeat: int = 1,
        origin: dict[str, Any],
        on_epoch: Callable[[int, int, float, float], None] | None = None,
    ) -> Description:
        """Train a network fully, test it once, and keep it: see `optnas.objectives.kept.trained`.

        Args:
            architecture: What to train.
            folder: Where the network goes.
            settings: How to train, where that is not as in the search.
            channels: Channels of its first layers; None leaves those it was found with.
            repeat: Which training of the network this is, from 1; each has a seed of its own.
            origin: Where the architecture comes from, for the card.
            on_epoch: See `optnas.objectives.kept.trained`.

        Raises:
            UserError: As `optnas.objectives.kept.trained`, or if there are no channels to choose.
        """
        images, options = self.images, self._network
        if settings.augment is not None:
            side = min(images.input_shape[1:])
            recipe = images.augmentation.restricted(settings.augment, side)
            images = dataclasses.replace(images, augmentation=recipe)
        if channels is not None:
            found_with = channels_of(architecture, options)
            architecture, options = with_channels(architecture, options, channels)
            origin = {**origin, "channels": f"{channels} (found with {found_with})"}
        seed = 0 if self._seed is None else self._seed
        return trained.retrain(
            architecture,
            images,
            settings.recipe(self.train),
            folder,
            network=options,
            compiled=settings.compile,
            seed=seed if repeat == 1 else derive_seed("repeat", seed, repeat),
            origin=origin,
            device=self.device,
            on_epoch=on_epoch,
        )

    def ensemble(self, members: Sequence[Path], folder: Path) -> EnsembleDescription:
        """Make one of networks that `retrain` kept: see :func:`ensembles.combine`.

        Args:
            members: Their folders.
            folder: Where the ensemble goes.

        Raises:
            UserError: As of :func:`ensembles.combine`.
        """
        return ensembles.combine(members, self.images, folder, self.device)

    def trained(self, trial: Trial, trainer: Trainer) -> None:
        """Called when a network has been trained, for what a subclass measures.

        Args:
            trial: The trial, still running.
            trainer: Its training, with the network and the images. It may have gone further, if
                an earlier trial was lost after it had been measured.
        """

    def further_epochs(self, trial: Trial) -> int:
        """Epochs for which a network is trained after it was measured: none, but in subclasses."""
        return 0

    def _judge(self, trial: Trial) -> float:
        """The value of a trial."""
        architecture = self.space.suggest(trial)
        self._record_circumstances(trial)
        with deterministic_algorithms(self.train.deterministic), kept_memory():
            return self._evaluate(trial, architecture)

    def _evaluate(self, trial: Trial, architecture: Architecture) -> float:
        trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
        parent = _parent(trial, trials)
        recipe, epochs = self._recipe(trial, is_child=parent is not None)
        # A trial that trains the beginning of a longer schedule may be continued by another.
        schedule = trial.user_attrs.get(SCHEDULE, epochs)
        seed = self._training_seed(trial, architecture, schedule, parent)
        sized, options = self._sized(architecture)
        model = self._build(sized, options, seed)
        if not self._is_feasible(trial, model):
            return 0.0
        further = self.further_epochs(trial)
        trainer = Trainer(
            model.to(self.device),
            self._shown,
            recipe,
            epochs=schedule,
            further_epochs=further,
            seed=seed,
        )
        training = self._training(trial, trainer)
        if not training.resume(trials):
            self._begin(training, parent, sized)
        try:
            training.run(epochs)
            self.trained(trial, trainer)
            if further:
                training.run(epochs + further)
        finally:
            self._record_peak_memory(trial)
        return training.accuracy

    def _training(self, trial: Trial, trainer: Trainer, *, prunable: bool = True) -> TrialTraining:
        """A training of ``trial``, not begun."""
        return TrialTraining(
            trial,
            trainer,
            checkpoints=self.checkpoints,
            settings=self._checkpoint,
            inherited=self._inherits(trial),
            prunable=prunable,
            on_epoch=self.on_epoch,
        )

    def _inherits(self, trial: Trial) -> bool:
        """Whether networks of the study start from the weights of others."""
        return self.space.inherits or getattr(trial.study.sampler, "inherits", False)

    def _begin(
        self, training: TrialTraining, parent: FrozenTrial | None, child: Architecture
    ) -> None:
        """Give a network that is not resumed the weights that it starts from."""
        if parent is None:
            return
        before, _ = self._sized(self.space.from_trial(parent))
        try:
            training.inherit(parent, before, child)
        except CandidateFailure as failure:
            if self.space.inherits:
                raise
            # The network stands for itself, and no search should end differently for a lost file.
            warnings.warn(f"{failure}: it starts from random weights.", stacklevel=2)

    def _recipe(self, trial: Trial, *, is_child: bool) -> tuple[TrainSettings, int]:
        """How to train, and for how many epochs."""
        train = self.train
        if train.epochs is None:
            return train, trial.suggest_int("epochs", 1, MAX_EPOCHS)
        if train.initial_epochs is not None and not is_child and self._inherits(trial):
            return train.model_copy(update={"cycles": 1}), train.initial_epochs
        return train, train.epochs

    def _training_seed(
        self, trial: Trial, architecture: Architecture, schedule: int, parent: FrozenTrial | None
    ) -> int:
        """What the training is a function of; never the numbers of trials."""
        seed = derive_seed(
            study_seed(trial.study, self._seed),
            type(architecture).__name__,
            architecture.to_json(),
            schedule,
            *self._lineage(parent),
        )
        trial.set_user_attr(TRAINING_SEED, seed)
        return seed

    def _lineage(self, parent: FrozenTrial | None) -> list[Any]:
        """What tells the weights that a network starts from; nothing for random ones."""
        return [] if parent is None else [parent.user_attrs.get(TRAINING_SEED)]

    def _build(self, sized: Architecture, options: dict[str, Any], seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        shape, classes = self._shown.input_shape, self._shown.classes
        try:
            return build_model(sized, shape, classes, generator, **options)
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise CandidateFailure(f"cannot be built: {error}") from error

    def _is_feasible(self, trial: Trial, model: nn.Module) -> bool:
        """Record what the network costs, and hold it to the limits."""
        forward = forward_costs(model, self._shown.input_shape)
        costs = {"params": count_params(model), **vars(forward)}
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
        return judged(architecture, self._network, self.train, self._proxy)

    def _record_circumstances(self, trial: Trial) -> None:
        attrs = {
            "input_shape": list(self._shown.input_shape),
            "device": self._device_name(),
            "seed": study_seed(trial.study, self._seed),
            "versions": {
                "optnas": __version__,
                "optuna": optuna.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        for name, value in attrs.items():
            trial.set_user_attr(name, value)

    def _record_peak_memory(self, trial: Trial) -> None:
        peak = peak_memory(self.device)
        if peak is not None:
            trial.set_user_attr("peak_memory_bytes", peak)
        held = device_memory(self.device)
        if held is not None:
            trial.set_user_attr(DEVICE_MEMORY, held)

    def _device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu ({self.train.threads} threads, {platform.machine()})"


def _parent(trial: Trial, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial that ``trial`` starts from, or None."""
    number = parent_of(trial)
    if number is None:
        return None
    if number >= len(trials) or not trials[number].state.is_finished():
        raise CandidateFailure(f"its parent, trial {number}, is no finished trial of the study")
    return trials[number]
