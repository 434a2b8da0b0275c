"""Images and labels of a batch mixed with one another: mixup and cutmix."""

from collections.abc import Callable

import torch
from torch import Tensor

from optnas.config.settings import TrainSettings
from optnas.objectives.networks.initialisation import drawn_from

Mixing = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def mixing_of(settings: TrainSettings, classes: int) -> Mixing | None:
    """What mixes the batches of a recipe; None if it mixes none.

    With mixup and cutmix both, each batch has the one or the other, equally often.

    Source: Zhang et al. 2018, section 2; Yun et al. 2019, section 3; as torchvision's `v2` does.

    Args:
        settings: The recipe.
        classes: Number of classes.

    Returns:
        Makes of images (N, C, H, W), labels (N,) and a generator on the CPU mixed images and
        targets, float32 (N, classes).
    """
    if not (settings.mixup or settings.cutmix):
        return None
    from torchvision.transforms import v2  # It takes seconds to import.

    kinds: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
    if settings.mixup:
        kinds.append(v2.MixUp(alpha=settings.mixup, num_classes=classes))
    if settings.cutmix:
        kinds.append(v2.CutMix(alpha=settings.cutmix, num_classes=classes))

    def mixed(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = kinds[0]
        if len(kinds) > 1:
            chosen = kinds[int(torch.randint(len(kinds), (), generator=generator))]
        with drawn_from(generator):
            inputs, targets = chosen(images, labels)
        return inputs.contiguous(memory_format=torch.channels_last), targets.float()

    return mixed
