"""A kept network as a plain module: pixels in, answers out, and nothing that looks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.kept.classifiers import Classifier, Ensemble
from optnas.objectives.kept.embedders import Embedder

Kept = Classifier | Ensemble | Embedder


class _Normalising(nn.Module):
    """A network with its normalisation.

    Args:
        network: Takes normalised images.
        mean: Mean of every channel, in [0, 1].
        std: Their standard deviations.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.network = network
        pairs = list(zip(mean, std, strict=True))
        shape = (1, len(pairs), 1, 1)
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for _, s in pairs]).view(shape))
        self.register_buffer("shift", torch.tensor([-m / s for m, s in pairs]).view(shape))

    def _normalised(self, images: Tensor) -> Tensor:
        return images.to(torch.float32) * self.scale + self.shift


class Served(_Normalising):
    """A classifier with its normalisation."""

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of uint8 images (N, C, H, W)."""
        logits: Tensor = self.network(self._normalised(images))
        return logits.softmax(1)


class ServedFaces(_Normalising):
    """A face network with its normalisation."""

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (N, E) of length 1, of uint8 faces (N, C, H, W) and their mirror images."""
        faces = self._normalised(images)
        # As one batch: XNNPACK cannot take a network that stands twice in a graph.
        both = self.network(torch.cat((faces, faces.flip(3))))
        count = images.shape[0]
        result: Tensor = functional.normalize(both[:count] + both[count:], dim=1)
        return result


class ServedTogether(nn.Module):
    """The mean of the probabilities of several."""

    def __init__(self, members: list[Served]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of uint8 images (N, C, H, W)."""
        total = self.members[0](images)
        for member in list(self.members)[1:]:
            total = total + member(images)
        result: Tensor = total / len(self.members)
        return result


def served(model: Kept, *, raw: bool) -> nn.Module:
    """What is exported, on the CPU, in evaluation mode.

    Args:
        model: The kept network.
        raw: Whether it takes normalised float32 images and gives what the network puts out.

    Raises:
        ValueError: If an ensemble is asked for raw, whose logits are none of one network.
    """
    if not isinstance(model, Ensemble):
        if raw:
            return model.network.cpu().eval()
        kind = Served if isinstance(model, Classifier) else ServedFaces
        return kind(model.network, model.mean, model.std).cpu().eval()
    if raw:
        raise ValueError("an ensemble has no single logits: export its members with --raw, or all")
    members: Any = model.members
    return ServedTogether([Served(m.network, m.mean, m.std) for m in members]).cpu().eval()


def given_to(model: nn.Module, images: Tensor, kept: Kept) -> Tensor:
    """What such a module takes, of uint8 images (N, C, H, W)."""
    if isinstance(model, _Normalising | ServedTogether) or isinstance(kept, Ensemble):
        return images
    from optnas.objectives.data.augment import normalise

    return normalise(images, kept.mean, kept.std)
