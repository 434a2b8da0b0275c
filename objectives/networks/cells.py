"""The network of stacked normal and reduction cells: the evaluation network of DARTS."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.networks.cell_operations import FactorizedReduction, convolution, operation
from optnas.objectives.networks.stems import Stem, check_stem, stem_layers
from optnas.spaces import CellArchitecture
from optnas.spaces.cell import INPUTS, Cell, loose_ends

Inputs = tuple[nn.Module, nn.Module]
"""What brings the outputs of the second-last and of the last cell to a cell's own shape."""


class CellNetwork(nn.Module):
    """The evaluation network of DARTS: a stem, cells, a linear classifier on pooled features.

    The cells at ``cells // 3`` and ``2 * cells // 3`` are reduction cells: they halve the
    resolution and double the channels. So ``3 * n + 2`` cells are three stages of n normal ones.

    Drop-path zeroes the result of an edge for single images while training and scales the others
    up; skip connections without a stride are spared. ``drop_path``, the fraction that is dropped,
    may be set at any time. Its draws come from ``generator``, a generator on the CPU, or from
    torch's global one where that is None: whoever trains in several threads sets it.

    The auxiliary head classifies the features after the cell at ``2 * cells // 3``; it takes part
    only in ``with_auxiliary``, never in ``forward``. It needs images of at least 5 x 5 pixels.

    Source: DARTS (Liu et al. 2019), section 3.1 and its code; EcoNAS, section 3.1.

    Args:
        architecture: The normal and the reduction cell.
        in_channels: Channels of the images.
        classes: Number of classes.
        cells: Number of cells, at least 1.
        channels: Channels of the nodes of the first cells, at least 1.
        concat: ``"loose"``: a cell's output are the nodes that no other node takes; ``"all"``:
            all nodes, as in DARTS.
        stem: ``"small"`` is for images such as those of CIFAR; ``"large"`` and ``"7x7"``, for
            those of ImageNet, halve the resolution three times and twice before the cells.
        auxiliary: Whether there is an auxiliary head.
        drop_path: Fraction of edges dropped per image, in [0, 1).

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        architecture: CellArchitecture,
        in_channels: int,
        classes: int,
        *,
        cells: int = 20,
        channels: int = 36,
        concat: Literal["loose", "all"] = "loose",
        stem: Stem = "small",
        auxiliary: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if cells < 1 or channels < 1:
            raise ValueError(
                "`cells` and `channels` must be greater than or equal to 1: "
                f"cells={cells}, channels={channels}."
            )
        if concat not in ("loose", "all"):
            raise ValueError(f"`concat` must be 'loose' or 'all': {concat!r}.")
        if not 0 <= drop_path < 1:
            raise ValueError(f"`drop_path` must be in [0, 1): {drop_path}.")
        self.drop_path = drop_path
        self.generator: torch.Generator | None = None
        self._edges = 2 * len(architecture.normal)
        self._auxiliary_cell = 2 * cells // 3

        def build(inputs: Inputs, channels: int, reduction: bool) -> tuple[nn.Module, int]:
            cell = architecture.reduce if reduction else architecture.normal
            outputs = loose_ends(cell) if concat == "loose" else range(INPUTS, INPUTS + len(cell))
            module = CellModule(cell, inputs, channels, tuple(outputs), reduction)
            return module, len(outputs) * channels

        self.stem = CellStem(stem, in_channels, channels)
        self.cells, widths = stacked_cells(build, self.stem, cells, channels)
        width = widths[self._auxiliary_cell]
        self.auxiliary_head = AuxiliaryHead(width, classes) if auxiliary else None
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        return self._classified(self._features(images)[0])

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and those of the auxiliary head, both (N, classes), for training.

        Raises:
            ValueError: If the network was built without an auxiliary head.
        """
        if self.auxiliary_head is None:
            raise ValueError("The network has no auxiliary head: build it with `auxiliary=True`.")
        features, middle = self._features(images)
        return self._classified(features), self.auxiliary_head(middle)

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the last cell, and of the one that the auxiliary head looks at."""
        before, last = self.stem(images)
        middle = last
        scales = self._scales(last)
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, None if scales is None else scales[index])
            if index == self._auxiliary_cell:
                middle = last
        return last, middle

    def _scales(self, features: Tensor) -> Tensor | None:
        """What every edge is multiplied by: (cells, edges, N, 1, 1, 1), or None for nothing."""
        if not self.training or self.drop_path == 0:
            return None
        # One draw and one transfer for all edges.
        shape = (len(self.cells), self._edges, len(features), 1, 1, 1)
        kept = torch.rand(shape, generator=self.generator) >= self.drop_path
        return (kept / (1 - self.drop_path)).to(features, non_blocking=True)

    def _classified(self, features: Tensor) -> Tensor:
        # A plain mean: the backward pass of adaptive pooling is not deterministic on CUDA.
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


class CellStem(nn.Sequential):
    """What comes before the first cell.

    Args:
        kind: For which images; see `optnas.objectives.networks.stems`. A small stem has three
            times the channels of the first cells.
        in_channels: Channels of the images.
        channels: Channels of the nodes of the first cells.

    Attributes:
        reduces: Whether the first cell's two inputs differ in resolution: those of a large stem
            are the outputs of its last two convolutions.

    Raises:
        ValueError: If there is no such kind, or it cannot have so few channels.
    """

    def __init__(self, kind: Stem, in_channels: int, channels: int) -> None:
        check_stem(kind, channels)
        self.width = 3 * channels if kind == "small" else channels
        self.reduces = kind == "large"
        super().__init__(*stem_layers(kind, in_channels, self.width))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the first cell takes for the outputs of the second-last and of the last cell."""
        outputs = [images]
        for layer in self:
            outputs.append(layer(outputs[-1]))
        # The second-last convolution's, before its ReLU and the last one's normalisation.
        return outputs[-4] if self.reduces else outputs[-1], outputs[-1]


