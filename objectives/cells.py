"""The network of stacked normal and reduction cells: the evaluation network of DARTS."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.cell_operations import FactorizedReduction, convolution, operation
from optnas.spaces import CellArchitecture
from optnas.spaces.cell import INPUTS, Cell, loose_ends

_STEM_FACTOR = 3  # DARTS: the stem has three times the channels of a cell's first nodes.


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
        reductions = (cells // 3, self._auxiliary_cell)
        before = last = _STEM_FACTOR * channels
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, last, 3, padding=1, bias=False), nn.BatchNorm2d(last)
        )
        self.cells = nn.ModuleList()
        self.auxiliary_head: AuxiliaryHead | None = None
        for index in range(cells):
            reduction = index in reductions
            channels *= 2 if reduction else 1
            cell = architecture.reduce if reduction else architecture.normal
            outputs = loose_ends(cell) if concat == "loose" else range(INPUTS, INPUTS + len(cell))
            inputs = (
                FactorizedReduction(before, channels)
                if index - 1 in reductions
                else convolution(before, channels, 1),
                convolution(last, channels, 1),
            )
            self.cells.append(CellModule(cell, inputs, channels, tuple(outputs), reduction))
            before, last = last, len(outputs) * channels
            if auxiliary and index == self._auxiliary_cell:
                self.auxiliary_head = AuxiliaryHead(last, classes)
        self.classifier = nn.Linear(last, classes)

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
        before = last = middle = self.stem(images)
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
        inputs: tuple[nn.Module, nn.Module],
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
