"""Brightness, contrast and saturation changed at random, image by image."""

import torch
from torch import Tensor

DRAWS = 3
"""Columns of a draw: one for each of the three."""
STEPS = 2**20
"""Draws are integers below this."""
_LUMA = (0.2989, 0.587, 0.114)


def jittered(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Images with another brightness, then contrast, then saturation.

    Each is multiplied by a factor that is uniform in 1 - ``strength`` to 1 + ``strength``, as
    torchvision's `ColorJitter` does it, but always in this order and without changing hues.

    Args:
        images: uint8 (N, C, H, W); saturation needs three channels.
        draws: int64 (N, DRAWS), below `STEPS`, on the device of the images.
        strength: In [0, 1].

    Returns:
        Float32 (N, C, H, W) in [0, 255].
    """
    factors = 1 + strength * (2 * draws.float() / (STEPS - 1) - 1)
    brightness, contrast, saturation = factors.view(-1, DRAWS, 1, 1, 1).unbind(1)
    pixels = images.float() / 255
    pixels = (brightness * pixels).clamp_(0, 1)
    pixels = _blended(pixels, _gray(pixels).mean((1, 2, 3), keepdim=True), contrast)
    if pixels.shape[1] == len(_LUMA):
        pixels = _blended(pixels, _gray(pixels), saturation)
    return pixels * 255


def _blended(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * pixels + (1 - factor) * other).clamp_(0, 1)


def _gray(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != len(_LUMA):
        return pixels
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, -1, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)
