"""Networks of stages: residual networks and NASNet-A, any number of modules in every stage."""

import abc
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.networks.cell_operations import FactorizedReduction, convolution
from optnas.objectives.networks.cells import CellModule
from optnas.objectives.networks.stems import Stem, check_stem, stem_layers
from optnas.spaces import StageArchitecture
from optnas.spaces.cell import Cell

_BASIC_CHANNELS = 16
_BOTTLENECK_CHANNELS = 64
_BOTTLENECK_EXPANSION = 4
_NASNET_CHANNELS = 32

# NASNet-A (Zoph et al. 2018), figure 4: 0 and 1 are the older and the newer input.
_NORMAL_CELL: Cell = (
    (("sep_conv_5x5", 1), ("sep_conv_3x3", 0)),
    (("sep_conv_5x5", 0), ("sep_conv_3x3", 0)),
    (("avg_pool_3x3", 1), ("skip_connect", 0)),
    (("avg_pool_3x3", 0), ("avg_pool_3x3", 0)),
    (("sep_conv_3x3", 1), ("skip_connect", 1)),
)
_NORMAL_OUTPUTS = (0, 2, 3, 4, 5, 6)
_REDUCTION_CELL: Cell = (
    (("sep_conv_5x5", 1), ("sep_conv_7x7", 0)),
    (("max_pool_3x3", 1), ("sep_conv_7x7", 0)),
    (("avg_pool_3x3", 1), ("sep_conv_5x5", 0)),
    (("skip_connect", 3), ("avg_pool_3x3", 2)),
    (("sep_conv_3x3", 2), ("max_pool_3x3", 1)),
)
_REDUCTION_OUTPUTS = (3, 4, 5, 6)


class StageNetwork(nn.Module, abc.ABC):
    """A network whose features can be looked at where a stage ends."""

    stages: nn.ModuleList
    classifier: nn.Linear

    @abc.abstractmethod
    def stage_outputs(self, images: Tensor) -> Iterator[Tensor]:
        """The features of the last block of every stage, before its ReLU.

        Args:
            images: Normalised images (N, C, H, W).

        Yields:
            Features (N, channels, h, w). What comes after a stage is computed only if its
            features are asked for.
        """

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        *_, features = self.stage_outputs(images)
        # A plain mean: the backward pass of adaptive pooling is not deterministic on CUDA.
        logits: Tensor = self.classifier(functional.relu(features).mean((2, 3)))
        return logits


class ResidualNetwork(StageNetwork):
    """A residual network: ``stages[s][b]`` is block b of stage s.

    Basic blocks are those of Keras's CIFAR example, ResNet v1: 16 channels at first, biases
    everywhere, a projection without normalisation where a stage begins with half the resolution.
    Bottleneck blocks are those of torchvision, layer by layer, so that (3, 4, 6, 3) modules are
    its ResNet-50: 64 channels at first, four times as many between blocks, no biases, normalised
    projections, the stride in the 3x3 convolution; the stem quarters the resolution.

    Source: He et al. 2016, sections 4.1 and 4.2; Stage-Wise NAS, section IV and its code.

    Args:
        architecture: The numbers of blocks.
        in_channels: Channels of the images.
        classes: Number of classes.
        stem: Another one than the blocks' own; see `optnas.objectives.networks.stems`.

    Raises:
        ValueError: If there is no such stem.
    """

    def __init__(
        self,
        architecture: StageArchitecture,
        in_channels: int,
        classes: int,
        *,
        stem: Stem | None = None,
    ) -> None:
        super().__init__()
        bottleneck = architecture.block == "bottleneck"
        block = _bottleneck_block if bottleneck else _basic_block
        width = channels = _BOTTLENECK_CHANNELS if bottleneck else _BASIC_CHANNELS
        if stem is not None:
            self.stem = _stem(stem, in_channels, width)
        elif bottleneck:
            # Without the ReLU between, which the first block begins with: it may change places.
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(width),
                nn.MaxPool2d(3, stride=2, padding=1),
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width)
            )
        self.stages = nn.ModuleList()
        for stage, number in enumerate(architecture.modules):
            blocks = []
            for index in range(number):
                stride = 2 if stage and index == 0 else 1
                blocks.append(block(channels, width, stride))
                channels = blocks[-1].channels
            self.stages.append(nn.Sequential(*blocks))
            width *= 2
        self.classifier = nn.Linear(channels, classes)

    def stage_outputs(self, images: Tensor) -> Iterator[Tensor]:
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
            yield features


