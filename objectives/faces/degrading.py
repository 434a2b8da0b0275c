"""Faces made worse at random, as photographs are: cut, of low resolution, with other light.

Everything random is drawn first, on the CPU, so that every device sees the same.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 15
"""Numbers drawn per image, whether they are used or not: three for whether, four for the window,
three for the resolution, four for the light, and one in reserve."""

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_DOWN = ("nearest", "area", "bilinear", "bicubic")
_UP = ("nearest", "bilinear", "bicubic")


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), (count, DRAWS), float64 on the CPU."""
    return torch.rand(count, DRAWS, generator=generator, dtype=torch.float64)


def degraded(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Images of which each is, with the same probability and independently, made worse thrice.

    First all but a window is black: of 0.2 to 1 of the area, with sides in a ratio of 3/4 to 4/3.
    Then the image is shrunk to 0.2 to 1 of its sides and enlarged again. Then brightness, contrast
    and saturation are multiplied by 0.5 to 1.5, in a random order.

    Source: AdaFace (Kim, Jain and Liu 2022), section 4.1, and its code.

    Args:
        images: uint8 (N, C, H, W).
        draws: Rows of `draw`, one per image, on the CPU.
        probability: Of each of the three.

    Returns:
        uint8 (N, C, H, W), on the device of the images.
    """
    steps = (_cut, _coarse, _relit)
    chosen = (draws[:, : len(steps)] < probability).tolist()
    if not any(map(any, chosen)):
        return images
    result = images.clone()
    for index, row in enumerate(chosen):
        if not any(row):
            continue
        numbers = draws[index, len(steps) :].tolist()
        picture = images[index].float() / 255
        for step, wanted in zip(steps, row, strict=True):
            if wanted:
                picture = step(picture, numbers)
        result[index] = (picture * 255).round().clamp(0, 255).to(torch.uint8)
    return result


def _cut(picture: Tensor, draws: list[float]) -> Tensor:
    height, width = picture.shape[1:]
    area = (0.2 + 0.8 * draws[0]) * height * width
    ratio = math.exp(math.log(4 / 3) * (2 * draws[1] - 1))
    rows = max(1, min(height, round(math.sqrt(area / ratio))))
    columns = max(1, min(width, round(math.sqrt(area * ratio))))
    top, left = int(draws[2] * (height - rows + 1)), int(draws[3] * (width - columns + 1))
    result = torch.zeros_like(picture)
    window = (slice(None), slice(top, top + rows), slice(left, left + columns))
    result[window] = picture[window]
    return result


def _coarse(picture: Tensor, draws: list[float]) -> Tensor:
    share = 0.2 + 0.8 * draws[4]
    height, width = picture.shape[1:]
    small = (max(1, round(share * height)), max(1, round(share * width)))
    down, up = _DOWN[int(draws[5] * len(_DOWN))], _UP[int(draws[6] * len(_UP))]
    shrunk = functional.interpolate(picture[None], small, mode=down)
    return functional.interpolate(shrunk, (height, width), mode=up)[0].clamp(0, 1)


def _relit(picture: Tensor, draws: list[float]) -> Tensor:
    factors = [0.5 + draws[7 + index] for index in range(3)]
    for kind in _ORDERS[int(draws[10] * len(_ORDERS))]:
        if kind == 0:
            other = torch.zeros_like(picture)
        else:
            other = _gray(picture) if kind == 2 else _gray(picture).mean().expand_as(picture)
        picture = torch.lerp(other, picture, factors[kind]).clamp(0, 1)
    return picture


def _gray(picture: Tensor) -> Tensor:
    """The luminance of a picture, in as many channels."""
    if len(picture) != 3:
        return picture
    weights = torch.tensor((0.299, 0.587, 0.114), device=picture.device)
    return (picture * weights[:, None, None]).sum(0).expand_as(picture)
