"""Kept face networks as modules: aligned faces go in, embeddings come out."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.data.augment import normalise


class Embedder(nn.Module):
    """A trained face network that takes faces as they are.

    Args:
        network: The network, which takes normalised images.
        mean: What is taken off every channel, in [0, 1].
        std: What it is divided by.
        thresholds: The least score (inner product) at which two faces are taken for one person's,
            by the false accept rate, as a decimal number.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        thresholds: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.network = network
        self.mean = mean
        self.std = std
        self.thresholds = dict(thresholds)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of length 1, of the images and their mirror images together.

        Args:
            images: Aligned faces, shape (N, C, H, W): uint8, or floats in [0, 1].

        Returns:
            Shape (N, E): the inner product of two is their score.
        """
        if images.dtype != torch.uint8:
            images = images * 255
        inputs = normalise(images, self.mean, self.std)
        return functional.normalize(self.network(inputs) + self.network(inputs.flip(3)), dim=1)
