"""A kept network as a plain module: pixels in, probabilities out, and nothing that looks."""

from typing import Any

import torch
from torch import Tensor, nn

from optnas.objectives.kept.classifiers import Classifier, Ensemble


class Served(nn.Module):
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

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, classes) of uint8 images (N, C, H, W)."""
        logits: Tensor = self.network(images.to(torch.float32) * self.scale + self.shift)
        return logits.softmax(1)


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


def served(model: Classifier | Ensemble, *, raw: bool) -> nn.Module:
    """What is exported, on the CPU, in evaluation mode.

    Args:
        model: The kept network.
        raw: Whether it takes normalised float32 images and gives logits.

    Raises:
        ValueError: If an ensemble is asked for raw, whose logits are none of one network.
    """
    if isinstance(model, Classifier):
        if raw:
            return model.network.cpu().eval()
        return Served(model.network, model.mean, model.std).cpu().eval()
    if raw:
        raise ValueError("an ensemble has no single logits: export its members with --raw, or all")
    members: Any = model.members
    return ServedTogether([Served(m.network, m.mean, m.std) for m in members]).cpu().eval()


def given_to(model: nn.Module, images: Tensor, classifier: Classifier | Ensemble) -> Tensor:
    """What such a module takes, of uint8 images (N, C, H, W)."""
    if isinstance(model, Served | ServedTogether) or not isinstance(classifier, Classifier):
        return images
    from optnas.objectives.data.augment import normalise

    return normalise(images, classifier.mean, classifier.std)
