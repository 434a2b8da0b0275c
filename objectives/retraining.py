"""What an objective on images does with the networks that were found: train them fully."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optnas.config.settings import NetworkSettings, RetrainSettings, TrainSettings
from optnas.devices.ranks import join
from optnas.errors import UserError
from optnas.objectives.data.images import Images
from optnas.objectives.kept import ensembles, trained
from optnas.objectives.kept.descriptions import Description, EnsembleDescription
from optnas.objectives.kept.references import Reference, references_of
from optnas.objectives.networks.inference import inference_milliseconds
from optnas.objectives.networks.sizes import channels_of, resized
from optnas.objectives.training.trainer import Trainer
from optnas.seeds import derive_seed
from optnas.spaces import Architecture


class Retrains:
    """An objective that trains networks on images.

    Attributes:
        images: The images, in full.
        train: How candidates are trained.
        device: Where.
    """

    images: Images
    train: TrainSettings
    device: torch.device
    _network: dict[str, Any]
    _seed: int | None

    def _trainer(
        self, model: nn.Module, images: Images, settings: TrainSettings, **options: Any
    ) -> Trainer:
        """A training of a network; ``options`` are what else `Trainer` takes."""
        return Trainer(model, images, settings, **options)

    def _full_trainer(self, settings: RetrainSettings) -> Callable[..., Trainer]:
        """What makes the training of a network that is trained fully.

        Raises:
            UserError: If several processes are to train it together, and cannot.
        """
        ranks = join(self.device.type)
        if ranks.count == 1:
            return self._trainer
        if type(self)._trainer is not Retrains._trainer:
            raise UserError("this objective trains on one GPU: leave --gpus out")
        from optnas.objectives.training.distributed import DistributedTrainer

        return functools.partial(DistributedTrainer, ranks=ranks, local_norms=settings.local_norms)

    def _together(self, settings: RetrainSettings) -> dict[str, Any]:
        """What several processes make another training."""
        count = join(self.device.type).count
        return {"local_norms": count} if count > 1 and settings.local_norms else {}

    def _measured(self, trainer: Trainer, images: Images) -> dict[str, Any]:
        """What is said in the end of a network that has been trained."""
        return trained.tested(trainer, images)

    def _further_identity(self) -> Mapping[str, Any]:
        """What makes a training another one, beside what `trained.retrain` takes."""
        return {}

    def retrain(
        self,
        architecture: Architecture,
        folder: Path,
        settings: RetrainSettings,
        *,
        channels: int | None = None,
        network: NetworkSettings | None = None,
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
            network: Its size otherwise, where that is neither as found nor as ``settings`` say.
            repeat: Which training of the network this is, from 1; each has a seed of its own.
            origin: Where the architecture comes from, for the card.
            on_epoch: See `optnas.objectives.kept.trained`.

        Raises:
            UserError: As `optnas.objectives.kept.trained`, or if the network has no such size.
        """
        options = self._network
        asked: dict[str, Any] = {}
        for size in (settings.network, network):
            asked |= {} if size is None else size.model_dump(exclude_none=True)
        if channels is not None:
            asked["channels"] = channels
        if asked:
            found_with = channels_of(architecture, options)
            architecture, options = resized(architecture, options, asked)
            if "channels" in asked:
                asked["channels"] = f"{asked['channels']} (found with {found_with})"
            origin = {**origin, **asked}
        return trained.retrain(
            architecture,
            self._images_for(settings),
            settings.recipe(self.train),
            folder,
            network=options,
            compiled=settings.compile,
            seed=self._seed_of(repeat),
            origin=origin,
            device=self.device,
            on_epoch=on_epoch,
            make_trainer=self._full_trainer(settings),
            measure=self._measured,
            further_identity={**self._further_identity(), **self._together(settings)},
        )

    def reference(
        self,
        known: Reference,
        folder: Path,
        settings: RetrainSettings,
        *,
        repeat: int = 1,
        on_epoch: Callable[[int, int, float, float], None] | None = None,
    ) -> Description:
        """Train a known network as those that were found: by their recipe, on their images.

        Drop-path and the auxiliary loss, which it has not, are left out.

        Args:
            known: The network.
            folder: Where it goes.
            settings: As of `retrain`, without the size of the network.
            repeat: As of `retrain`, with the same seeds.
            on_epoch: As of `retrain`.

        Raises:
            UserError: As `retrain`, or if its weights cannot be read.
        """
        origin: dict[str, Any] = {"network": f"timm's {known.architecture.name}"}
        if known.weights is not None:
            origin["weights"] = known.weights.name

        begin = self._full_trainer(settings)

        def make(model: nn.Module, *arguments: Any, **options: Any) -> Trainer:
            known.load_into(model)
            return begin(model, *arguments, **options)

        recipe = settings.recipe(self.train)
        return trained.retrain(
            known.architecture,
            self._images_for(settings),
            recipe.model_copy(update={"drop_path": 0.0, "auxiliary": 0.0}),
            folder,
            network={},
            compiled=settings.compile,
            seed=self._seed_of(repeat),
            origin=origin,
            device=self.device,
            on_epoch=on_epoch,
            make_trainer=make,
            further_identity={**known.checksum(), **self._together(settings)},
        )

    def references(self, text: str) -> list[Reference]:
        """The known networks that an option names: see `references_of`."""
        return references_of(text)

    def inference_milliseconds(self, folder: Path) -> float:
        """Milliseconds of a kept network for one image, on one thread of this machine's CPU."""
        description, network = trained.read(folder)
        return inference_milliseconds(network, description.input_shape)

    def _images_for(self, settings: RetrainSettings) -> Images:
        if settings.augment is None:
            return self.images
        side = min(self.images.input_shape[1:])
        recipe = self.images.augmentation.restricted(settings.augment, side)
        return dataclasses.replace(self.images, augmentation=recipe)

    def _seed_of(self, repeat: int) -> int:
        seed = 0 if self._seed is None else self._seed
        return seed if repeat == 1 else derive_seed("repeat", seed, repeat)

    def test_digest(self) -> str:
        """What tells the test images and their classes from others."""
        images = self.images
        shown = dataclasses.replace(
            images, train_images=images.test_images, train_labels=images.test_labels
        )
        return f"{trained.digest(shown)} {images.class_names}"

    def ensemble(self, members: Sequence[Path], folder: Path) -> EnsembleDescription:
        """Make one of networks that `retrain` kept: see :func:`ensembles.combine`.

        Args:
            members: Their folders.
            folder: Where the ensemble goes.

        Raises:
            UserError: As of :func:`ensembles.combine`.
        """
        return ensembles.combine(members, self.images, folder, self.device)
