"""The topologies of cells: which predecessors every node keeps, whatever the operations."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.cell import INPUTS, CellArchitecture, CellSpace
from optnas.spaces.choices import ChoiceSpace
from optnas.spaces.nasbench201 import EDGES, NasBench201Architecture, NasBench201Space

NONE = "none"
"""The operation of an edge that is not there."""
KEPT = 2
"""Predecessors that a node keeps, if it has as many."""

Kept = tuple[tuple[int, ...], ...]
"""The predecessors that each node of a cell keeps, ascending."""


@dataclasses.dataclass(frozen=True)
class Topology(Architecture):
    """The edges of each kind of cell.

    Args:
        cells: A pair (kind, predecessors) for every kind of cell: ``"normal"`` and ``"reduce"``,
            or ``"cell"`` where there is one. The predecessors are one sequence of earlier states
            per node.
    """

    cells: tuple[tuple[str, Kept], ...]

    def __post_init__(self) -> None:
        cells = tuple((kind, tuple(tuple(kept) for kept in nodes)) for kind, nodes in self.cells)
        object.__setattr__(self, "cells", cells)

    def __str__(self) -> str:
        return "; ".join(
            f"{kind} {' '.join('+'.join(map(str, kept)) for kept in nodes)}"
            for kind, nodes in self.cells
        )


class TopologySpace(ChoiceSpace[Topology]):
    """The topologies of a space of cells in which every node keeps two predecessors.

    A trial's parameters are ``{kind}_pair_{j}``: the predecessors that state ``j`` keeps, such as
    ``"0,2"``. The states of a cell are its inputs, then its nodes. With four nodes, a
    :class:`CellSpace` has the states 2 to 5 with 1, 3, 6 and 10 choices, 180 for each kind of
    cell. :class:`NasBench201Space` has the states 1 to 3 with 1, 1 and 3 choices.

    Source: FTSO, section 3 and, for the search by any algorithm, section 5.

    Args:
        space: The space of architectures.

    Raises:
        TypeError: If ``space`` has no such cells.
    """

    architecture_class: ClassVar[type[Topology]] = Topology

    def __init__(self, space: CellSpace | NasBench201Space) -> None:
        if isinstance(space, CellSpace):
            self.kinds: tuple[str, ...] = ("normal", "reduce")
            inputs, nodes = INPUTS, space.nodes
        elif isinstance(space, NasBench201Space):
            self.kinds = ("cell",)
            inputs, nodes = 1, EDGES[-1][0]
        else:
            raise TypeError(f"There are topologies of a CellSpace or NasBench201Space: {space!r}.")
        self.space = space
        self.predecessors = tuple(range(inputs, inputs + nodes))
        """How many predecessors each node has."""
        _, operations = self.split_params(self.whole)
        self.operations = tuple(map(str, space.choices[operations[0]]))
        """The operations among which an edge chooses; ``"none"`` may be one of them."""
        super().__init__(
            {
                f"{kind}_pair_{state}": tuple(map(_text, _kept(state)))
                for kind in self.kinds
                for state in self.predecessors
            }
        )

    @property
    def whole(self) -> Topology:
        """All edges: every node keeps every predecessor."""
        return self.topology([[range(state) for state in self.predecessors]] * len(self.kinds))

    def topology(self, cells: Sequence[Sequence[Sequence[int]]]) -> Topology:
        """A topology from the predecessors of each node of each kind of cell, in this order."""
        return Topology(tuple(zip(self.kinds, cells, strict=True)))  # type: ignore[arg-type]

    def to_params(self, architecture: Topology) -> dict[str, ParamValue]:
        kept = [nodes for _, cell in architecture.cells for nodes in cell]
        return dict(zip(self.choices, map(_text, kept), strict=True))

    def split_params(self, topology: Topology) -> tuple[dict[str, ParamValue], list[str]]:
        """What a topology says of an architecture, as parameters of ``space``.

        Returns:
            The parameters that it settles; and the names of those that it leaves open, the
            operation of every edge, by kind of cell, node and predecessor.
        """
        known: dict[str, ParamValue] = {}
        unknown: list[str] = []
        if isinstance(self.space, CellSpace):
            for kind, nodes in topology.cells:
                for i, kept in enumerate(nodes):
                    for a, source in enumerate(kept):
                        known[f"{kind}_in_{i}_{a}"] = source
                        unknown.append(f"{kind}_op_{i}_{a}")
        else:
            ((_, nodes),) = topology.cells
            for state, source in EDGES:
                name = f"edge_{state}_{source}"
                if source in nodes[state - 1]:
                    unknown.append(name)
                else:
                    known[name] = NONE
        return known, unknown

    def architecture(
        self, topology: Topology, operations: str | Sequence[str]
    ) -> CellArchitecture | NasBench201Architecture:
        """The architecture with these edges.

        Args:
            topology: The edges, two for every node of a `CellSpace`.
            operations: That of every edge, in the order of ``split_params``; or one for all.
        """
        known, unknown = self.split_params(topology)
        if isinstance(operations, str):
            operations = [operations] * len(unknown)
        return self.space.from_params({**known, **dict(zip(unknown, operations, strict=True))})

    def _build(self, params: Mapping[str, Any]) -> Topology:
        kept = [[int(source) for source in params[name].split(",")] for name in self.choices]
        nodes = len(self.predecessors)
        return self.topology([kept[i : i + nodes] for i in range(0, len(kept), nodes)])


def _kept(predecessors: int) -> list[tuple[int, ...]]:
    """What a node with so many predecessors may keep."""
    return list(itertools.combinations(range(predecessors), min(KEPT, predecessors)))


def _text(kept: Sequence[int]) -> str:
    return ",".join(map(str, kept))
