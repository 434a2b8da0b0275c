"""Kept face networks as modules: aligned faces go in, embeddings come out."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.errors import UserError
from optnas.objectives.kept.prediction import BATCH, KeptNetwork, answered, single
from optnas.objectives.kept.preprocessing import Preprocessing, normalised

FAR = 0.01
"""The false accept rate whose threshold is taken where none is named."""
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Embedding:
    """What a face network says of one image.

    Args:
        source: The file, or None of what was no file.
        vector: The embedding, of length 1; empty if the image cannot be read.
        error: Why it cannot be read; None if it can.
    """

    source: str | None
    vector: tuple[float, ...] = ()
    error: str | None = None

    def fields(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"file": self.source, "embedding": list(self.vector), "error": self.error}

    def text(self) -> str:
        """The same in a line, cut short."""
        shown = ", ".join(f"{number:.4f}" for number in self.vector[:_SHOWN])
        return f"embedding of {len(self.vector)} numbers: {shown}, ..."

    def cells(self) -> list[str]:
        """The numbers of a table's row."""
        return [f"{number:.6f}" for number in self.vector]


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How alike two faces are.

    Args:
        score: The inner product of their embeddings.
        threshold: The score from which two faces are taken for one person's.
        far: The false accept rate that this threshold was set at.
    """

    score: float
    threshold: float
    far: float

    @property
    def same(self) -> bool:
        """Whether they are taken for one person's."""
        return self.score >= self.threshold


class Embedder(KeptNetwork):
    """A trained face network that takes faces as they are.

    Args:
        network: The network, which takes normalised images.
        mean: What is taken off every channel, in [0, 1].
        std: What it is divided by.
        thresholds: The least score (inner product) at which two faces are taken for one person's,
            by the false accept rate, as a decimal number.
        input_shape: Channels, height and width of the faces.
        preprocessing: How they were made of files.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        thresholds: Mapping[str, float],
        input_shape: tuple[int, int, int],
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(input_shape, preprocessing)
        self.network = network
        self.mean = mean
        self.std = std
        self.thresholds = dict(thresholds)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of length 1, of the images and their mirror images together.

        Args:
            images: Aligned faces, shape (N, C, H, W) of the training: uint8, or floats in [0, 1].

        Returns:
            Shape (N, E): the inner product of two is their score.

        Raises:
            ValueError: If the images are others. What is compiled or exported does not look.
        """
        faces = normalised(images, self.input_shape, self.mean, self.std)
        return functional.normalize(self.network(faces) + self.network(faces.flip(3)), dim=1)

    def embeddings(self, images: Tensor) -> Tensor:
        """Embeddings (N, E) in float64, on the CPU, of images that ``forward`` takes."""
        return functional.normalize(self._judged(images).cpu(), dim=1)

    def predict(self, x: Any, *, batch_size: int = BATCH) -> Embedding | list[Embedding]:
        """Embeddings of aligned faces of any size, made ready as in training.

        Args:
            x: As for `ImageClassifier.predict`.
            batch_size: How many images are answered at once.

        Returns:
            One for a single image, else one for each, in order. An image that cannot be read has
            no vector and an ``error``.

        Raises:
            ValueError: If it is nothing that holds images, or a single image that cannot be read.
        """
        sources, is_several = self.reader.sources(x)
        return single(list(self.predict_each(sources, batch_size=batch_size)), is_several)

    def predict_each(
        self, sources: Sequence[Any], top: int = 1, *, batch_size: int = BATCH
    ) -> Iterator[Embedding]:
        """As `predict`, of single images, one after the other.

        Raises:
            UserError: If classes are asked for, with ``top``.
        """
        if top != 1:
            raise UserError("a face network names no classes, so that there are no `top` ones")
        for file, row in answered(self.embeddings, self.reader, sources, batch_size):
            if isinstance(row, str):
                yield Embedding(file, error=row)
            else:
                yield Embedding(file, tuple(row.tolist()))

    def columns(self, top: int) -> list[str]:
        """The names of an embedding's cells."""
        return [f"e{number}" for number in range(1, self._size() + 1)]

    def similarity(self, one: Any, other: Any, *, far: float | None = None) -> Similarity:
        """Whether two aligned faces are of one person.

        Args:
            one: An image, as for `predict`.
            other: Another.
            far: The false accept rate that the threshold was set at; None takes 0.01, or the
                nearest that is known.

        Raises:
            UserError: If no such threshold is known, or an image cannot be read.
        """
        rate, threshold = self.threshold(far)
        given = [self.reader.sources(image) for image in (one, other)]
        if any(is_several for _, is_several in given):
            raise UserError("two single images are compared, no folders and no lists")
        first, second = self.vectors([source for sources, _ in given for source in sources])
        return Similarity(float(first @ second), threshold, rate)

    def vectors(self, sources: Sequence[Any]) -> np.ndarray:
        """Embeddings (N, E) of single images.

        Raises:
            UserError: If one cannot be read.
        """
        found = []
        for each in self.predict_each(sources):
            if each.error is not None:
                name = each.source or "an image"
                raise UserError(f"{name} cannot be read as an image: {each.error}")
            found.append(each.vector)
        return np.array(found)

    def threshold(self, far: float | None = None) -> tuple[float, float]:
        """A false accept rate, and the score from which faces are taken for one person's.

        Raises:
            UserError: If none is known.
        """
        known = {float(rate): threshold for rate, threshold in self.thresholds.items()}
        if not known:
            raise UserError("the network knows no threshold: it was tested on too few pairs.")
        if far is not None and far not in known:
            rates = ", ".join(f"{rate:g}" for rate in sorted(known))
            raise UserError(f"--far: thresholds were set at {rates}, not at {far:g}.")
        rate = min(known, key=lambda rate: abs(math.log(rate / (far or FAR))))
        return rate, known[rate]

    def _size(self) -> int:
        return self.embeddings(torch.zeros(1, *self.input_shape, dtype=torch.uint8)).shape[1]
