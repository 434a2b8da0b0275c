"""Networks whose depthwise convolutions and batch normalisations run the kernels."""

import itertools
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import _get_current_dispatch_mode

from optnas.objectives.kernels.checking import fault
from optnas.objectives.kernels.convolution import DTYPES, KERNELS, STRIDES, depthwise
from optnas.objectives.kernels.normalisation import batch_norm_relu
from optnas.objectives.networks.build import ChainNetwork
from optnas.objectives.networks.cells import CellNetwork
from optnas.objectives.networks.growth import GrowthNetwork
from optnas.objectives.networks.nasbench201 import NasBench201Network
from optnas.objectives.networks.stages import StageNetwork
from optnas.objectives.networks.supernet import MixedNetwork

Depthwise = Literal["triton", "aten", "cudnn"]
"""Whose depthwise convolutions a network has: ours, those of torch itself, or cuDNN's."""

# Nothing in these looks at what a batch normalisation within a `Sequential` puts out, but the
# ReLU after it. Of other people's networks nobody knows.
_OWN = (ChainNetwork, CellNetwork, GrowthNetwork, NasBench201Network, StageNetwork, MixedNetwork)


def are_supported(device: torch.device) -> bool:
    """Whether kernels run on ``device`` at all."""
    return device.type == "cuda"


def use_kernels(
    network: nn.Module, device: torch.device, *, depthwise: Depthwise = "triton"
) -> nn.Module:
    """Have a network run kernels where it computes on CUDA, and torch's operations elsewhere.

    Its parts stay the objects that they are, with their parameters and names, and learn another
    way of computing. So states, lineage, counts and exports are those of the same network. A ReLU
    that follows a batch normalisation, or comes before a depthwise convolution, within a
    `Sequential` of a network of optnas's is computed by these.

    Args:
        network: Changed in place.
        device: Where it trains.
        depthwise: Whose depthwise convolutions it runs. ``"aten"`` takes them away from cuDNN
            without a kernel of ours, ``"cudnn"`` leaves them, for comparison. A network may be
            given others later.

    Returns:
        The network itself.

    Warns:
        UserWarning: Once for every kind of depthwise convolution that there is no kernel for, or
            if the kernels do not work on the device; see `checking.fault`.
    """
    if not are_supported(device):
        return network
    _restore(network)
    if (why := fault(device)) is not None:
        warnings.warn(
            f"optnas's own kernels do not work on {device}, so PyTorch's are used: {why}.",
            stacklevel=2,
        )
        return network
    for part in network.modules():
        if type(part) is nn.Conv2d and _is_depthwise(part):
            part.__class__ = _convolution(part, depthwise)
        # A momentum of None stands for a plain mean over all batches.
        elif type(part) is nn.BatchNorm2d and part.track_running_stats and part.momentum:
            part.__class__ = _BatchNormReLU
    for parts in _sequences(network) if isinstance(network, _OWN) else ():
        for part, follower in itertools.pairwise(parts):
            if isinstance(part, _BatchNormReLU) and type(follower) is nn.ReLU:
                part.relu = True
                follower.__class__ = _Done
            elif type(part) is nn.ReLU and isinstance(follower, _Depthwise):
                follower.relu = True
                part.__class__ = _Done
    return network


def _restore(network: nn.Module) -> None:
    """Have all parts of a network run torch's operations alone."""
    torchs: dict[type[nn.Module], Any] = {
        cls: cls.__mro__[1] for cls in (_Depthwise, _AtenDepthwise, _BatchNormReLU, _Done)
    }
    for part in network.modules():
        if type(part) in torchs:
            for name in ("relu", "count"):
                vars(part).pop(name, None)
            part.__class__ = torchs[type(part)]


def _convolution(part: nn.Conv2d, depthwise: Depthwise) -> type[nn.Conv2d]:
    """What computes a depthwise convolution."""
    if depthwise != "triton":
        return nn.Conv2d if depthwise == "cudnn" else _AtenDepthwise
    lacking = _lacking(part)
    if lacking is None:
        return _Depthwise
    warnings.warn(
        f"A depthwise convolution with {lacking} runs torch's kernels: there is none of ours.",
        stacklevel=3,
    )
    return nn.Conv2d


