"""The objective: train one architecture on images, report every epoch, return its accuracy."""

import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, Trial
from torch import nn

from optnas.config.contract import strategy_of
from optnas.config.proxy import Proxy
from optnas.config.settings import (
    CheckpointSettings,
    DataSettings,
    NetworkSettings,
    TrainSettings,
    initial_recipe,
)
from optnas.errors import first_line
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.feasibility import record_costs
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.inference import inference_times
from optnas.objectives.networks.sizes import candidate_network, check_settings
from optnas.objectives.rehearsal import Rehearses
from optnas.objectives.retraining import Retrains
from optnas.objectives.suggested import suggest_epochs
from optnas.objectives.training.at_work import at_work
from optnas.objectives.training.memory import bound_compiled_code, is_out_of_memory, release
from optnas.objectives.training.metrics import Metric, check_metric
from optnas.objectives.training.neighbours import here
from optnas.objectives.training.progress import Progress
from optnas.objectives.training.records import check_device, record_circumstances, record_memory
from optnas.objectives.training.trainer import Trainer
from optnas.objectives.training.trial_training import CandidateFailure, TrialTraining, parent_trial
from optnas.seeds import derive_seed, study_seed
from optnas.spaces import Architecture, Space
from optnas.storage.checkpoints import Checkpoints
from optnas.trials.attributes import (
    CANDIDATE,
    FAILURE_REASON,
    INTERRUPTED,
    LOST,
    MACHINE,
    SCHEDULE,
    TRAINING_SEED,
)
from optnas.trials.failures import mark_failure, one_line


class Classification(Retrains, Rehearses):
    """Objective that trains the suggested architecture and returns its validation accuracy.

    The value is the best accuracy on the held-out images over the epochs, a fraction; every
    epoch is reported, from 1. A training is a pure function of the study's seed, the
    architecture, its epochs and, where it starts from a parent's weights, the parent's training;
    one that was cut off goes on from its checkpoint and ends the same. A trial has a parent if it
    says so, by a parameter or a user attribute ``parent``: every tensor of the network with the
    name and shape of one of the parent's is copied.

    Recorded as user attributes: ``params``, ``multiply_adds`` and ``memory_bytes`` (see
    :class:`optnas.objectives.networks.costs.ForwardCosts`), ``train_accuracy``, ``train_seconds``,
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

    Several threads may call it at once: they share the images and the device, where each computes
    on a stream of its own. What runs out of memory beside others is first trained alone.

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
        metric: What is maximised on the validation images: accuracy, the mean recall of the
            classes, the mean F1 of the classes, or how often the class is among the five most
            probable.
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
        metric: Metric = "accuracy",
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
        check_metric(metric, images.classes)
        self.metric = metric

    @classmethod
    def load_images(
        cls,
        data: DataSettings,
        *,
        seed: int,
        proxy: Proxy | None = None,
        folder: Path | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> Images:
        """The images of a study file, as many as the proxy leaves.

        Args:
            data: Which images.
            seed: Seed of the study.
            proxy: The reduced setting; None is the full one.
            folder: Where modules are looked for; see :func:`optnas.objectives.data.load_images`.
            known: What the study has recorded of its data.

        Raises:
            UserError: If the data cannot be had.
        """
        if proxy is not None:
            data = data.model_copy(update={"samples": proxy.samples(data.samples)})
        return cls._load(data, seed, folder, known)

    @staticmethod
    def _load(
        data: DataSettings, seed: int, folder: Path | None, known: Mapping[str, Any] | None
    ) -> Images:
        return load_images(data, seed, folder, known=known)

    inference_times = staticmethod(inference_times)

    @classmethod
    def from_settings(
        cls,
        space: Space[Any],
        data: DataSettings,
        *,
        images: Images | None = None,
        train: TrainSettings,
        network: NetworkSettings | None = None,
        proxy: Proxy | None = None,
        limits: Mapping[str, int],
        seed: int,
        checkpoint: CheckpointSettings | None = None,
        checkpoints: Checkpoints | None = None,
        on_epoch: Callable[[Progress], None] | None = None,
        device: str | None,
        **options: Any,
    ) -> Self:
        """The objective of a study file; ``options`` are those of a subclass.

        Args:
            space: The search space.
            data: Which images.
            images: The same, if they are loaded.
            train: As of the constructor, which takes the other arguments too.

        Raises:
            UserError: If the data or the device cannot be had, or the networks of the space have
                not what ``network`` or ``proxy`` ask for.
        """
        check_device(device)
        objective = cls(
            space,
            cls.load_images(data, seed=seed, proxy=proxy) if images is None else images,
            train=train,
            network=network,
            proxy=proxy,
            limits=limits,
            seed=seed,
            checkpoint=checkpoint,
            checkpoints=checkpoints,
            on_epoch=on_epoch,
            device=device,
            **options,
        )
        example, seen = space.random(np.random.default_rng(0)), objective.images
        check_settings(example, objective._network, train, seen.input_shape, seen.classes)
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
            mark_failure(trial, LOST, f"{MACHINE}{one_line(error)}")
            raise
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release(error, self.device)
            trial.set_constraint("memory", 1.0)
            trial.set_user_attr(FAILURE_REASON, f"out of memory: {first_line(error)}")
            return 0.0

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
        with at_work(trial, self.train, self.device):
            return self._evaluate(trial, architecture)

    def _evaluate(self, trial: Trial, architecture: Architecture) -> float:
        trials = trial.storage.get_all_trials(trial.study._study_id, deepcopy=False)
        parent = parent_trial(trial, trials)
        recipe, epochs = self._recipe(trial, is_child=parent is not None)
        # A trial that trains the beginning of a longer schedule may be continued by another.
        schedule = trial.user_attrs.get(SCHEDULE, epochs)
        seed = self._training_seed(trial, architecture, schedule, parent)
        sized, options = self._sized(architecture)
        model = self._build(sized, options, seed)
        if not record_costs(trial, model, self._shown.input_shape, self._limits):
            return 0.0
        further = self.further_epochs(trial)

        def begun() -> TrialTraining:
            trainer = self._trainer(
                model.to(self.device),
                self._shown,
                recipe,
                epochs=schedule,
                further_epochs=further,
                seed=seed,
                metric=self.metric,
            )
            training = self._training(trial, trainer)
            if not training.resume(trials):
                self._begin(training, parent, sized)
            return training

        training = here().fitting(begun)
        try:
            training.run(epochs)
            here().fitting(lambda: self.trained(trial, training.trainer))
            if further:
                training.run(epochs + further)
        finally:
            record_memory(trial, self.device)
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
        return self.space.inherits or strategy_of(trial.study.sampler).inherits

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
            return train, suggest_epochs(trial)
        if not is_child and self._inherits(trial):
            train = initial_recipe(train)
        return train, train.epochs or 0

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

    def _sized(self, architecture: Architecture) -> tuple[Architecture, dict[str, Any]]:
        """The architecture and the options of the network that judges it."""
        return candidate_network(architecture, self._network, self.train, self._proxy)

    def _record_circumstances(self, trial: Trial) -> None:
        seed, shape = study_seed(trial.study, self._seed), self._shown.input_shape
        record_circumstances(trial, shape, self.device, threads=self.train.threads, seed=seed)
