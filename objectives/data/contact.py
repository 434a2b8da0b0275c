"""A contact sheet: some images of every class as a network sees them."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optnas.objectives.data.augment import Augmentation, augment_and_normalise, draw
from optnas.objectives.data.image_files import Pixels

PER_CLASS = 8
CLASSES = 24
"""How many images of a class, and of how many classes, are shown."""
_SIDE = 64
"""Pixels that a small image has at least."""
_GAP = 4


@dataclasses.dataclass(frozen=True)
class Strip:
    """Training images of a class side by side.

    Args:
        class_name: Its name.
        plain: A PNG of the images as they are judged by.
        augmented: A PNG of the same images as one epoch of training shows them.
    """

    class_name: str
    plain: bytes
    augmented: bytes


def contact_sheet(
    images: Pixels,
    labels: Tensor,
    class_names: Sequence[str],
    recipe: Augmentation,
    moments: tuple[Sequence[float], Sequence[float]],
) -> list[Strip]:
    """The first `PER_CLASS` images of every class, for the first `CLASSES` of them.

    Args:
        images: Training images, uint8 (N, C, H, W).
        labels: Their classes (N,).
        class_names: The names of the classes.
        recipe: How training images are augmented.
        moments: Mean and standard deviation of every channel.
    """
    strips = []
    generator = torch.Generator().manual_seed(0)
    _, _, height, width = images.shape
    mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in moments)
    for label, name in enumerate(class_names[:CLASSES]):
        chosen = torch.nonzero(labels.cpu() == label).flatten()[:PER_CLASS]
        pixels = images[chosen].cpu()
        draws = draw(len(chosen), height, width, recipe, generator)
        augmented = augment_and_normalise(pixels, draws, recipe, *moments)
        restored = ((augmented * std + mean) * 255).round().clamp(0, 255).byte()
        strips.append(Strip(name, _png(pixels), _png(restored)))
    return strips


def _png(pixels: Tensor) -> bytes:
    """Images (N, C, H, W), uint8, side by side; small ones are enlarged, pixel by pixel."""
    from PIL import Image

    array = pixels.permute(0, 2, 3, 1).numpy()
    if array.shape[3] not in (1, 3):  # Nobody sees more than three colours.
        array = array[..., :3] if array.shape[3] > 3 else array[..., :1]
    factor = max(1, -(-_SIDE // max(array.shape[1:3])))
    array = array.repeat(factor, 1).repeat(factor, 2)
    count, height, width, _ = array.shape
    shown = np.zeros((height, max(1, count * (width + _GAP) - _GAP), 4), np.uint8)
    for index, image in enumerate(array):
        left = index * (width + _GAP)
        shown[:, left : left + width, :3] = image
        shown[:, left : left + width, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(shown, "RGBA").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
