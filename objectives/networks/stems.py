"""The first layers of networks, for images such as those of CIFAR and of ImageNet."""

from typing import Literal

from torch import nn

Stem = Literal["small", "large", "7x7"]
"""``small`` keeps the resolution, ``7x7`` quarters it, ``large`` ones are halved three times."""
STEMS = ("small", "large", "7x7")


def check_stem(kind: str, channels: int) -> None:
    """Refuse what is no stem.

    Raises:
        ValueError: If there is no such kind, or it cannot have so few channels.
    """
    if kind not in STEMS:
        raise ValueError(f"`stem` must be 'small', 'large' or '7x7': {kind!r}.")
    if kind == "large" and channels < 2:
        raise ValueError(f"`channels` must be 2 or more with a large stem: {channels}.")


def stem_layers(kind: Stem, in_channels: int, width: int) -> list[nn.Module]:
    """The layers of a stem, without the ReLU after it.

    Source: of ``large`` DARTS (Liu et al. 2019), section 3.3, and its code for ImageNet: three
    3x3 convolutions; of ``7x7`` He et al. 2016, table 1: a convolution and a maximum.

    Args:
        kind: For which images.
        in_channels: Channels of the images.
        width: Channels of the result.
    """
    if kind == "small":
        return [*_normalised(in_channels, width, 3, 1)]
    if kind == "7x7":
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        return [*_normalised(in_channels, width, 7, 2), nn.ReLU(), pool]
    half = max(1, width // 2)
    return [
        *_normalised(in_channels, half, 3, 2),
        nn.ReLU(),
        *_normalised(half, width, 3, 2),
        nn.ReLU(),
        *_normalised(width, width, 3, 2),
    ]


def _normalised(before: int, after: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(after)
