"""Batch normalisation over the images of all processes that train one network.

torch's own is for GPUs alone. This one runs wherever its collectives do, with the CPU's gloo too.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn


class Span:
    """Whether statistics are those of all processes.

    Attributes:
        is_open: Not where each process has the same images.
    """

    def __init__(self) -> None:
        self.is_open = True


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with the statistics of all processes' images, in float32."""

    span: Span

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.span.is_open):
            return super().forward(input)
        features = input.float()
        count = torch.full((1,), features.numel() / features.shape[1], device=input.device)
        sums = _Sum.apply(torch.cat((features.sum((0, 2, 3)), count)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = features - mean[:, None, None]
        variance = _Sum.apply((centred * centred).sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach(), count)
        scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        result: Tensor = scaled.to(input.dtype)
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the statistics that are used in the end."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)


def synchronise(model: nn.Module) -> Span:
    """Have every batch normalisation of images in a network be synchronised, in place.

    Returns:
        What switches it off and on.
    """
    span = Span()
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d
            module.span = span  # type: ignore[assignment]
    return span
