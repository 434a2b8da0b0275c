"""Kept networks as modules that take images as people have them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optnas.objectives.kept.prediction import BATCH, KeptNetwork, Prediction, predictions, single
from optnas.objectives.kept.preprocessing import Preprocessing, normalised


class ImageClassifier(KeptNetwork):
    """Something that gives logits of images, and names to what it sees.

    Args:
        input_shape: Channels, height and width of the images.
        preprocessing: How images become so.
        class_names: The names of the classes, in the order of the outputs.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        class_names: tuple[str, ...],
    ) -> None:
        super().__init__(input_shape, preprocessing)
        self.class_names = class_names

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes), on the CPU, of images that ``forward`` takes."""
        return self._judged(images).softmax(1).cpu()

    def predict(
        self, x: Any, top: int = 1, *, batch_size: int = BATCH
    ) -> Prediction | list[Prediction]:
        """The most probable classes of images of any size, made ready as in training.

        Args:
            x: A path, a folder (everything in it and below), a PIL image, an array or a tensor of
                one image or of several, or a list of these. Arrays are uint8, uint16 or floats in
                [0, 1], and (H, W), (H, W, C), (C, H, W), or the same after N.
            top: How many classes are named.
            batch_size: How many images are answered at once.

        Returns:
            One for a single image, else one for each, in order. An image that cannot be read has
            no labels and an ``error``.

        Raises:
            ValueError: If it is nothing that holds images, or a single image that cannot be read.
        """
        sources, is_several = self.reader.sources(x)
        return single(list(self.predict_each(sources, top, batch_size=batch_size)), is_several)

    def predict_each(
        self, sources: Sequence[Any], top: int = 1, *, batch_size: int = BATCH
    ) -> Iterator[Prediction]:
        """As `predict`, of single images, one after the other."""
        return predictions(
            self.probabilities,
            self.reader,
            sources,
            self.class_names,
            top=top,
            batch_size=batch_size,
        )

    def columns(self, top: int) -> list[str]:
        """The names of a prediction's cells."""
        numbers = ["", *(f"_{number}" for number in range(2, top + 1))]
        return [f"{name}{number}" for number in numbers for name in ("label", "probability")]


class Classifier(ImageClassifier):
    """A trained network that takes images of the size of its training.

    Args:
        network: The network, which takes normalised images.
        mean: Mean of every channel of the training images, in [0, 1].
        std: Their standard deviations.
        class_names: The names of the classes, in the order of the outputs.
        input_shape: Channels, height and width of the training images.
        preprocessing: How they were made of files.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: tuple[str, ...],
        input_shape: tuple[int, int, int],
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(input_shape, preprocessing, class_names)
        self.network = network
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        """Logits.

        Args:
            images: Shape (N, C, H, W) of the training: uint8, or floats in [0, 1].

        Returns:
            Shape (N, classes).

        Raises:
            ValueError: If the images are others. What is compiled or exported does not look.
        """
        inputs = normalised(images, self.input_shape, self.mean, self.std)
        result: Tensor = self.network(inputs)
        return result


class Ensemble(ImageClassifier):
    """Classifiers that answer together.

    Args:
        members: The classifiers, of the same images and classes.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        first = members[0]
        super().__init__(first.input_shape, first.preprocessing, first.class_names)
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits: the logarithm of the mean of the members' probabilities.

        Args:
            images: As of `Classifier`.

        Returns:
            Shape (N, classes).
        """
        logs = torch.stack([member(images).log_softmax(1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(logs))
