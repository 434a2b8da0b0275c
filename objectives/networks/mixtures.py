"""Cells whose every edge is a mixture: what the super-networks of differentiable search share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from optnas.objectives.networks.cell_operations import operation

Topology = tuple[tuple[int, ...], ...]
"""The predecessors of every node of a cell, by the numbers of their states."""

Shares = tuple[Sequence[Tensor | None], Sequence[Tensor | None]]
"""Per edge its share in its node () and those of its operations (operations,), each adding up to
1; None where nothing is weighted."""

INITIAL_SPREAD = 1e-3
"""Standard deviation of fresh architecture parameters, as in the code of DARTS and PC-DARTS."""


class ArchitectureWeights(nn.Module):
    """The architecture parameters of one kind of cell, which all of its cells share.

    Args:
        topology: The predecessors of every node.
        operations: Number of candidate operations per edge. A single one needs no weight.
        edge_weights: Whether edges are weighted, as in PC-DARTS.

    Attributes:
        beta: Edge weights (edges,), in the order of the nodes and of their predecessors; None
            without any.
        alpha: Operation weights (edges, operations); None where there is one operation.
    """

    beta: nn.Parameter | None
    alpha: nn.Parameter | None

    def __init__(self, topology: Topology, operations: int, *, edge_weights: bool) -> None:
        super().__init__()
        self.sizes = [len(sources) for sources in topology]
        edges = sum(self.sizes)
        self.register_parameter("beta", nn.Parameter(torch.empty(edges)) if edge_weights else None)
        alpha = nn.Parameter(torch.empty(edges, operations)) if operations > 1 else None
        self.register_parameter("alpha", alpha)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters anew; from torch's global generator by default."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=INITIAL_SPREAD, generator=generator)

    def forward(self) -> Shares:
        """The softmax of the edges' weights within their nodes, of the operations' within their
        edges."""
        edges: Sequence[Tensor | None] = [None] * sum(self.sizes)
        operations = edges
        if self.beta is not None:
            parts = [part.softmax(0) for part in torch.split(self.beta, self.sizes)]
            edges = torch.cat(parts).unbind()
        if self.alpha is not None:
            operations = self.alpha.softmax(1).unbind()
        return edges, operations


class MixedEdge(nn.Module):
    """All candidate operations at once, on a part of the channels.

    Normalisations have no scale and shift, which would compensate for the operations' weights,
    and pooling is normalised. The bypassed channels are pooled where the operations have a
    stride. In the end the channels are shuffled, so that the next edge works on others.

    Source: PC-DARTS (Xu et al. 2020), section 3.2 and its code.

    Args:
        operations: Names of the candidates.
        channels: Number of channels, a multiple of ``partial``.
        stride: 1 or 2.
        partial: One in so many channels goes through the operations.
    """

    def __init__(
        self, operations: Sequence[str], channels: int, stride: int, partial: int
    ) -> None:
        super().__init__()
        self._active = channels // partial
        self._partial = partial
        self._stride = stride
        self.operations = nn.ModuleList(
            _candidate(name, self._active, stride) for name in operations
        )

    def forward(self, features: Tensor, shares: Tensor | None) -> Tensor:
        """The mixture for features (N, C, H, W).

        Args:
            features: What the edge starts from.
            shares: The share of every operation, shape (operations,); None where there is one.
        """
        active = features[:, : self._active]
        results: list[Tensor] = [candidate(active) for candidate in self.operations]
        if shares is None:
            (mixed,) = results
        else:
            mixed = sum_of([share * r for share, r in zip(shares, results, strict=True)])
        if self._partial == 1:
            return mixed
        if mixed is active:
            # A skip connection alone: nothing happens to either part.
            return functional.channel_shuffle(features, self._partial)
        bypassed = features[:, self._active :]
        if self._stride > 1:
            bypassed = functional.max_pool2d(bypassed, self._stride, ceil_mode=True)
        joined = torch.cat((mixed, bypassed), dim=1)
        return functional.channel_shuffle(joined, self._partial)


class MixedCell(nn.Module):
    """A cell with a mixture on every edge.

    Args:
        operations: Names of the candidates of every edge.
        topology: The predecessors of every node; the inputs are the first states.
        inputs: What is done to each of the cell's inputs.
        channels: Number of channels of every node.
        partial: One in so many channels goes through the operations.
        outputs: The states whose channels are joined to the cell's output.
        reduction: Whether the operations on the inputs have stride 2.
    """

    def __init__(
        self,
        operations: Sequence[str],
        topology: Topology,
        inputs: Sequence[nn.Module],
        channels: int,
        *,
        partial: int,
        outputs: Sequence[int],
        reduction: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(inputs)
        self._topology = topology
        self._outputs = tuple(outputs)
        strided = len(self.inputs) if reduction else 0
        self.edges = nn.ModuleList(
            MixedEdge(operations, channels, 2 if source < strided else 1, partial)
            for sources in topology
            for source in sources
        )

    def forward(self, *inputs: Tensor, shares: Shares) -> Tensor:
        """The cell's output.

        Args:
            inputs: The outputs of the cells before, each (N, C_i, H_i, W_i).
            shares: What the architecture parameters of its kind of cell give.
        """
        states = [adapt(features) for adapt, features in zip(self.inputs, inputs, strict=True)]
        edges = zip(self.edges, *shares, strict=True)
        for sources in self._topology:
            parts = []
            for source in sources:
                edge, share, operation_shares = next(edges)
                part = edge(states[source], operation_shares)
                parts.append(part if share is None else share * part)
            states.append(sum_of(parts))
        outputs = [states[state] for state in self._outputs]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """The sum of at least one tensor, all of one shape."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _candidate(name: str, channels: int, stride: int) -> nn.Module:
    module = operation(name, channels, stride, affine=False)
    if "pool" in name:
        return nn.Sequential(module, nn.BatchNorm2d(channels, affine=False))
    return module