def _runs(features: Tensor) -> bool:
    """Whether kernels may compute on features here.

    Not where somebody watches torch's operations, to count, to export or to compile them.
    """
    return (
        are_supported(features.device)
        and _type_of(features) in DTYPES
        and _get_current_dispatch_mode() is None
        and not torch.compiler.is_compiling()
    )


def _type_of(features: Tensor) -> torch.dtype:
    """The type that convolutions of features compute with."""
    kind = features.device.type
    casts = features.dtype == torch.float32 and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if casts else features.dtype


class _Depthwise(nn.Conv2d):
    """A depthwise convolution that runs our kernel where it can.

    Attributes:
        relu: Whether the ReLU before it is its own.
    """

    relu: bool = False

    def forward(self, features: Tensor) -> Tensor:
        if not _runs(features):
            return super().forward(functional.relu(features) if self.relu else features)
        (stride, _), (dilation, _) = self.stride, self.dilation
        assert isinstance(self.padding, tuple)
        padding, _ = self.padding
        return depthwise(
            features.to(_type_of(features)), self.weight, stride, padding, dilation, relu=self.relu
        )


def _aten_depthwise(*arguments: Any) -> Tensor:
    """torch's own kernel, which there is on CUDA alone."""
    result: Tensor = torch.ops.aten._conv_depthwise2d(*arguments)
    return result


class _AtenDepthwise(nn.Conv2d):
    """A depthwise convolution that runs torch's own kernel, which knows one layout alone."""

    def forward(self, features: Tensor) -> Tensor:
        if not _runs(features):
            return super().forward(features)
        features = features.to(_type_of(features))
        bias = None if self.bias is None else self.bias.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            result = _aten_depthwise(
                features,
                self.weight.to(features.dtype),
                self.kernel_size,
                bias,
                self.stride,
                self.padding,
                self.dilation,
            )
        return result.contiguous(memory_format=torch.channels_last)


class _BatchNormReLU(nn.BatchNorm2d):
    """Batch normalisation that runs our kernel where it can, with the ReLU after it or without.

    Attributes:
        relu: Whether the ReLU is its own.
        count: How many of the first images it sees while training; None for all.
    """

    relu: bool = False
    count: int | None = None

    def forward(self, features: Tensor) -> Tensor:
        if not _runs(features):
            return self._by_torch(features)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        return batch_norm_relu(
            features,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.training,
            self.momentum,
            self.eps,
            self.relu,
            self.count if self.training else None,
            batches=self.num_batches_tracked,
        )

    def _by_torch(self, features: Tensor) -> Tensor:
        count = self.count if self.training else None
        result = super().forward(features if count is None else features[:count])
        result = functional.relu(result) if self.relu else result
        if count is None:
            return result
        return functional.pad(result, (0, 0) * 3 + (0, len(features) - count))


class _Done(nn.ReLU):
    """A ReLU that the batch normalisation before it, or the convolution after it, computes."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def _is_depthwise(part: nn.Conv2d) -> bool:
    return part.groups == part.in_channels == part.out_channels > 1


def _lacking(part: nn.Conv2d) -> str | None:
    """What of a depthwise convolution there is no kernel for; None for nothing."""
    (kernel, other), (stride, across) = part.kernel_size, part.stride
    if kernel != other or kernel not in KERNELS:
        return f"kernels of {kernel}x{other}"
    if stride != across or stride not in STRIDES:
        return f"strides of {stride} and {across}"
    if part.bias is not None:
        return "a bias"
    if part.padding_mode != "zeros" or isinstance(part.padding, str):
        return f"padding {part.padding_mode} {part.padding}"
    if len(set(part.padding)) > 1 or len(set(part.dilation)) > 1:
        return f"padding {part.padding} and dilation {part.dilation}"
    return None


def _sequences(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Parts of a network of which each takes what the one before it puts out, and nothing else."""
    inner: set[nn.Module] = set()
    if isinstance(network, ChainNetwork):
        yield [*_flat(network.stem), *_flat(network.layers)]
        inner = {network.stem, network.layers}
    for part in network.modules():
        if type(part) is nn.Sequential:
            if part not in inner:
                yield list(_flat(part))
            inner.update(part)


def _flat(part: nn.Module) -> Iterator[nn.Module]:
    """The parts of nested `Sequential`s, one after the other; others are left whole."""
    if type(part) is not nn.Sequential:
        yield part
        return
    for child in part:
        yield from _flat(child)
