"""The operations of cells, as in the code of DARTS and NAS-Bench-201.

Convolutions follow a ReLU, have no bias and end in a normalisation; pooling is not normalised.
With stride 2 a side of n pixels becomes (n + 1) // 2, so that images of any size can be reduced.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def operation(name: str, channels: int, stride: int, *, affine: bool = True) -> nn.Module:
    """An operation of a cell, which keeps the number of channels.

    Args:
        name: A name of ``optnas.spaces.cell.OPERATIONS`` or of
            ``optnas.spaces.nasbench201.OPERATIONS``.
        channels: Number of channels.
        stride: 1 or 2.
        affine: Whether its normalisations have a scale and a shift of their own.
    """
    match name:
        case "none":
            return Zero(stride)
        case "skip_connect":
            if stride == 1:
                return nn.Identity()
            return FactorizedReduction(channels, channels, affine=affine)
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        case "max_pool_3x3":
            return nn.MaxPool2d(3, stride, padding=1)
    kind, _, size = name.rpartition("_")
    kernel = int(size[0])
    if kind == "nor_conv":
        return convolution(channels, channels, kernel, stride, affine=affine)
    if kind == "dil_conv":
        return _depthwise(channels, kernel, stride, dilation=2, affine=affine)
    return nn.Sequential(
        *_depthwise(channels, kernel, stride, dilation=1, affine=affine),
        *_depthwise(channels, kernel, 1, dilation=1, affine=affine),
    )


def convolution(
    before: int, after: int, kernel: int, stride: int = 1, *, affine: bool = True
) -> nn.Sequential:
    """ReLU, convolution, normalisation."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after, affine=affine),
    )


def convolutions(kind: str, before: int, after: int, kernel: int, stride: int) -> list[nn.Conv2d]:
    """One convolution for ``"conv"``, else a depthwise one and a pointwise one, without biases."""
    padding = kernel // 2
    if kind == "conv":
        return [nn.Conv2d(before, after, kernel, stride, padding, bias=False)]
    return [
        nn.Conv2d(before, before, kernel, stride, padding, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
    ]


def _depthwise(
    channels: int, kernel: int, stride: int, dilation: int, *, affine: bool
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


class Zero(nn.Module):
    """Zeros of the size that the operation would have; nothing is learnt through them."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self._stride = stride

    def forward(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features[:, :, :: self._stride, :: self._stride])


class FactorizedReduction(nn.Module):
    """Halves the resolution with two 1x1 convolutions, of the even and of the odd pixels."""

    def __init__(self, before: int, after: int, *, affine: bool = True) -> None:
        super().__init__()
        self.even = nn.Conv2d(before, after // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(before, after - after // 2, 1, stride=2, bias=False)
        self.normalisation = nn.BatchNorm2d(after, affine=affine)

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu(features)
        height, width = features.shape[2:]
        # An odd side has one odd pixel too few: a zero stands for it. A slice, as runtimes on
        # devices take no negative padding.
        shifted = functional.pad(features[:, :, 1:, 1:], (0, width % 2, 0, height % 2))
        result: Tensor = self.normalisation(
            torch.cat([self.even(features), self.odd(shifted)], dim=1)
        )
        return result
