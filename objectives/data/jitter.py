"""Brightness, contrast, saturation and hue changed at random, image by image."""

import torch
from torch import Tensor

DRAWS = 4
"""Columns of a draw: one for each of the four."""
STEPS = 2**20
"""Draws are integers below this."""
_LUMA = (0.2989, 0.587, 0.114)


def jittered(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Images with another brightness, then contrast, then saturation, then hue.

    Each but the hue is multiplied by a factor that is uniform in 1 - ``strength`` to
    1 + ``strength``; the hue is turned by up to ``strength / 2`` of the circle, either way. So
    0.4 is the 0.4, 0.4, 0.4 and 0.2 of DARTS's code for ImageNet. Everything is as torchvision's
    `ColorJitter` does it, but always in this order.

    Args:
        images: uint8 (N, C, H, W); saturation and hue need three channels.
        draws: int64 (N, DRAWS), below `STEPS`, on the device of the images.
        strength: In [0, 1].

    Returns:
        Float32 (N, C, H, W) in [0, 255].
    """
    changes = (strength * (2 * draws.float() / (STEPS - 1) - 1)).view(-1, DRAWS, 1, 1, 1)
    brightness, contrast, saturation = (1 + changes[:, :3]).unbind(1)
    pixels = images.float() / 255
    pixels = (brightness * pixels).clamp_(0, 1)
    pixels = _blended(pixels, _gray(pixels).mean((1, 2, 3), keepdim=True), contrast)
    if pixels.shape[1] == len(_LUMA):
        pixels = _blended(pixels, _gray(pixels), saturation)
        pixels = _turned(pixels, changes[:, 3] / 2)
    return pixels * 255


def _turned(pixels: Tensor, turns: Tensor) -> Tensor:
    """Pixels with the hue turned: there and back by the hexcone of Smith 1978."""
    red, green, blue = pixels.unsqueeze(2).unbind(1)
    value, least = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    spread = value - least
    safe = spread.masked_fill(spread == 0, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns
    places = [(n + sixths).remainder(6) for n in (5, 3, 1)]
    return torch.cat([value - spread * torch.minimum(k, 4 - k).clamp(0, 1) for k in places], 1)


def _blended(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * pixels + (1 - factor) * other).clamp_(0, 1)


def _gray(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != len(_LUMA):
        return pixels
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, -1, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)
