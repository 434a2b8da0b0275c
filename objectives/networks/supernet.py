"""Super-networks, which hold all networks of a space at once, to be searched by gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from optnas.objectives.networks.cells import CellStem, Inputs, stacked_cells
from optnas.objectives.networks.mixtures import ArchitectureWeights, MixedCell, Topology
from optnas.objectives.networks.nasbench201 import stages
from optnas.objectives.networks.stems import Stem
from optnas.spaces import CellSpace, NasBench201Space, Space
from optnas.spaces.cell import INPUTS
from optnas.spaces.cell import OPERATIONS as CELL_OPERATIONS
from optnas.spaces.nasbench201 import EDGES
from optnas.spaces.nasbench201 import OPERATIONS as BENCH_OPERATIONS

Nested = dict[str, list[list[float]]]


class MixedNetwork(nn.Module):
    """A network of mixed cells; which kinds of cells there are is up to the subclass.

    Args:
        topologies: Per kind of cell the predecessors of every node.
        operations: Names of the candidate operations of every edge.
        edge_weights: Whether edges are weighted, as in PC-DARTS.
    """

    def __init__(
        self, topologies: Mapping[str, Topology], operations: Sequence[str], *, edge_weights: bool
    ) -> None:
        super().__init__()
        self.operations = tuple(operations)
        self.topology = dict(topologies)
        # The first part, so that its draws do not depend on the size of the network.
        self.architecture = nn.ModuleDict(
            {
                kind: ArchitectureWeights(topology, len(operations), edge_weights=edge_weights)
                for kind, topology in topologies.items()
            }
        )

    def architecture_parameters(self) -> list[nn.Parameter]:
        """The weights of edges and of operations, per kind of cell."""
        return list(self.architecture.parameters())

    def weight_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        return [p for n, p in self.named_parameters() if not n.startswith("architecture.")]

    def edge_weights(self) -> Nested:
        """Per kind of cell and node the weight of every predecessor, as it is before the softmax.

        They are 0.0, which weighs all predecessors alike, where the network has none.
        """
        result: Nested = {}
        for kind, weights in self._kinds():
            beta = [0.0] * sum(weights.sizes) if weights.beta is None else weights.beta.tolist()
            result[kind] = _per_node(beta, weights.sizes)
        return result

    def operation_weights(self) -> dict[str, list[list[list[float]]]]:
        """Per kind of cell, node and predecessor the share of every operation, after the softmax.

        The share of a single operation is 1.0.
        """
        result: dict[str, list[list[list[float]]]] = {}
        for kind, weights in self._kinds():
            _, shares = weights()
            alpha = [[1.0] if share is None else share.tolist() for share in shares]
            result[kind] = _per_node(alpha, weights.sizes)
        return result

    def _kinds(self) -> list[tuple[str, ArchitectureWeights]]:
        weights: Any = self.architecture
        return list(weights.items())


class SuperNetwork(MixedNetwork):
    """The super-network of `CellSpace`: that of PC-DARTS, or of DARTS.

    With the defaults it is the topology super-network of FTSO: one skip connection per edge on a
    quarter of the channels, 14 weighted edges per kind of cell. As the cells at ``cells // 3`` and
    ``2 * cells // 3`` reduce, skip connections there, the stem, the inputs of the cells and the
    classifier have weights: 102,010 on images with 3 channels and 10 classes.

    PC-DARTS takes all ``operations`` of the space, DARTS moreover ``partial=1`` and
    ``edge_weights=False``.

    Source: PC-DARTS (Xu et al. 2020), section 3; FTSO, section 3; their hyper-parameters are
    those of FTSO's table 4.

    Args:
        in_channels: Channels of the images.
        classes: Number of classes.
        cells: Number of cells, at least 1.
        channels: Channels of the nodes of the first cells, a multiple of ``partial``.
        nodes: Nodes of a cell, at least 1.
        operations: Names of the candidate operations of every edge, of
            ``optnas.spaces.cell.OPERATIONS``.
        partial: One in so many channels goes through the operations, the others past them.
        edge_weights: Whether edges are weighted.
        stem: What comes before the cells, as of `CellNetwork`.
        topology: The predecessors of every node that are left, for ``"normal"`` and ``"reduce"``:
            0 and 1 are the inputs of the cell, ``i + 2`` is node ``i``. Default: all.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        cells: int = 8,
        channels: int = 16,
        nodes: int = 4,
        operations: Sequence[str] = ("skip_connect",),
        partial: int = 4,
        edge_weights: bool = True,
        stem: Stem = "small",
        topology: Mapping[str, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        if cells < 1 or nodes < 1:
            raise ValueError(
                "`cells` and `nodes` must be greater than or equal to 1: "
                f"cells={cells}, nodes={nodes}."
            )
        _check(operations, CELL_OPERATIONS, channels, partial)
        kept = _kept(topology, ("normal", "reduce"), INPUTS, nodes)
        super().__init__(kept, operations, edge_weights=edge_weights)
        width = nodes  # in channels of a node: the outputs of all nodes are joined
        self._plan: list[str] = []

        def build(inputs: Inputs, channels: int, reduction: bool) -> tuple[nn.Module, int]:
            kind = "reduce" if reduction else "normal"
            self._plan.append(kind)
            cell = MixedCell(
                operations,
                kept[kind],
                inputs,
                channels,
                partial=partial,
                outputs=range(INPUTS, INPUTS + nodes),
                reduction=reduction,
            )
            return cell, width * channels

        self.stem = CellStem(stem, in_channels, channels)
        self.cells, widths = stacked_cells(build, self.stem, cells, channels, affine=False)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        before, last = self.stem(images)
        shares = {kind: weights() for kind, weights in self.architecture.items()}
        for cell, kind in zip(self.cells, self._plan, strict=True):
            before, last = last, cell(before, last, shares=shares[kind])
        logits: Tensor = self.classifier(last.mean((2, 3)))
        return logits


class NasBench201SuperNetwork(MixedNetwork):
    """The super-network of `NasBench201Space`: mixed cells in the network of NAS-Bench-201.

    A cell has one input and three nodes, each with all nodes before it: six edges.

    Source: NAS-Bench-201 (Dong and Yang 2020), section 2.1; FTSO, section 4, on NATS-Bench.

    Args:
        cells: Number of cells, a multiple of 3.
        channels: Channels of the first stage, a multiple of ``partial``.
        operations: Names of the candidate operations of every edge, of
            ``optnas.spaces.nasbench201.OPERATIONS``.
        topology: The predecessors of every node that are left, for ``"cell"``: 0 is the input,
            ``i`` is node ``i``. Default: all. The other arguments are those of `SuperNetwork`.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        cells: int = 15,
        channels: int = 16,
        operations: Sequence[str] = ("skip_connect",),
        partial: int = 1,
        edge_weights: bool = True,
        topology: Mapping[str, Sequence[Sequence[int]]] | None = None,
    ) -> None:
        _check(operations, BENCH_OPERATIONS, channels, partial)
        nodes = max(node for node, _ in EDGES)
        kept = _kept(topology, ("cell",), 1, nodes)
        super().__init__(kept, operations, edge_weights=edge_weights)

        def build(channels: int) -> nn.Module:
            return MixedCell(
                operations,
                kept["cell"],
                [nn.Identity()],
                channels,
                partial=partial,
                outputs=[nodes],
            )

        self.stem, self.layers, width = stages(build, in_channels, cells, channels)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        features = self.stem(images)
        shares = self.architecture["cell"]()
        for layer in self.layers:
            mixed = isinstance(layer, MixedCell)
            features = layer(features, shares=shares) if mixed else layer(features)
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits


def supernet_of(space: Space[Any], in_channels: int, classes: int, **options: Any) -> MixedNetwork:
    """The super-network of a space.

    Args:
        space: A `CellSpace` or a `NasBench201Space`.
        in_channels: Channels of the images.
        classes: Number of classes.
        options: What else the network takes; the nodes are those of the space.

    Raises:
        TypeError: If no super-network is known for the space.
        ValueError: If an option is out of range.
    """
    match space:
        case CellSpace():
            return SuperNetwork(in_channels, classes, nodes=space.nodes, **options)
        case NasBench201Space():
            return NasBench201SuperNetwork(in_channels, classes, **options)
    raise TypeError(
        f"No super-network for {type(space).__name__}; known: CellSpace, NasBench201Space."
    )


def _check(operations: Sequence[str], known: Sequence[str], channels: int, partial: int) -> None:
    if not operations or len(set(operations)) < len(operations) or set(operations) - set(known):
        raise ValueError(f"`operations` must be different ones of {known}: {operations}.")
    if channels < 1 or partial < 1 or channels % partial:
        raise ValueError(
            "`channels` must be a positive multiple of `partial`, which is at least 1: "
            f"channels={channels}, partial={partial}."
        )


def _kept(
    topology: Mapping[str, Sequence[Sequence[int]]] | None,
    kinds: Sequence[str],
    inputs: int,
    nodes: int,
) -> dict[str, Topology]:
    """The predecessors of every node for all kinds of cells, checked."""
    everything = tuple(tuple(range(inputs + node)) for node in range(nodes))
    if topology is None:
        return dict.fromkeys(kinds, everything)
    kept = {kind: tuple(tuple(node) for node in topology.get(kind, ())) for kind in kinds}
    for kind, cell in kept.items():
        valid = len(cell) == nodes and all(
            node and len(set(node)) == len(node) and set(node) <= set(known)
            for node, known in zip(cell, everything, strict=True)
        )
        if not valid:
            raise ValueError(
                f"`topology` must hold, for {' and '.join(kinds)}, {nodes} nodes with at least "
                f"one of their predecessors, which are {everything}: {kind}={cell}."
            )
    return kept


def _per_node(values: list[Any], sizes: list[int]) -> list[list[Any]]:
    """Consecutive values, as many per node as it has predecessors."""
    rest = iter(values)
    return [[next(rest) for _ in range(size)] for size in sizes]