class NasNetwork(StageNetwork):
    """NASNet-A for small images: ``stages[s][b]`` is normal cell b of stage s.

    A reduction cell, ``reductions[s - 1]``, stands before every stage s but the first, with the
    number of filters of the stage after it: 32, 64 and 128, and a stem of 32. The first cell
    after a reduction cell takes the reduction cell's newer input as its older one.

    Source: Zoph et al. 2018, figure 4, as Keras builds it for CIFAR; Stage-Wise NAS, section IV.

    Args:
        architecture: The numbers of normal cells.
        in_channels: Channels of the images.
        classes: Number of classes.
        stem: What comes before the cells; see `optnas.objectives.networks.stems`.

    Raises:
        ValueError: If there is no such stem.
    """

    def __init__(
        self,
        architecture: StageArchitecture,
        in_channels: int,
        classes: int,
        *,
        stem: Stem | None = None,
    ) -> None:
        super().__init__()
        width = before = last = _NASNET_CHANNELS
        self.stem = _stem(stem or "small", in_channels, width)
        self.stages = nn.ModuleList()
        self.reductions = nn.ModuleList()
        for stage, number in enumerate(architecture.modules):
            if stage:
                width *= 2
                inputs = _cell_inputs(before, last, width)
                self.reductions.append(
                    CellModule(_REDUCTION_CELL, inputs, width, _REDUCTION_OUTPUTS, reduction=True)
                )
                before, last = last, len(_REDUCTION_OUTPUTS) * width
            cells = nn.ModuleList()
            for index in range(number):
                halve = stage > 0 and index == 0
                inputs = _cell_inputs(before, last, width, halve=halve)
                cells.append(
                    CellModule(_NORMAL_CELL, inputs, width, _NORMAL_OUTPUTS, reduction=False)
                )
                before, last = last, len(_NORMAL_OUTPUTS) * width
            self.stages.append(cells)
        self.classifier = nn.Linear(last, classes)

    def stage_outputs(self, images: Tensor) -> Iterator[Tensor]:
        before = last = self.stem(images)
        for stage, cells in enumerate(self.stages):
            if stage:
                before, last = last, self.reductions[stage - 1](before, last)
            for cell in cells:  # type: ignore[attr-defined]  # a ModuleList
                before, last = last, cell(before, last)
            yield last


def stage_network(
    architecture: StageArchitecture, in_channels: int, classes: int, *, stem: Stem | None = None
) -> StageNetwork:
    """The network of an architecture of stages; with the stem of its kind, if none is said."""
    kind = NasNetwork if architecture.block == "nasnet" else ResidualNetwork
    return kind(architecture, in_channels, classes, stem=stem)


def _stem(kind: Stem, in_channels: int, width: int) -> nn.Sequential:
    check_stem(kind, width)
    return nn.Sequential(*stem_layers(kind, in_channels, width))


def count_keras_params(model: nn.Module) -> int:
    """Number of parameters as Keras counts it: the moving statistics of normalisation too."""
    statistics = (buffer for buffer in model.buffers() if buffer.is_floating_point())
    return sum(tensor.numel() for tensor in (*model.parameters(), *statistics))


class _Block(nn.Module):
    """A residual block, without the ReLU after it: whatever comes next begins with one."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module, channels: int) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.channels = channels

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu(features)
        result: Tensor = self.shortcut(features) + self.residual(features)
        return result


def _basic_block(before: int, width: int, stride: int) -> _Block:
    residual = nn.Sequential(
        nn.Conv2d(before, width, 3, stride, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
    )
    shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, width, 1, stride)
    return _Block(residual, shortcut, width)


def _bottleneck_block(before: int, width: int, stride: int) -> _Block:
    after = _BOTTLENECK_EXPANSION * width
    residual = nn.Sequential(
        nn.Conv2d(before, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, after, 1, bias=False),
        nn.BatchNorm2d(after),
    )
    shortcut: nn.Module = nn.Identity()
    if before != after:
        shortcut = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )
    return _Block(residual, shortcut, after)


def _cell_inputs(
    before: int, last: int, width: int, *, halve: bool = False
) -> tuple[nn.Module, nn.Module]:
    """What brings a cell's older and newer input to its number of channels."""
    if halve:
        older: nn.Module = FactorizedReduction(before, width)
    else:
        older = nn.Identity() if before == width else convolution(before, width, 1)
    return older, convolution(last, width, 1)
