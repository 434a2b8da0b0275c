"""Random crops of any size and shape, resized: one seed per image says which."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SCALE = (0.08, 1.0)
"""Least and greatest share of an image's area."""
RATIO = (3 / 4, 4 / 3)
"""Least and greatest ratio of width to height."""
TRIES = 10

Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def crop_box(height: int, width: int, seed: int) -> Box:
    """What is cropped of an image.

    The area is uniform, the logarithm of the ratio is too; what does not fit is drawn again, at
    last it is the greatest box in the middle.

    Source: Szegedy et al. 2015, section 6; as torchvision's `RandomResizedCrop` does it.

    Args:
        height: Height of the image in pixels.
        width: Its width.
        seed: Decides everything random.
    """
    rng = np.random.default_rng(seed)
    low, high = map(math.log, RATIO)
    for _ in range(TRIES):
        area = height * width * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def cropped(images: Tensor, seeds: Tensor) -> Tensor:
    """Crops of images in memory, resized to the size of the images.

    Args:
        images: uint8 (N, C, H, W).
        seeds: int64 (N,), on any device.
    """
    rows, columns = images.shape[2:]
    result = torch.empty_like(images)
    for index, seed in enumerate(seeds.tolist()):
        top, left, height, width = crop_box(rows, columns, seed)
        crop = images[index, None, :, top : top + height, left : left + width].float()
        crop = functional.interpolate(crop, (rows, columns), mode="bilinear", antialias=True)
        result[index] = crop[0].round_().clamp_(0, 255)
    return result