def stacked_cells(
    build: Callable[[Inputs, int, bool], tuple[nn.Module, int]],
    stem: CellStem,
    cells: int,
    channels: int,
    *,
    affine: bool = True,
) -> tuple[nn.ModuleList, list[int]]:
    """The cells of a network, as DARTS stacks them.

    Args:
        build: Called for every cell with its inputs, its number of channels and whether it is a
            reduction cell; returns the module and the number of channels that it puts out.
        stem: What comes before them.
        cells: Number of cells; those at ``cells // 3`` and ``2 * cells // 3`` are reduction
            cells, which have twice the channels of the ones before.
        channels: Channels of the first cells.
        affine: Whether the normalisations of the inputs have a scale and a shift of their own.

    Returns:
        The modules, and the number of channels that each puts out.
    """
    reductions = (cells // 3, 2 * cells // 3)
    modules = nn.ModuleList()
    # What the second-last and the last cell put out: at first the stem is both.
    widths = [stem.width] * 2
    for index in range(cells):
        channels *= 2 if index in reductions else 1
        before, last = widths[-2:]
        inputs = (
            FactorizedReduction(before, channels, affine=affine)
            if (index - 1 in reductions or (index == 0 and stem.reduces))
            else convolution(before, channels, 1, affine=affine),
            convolution(last, channels, 1, affine=affine),
        )
        module, width = build(inputs, channels, index in reductions)
        modules.append(module)
        widths.append(width)
    return modules, widths[2:]


class AuxiliaryHead(nn.Module):
    """A small classifier on the features of an inner cell.

    On 8 x 8 features, those of 32 x 32 images, the pooling is that of DARTS; smaller ones are
    pooled to 2 x 2, which the second convolution needs.

    Args:
        channels: Channels of the features.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, classes) of features (N, channels, H, W), H and W at least 2."""
        sides = features.shape[2:]
        window = [min(5, side - 1) for side in sides]
        stride = [min(3, side - size) for side, size in zip(sides, window, strict=True)]
        pooled = functional.avg_pool2d(functional.relu(features), window, stride)
        logits: Tensor = self.classifier(self.features(pooled).mean((2, 3)))
        return logits


class CellModule(nn.Module):
    """One cell of a network.

    Args:
        cell: Its nodes, as a `CellArchitecture` has them.
        inputs: What brings the outputs of the second-last and of the last cell to the cell's
            number of channels and to one resolution.
        channels: Number of channels of every node.
        outputs: The states whose channels are joined to the cell's output; 0 and 1 are the
            inputs, 2 is the first node.
        reduction: Whether the operations on the inputs have stride 2.
    """

    def __init__(
        self,
        cell: Cell,
        inputs: Inputs,
        channels: int,
        outputs: tuple[int, ...],
        reduction: bool,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(inputs)
        pairs = [pair for node in cell for pair in node]
        self._sources = [source for _, source in pairs]
        self._outputs = outputs
        self.edges = nn.ModuleList(
            operation(name, channels, 2 if reduction and source < INPUTS else 1)
            for name, source in pairs
        )

    def forward(self, before: Tensor, last: Tensor, scales: Tensor | None = None) -> Tensor:
        """The cell's output for those of the second-last and the last cell.

        Args:
            before: Shape (N, C0, H0, W0).
            last: Shape (N, C1, H, W).
            scales: What every edge's result is multiplied by, (edges, N, 1, 1, 1); skip
                connections without a stride are spared.
        """
        states = [self.inputs[0](before), self.inputs[1](last)]
        for first in range(0, len(self.edges), 2):
            states.append(
                self._edge(first, states, scales) + self._edge(first + 1, states, scales)
            )
        return torch.cat([states[state] for state in self._outputs], dim=1)

    def _edge(self, index: int, states: list[Tensor], scales: Tensor | None) -> Tensor:
        edge = self.edges[index]
        result: Tensor = edge(states[self._sources[index]])
        if scales is None or isinstance(edge, nn.Identity):
            return result
        return result * scales[index]
