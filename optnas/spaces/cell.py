"""Cells of the DARTS kind: a normal and a reduction cell, stacked to a network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.choices import Choices, ChoiceSpace

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
INPUTS = 2
"""The outputs of the two cells before, which every cell starts from."""

Node = tuple[tuple[str, int], tuple[str, int]]
Cell = tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class CellArchitecture(Architecture):
    """A normal and a reduction cell; how many are stacked, and how wide, is up to the network.

    A cell is a sequence of nodes. A node adds up two operations, each applied to an earlier
    state: 0 and 1 are the outputs of the second-last and the last cell, ``i + 2`` is node ``i``.
    Both edges of a node may take the same state.

    Source: DARTS (Liu et al. 2019), section 2.1; EcoNAS, section 3.1.

    Args:
        normal: One pair of (operation, input) pairs per node; see ``OPERATIONS``.
        reduce: The same for the cell that halves the resolution, with as many nodes.

    Raises:
        ValueError: If a cell does not have this form.
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if len(self.normal) != len(self.reduce):
            raise ValueError(
                "`normal` and `reduce` must have the same number of nodes: "
                f"{len(self.normal)} and {len(self.reduce)}."
            )


def loose_ends(cell: Cell) -> tuple[int, ...]:
    """The nodes that no other node takes, as states: 2 is the first node. Never empty.

    The two inputs are never among them: in a reduction cell they have the double resolution.
    """
    used = {source for node in cell for _, source in node}
    return tuple(state for state in range(INPUTS, INPUTS + len(cell)) if state not in used)


class CellSpace(ChoiceSpace[CellArchitecture]):
    """The cell space of DARTS and EcoNAS: eight operations, any two earlier states per node.

    A trial's parameters are, for ``normal`` and ``reduce``, node ``i`` and edge ``a`` (0 or 1),
    the operation ``normal_op_{i}_{a}`` and its input ``normal_in_{i}_{a}`` from 0 to ``i + 1``:
    32 parameters with four nodes, none of them conditional.

    Source: EcoNAS, section 3.1 and, for the mutations, section 4.

    Args:
        nodes: Nodes of a cell, at least 1.
        none: Whether the operation ``none`` (a zero) is among the choices.

    Raises:
        ValueError: If ``nodes`` is below 1.
    """

    architecture_class: ClassVar[type[CellArchitecture]] = CellArchitecture

    def __init__(self, nodes: int = 4, *, none: bool = True) -> None:
        if nodes < 1:
            raise ValueError(f"`nodes` must be greater than or equal to 1: {nodes}.")
        self.nodes = nodes
        self.none = none
        choices: dict[str, Choices] = {}
        for kind in ("normal", "reduce"):
            for i, a in _edges(nodes):
                choices[f"{kind}_op_{i}_{a}"] = OPERATIONS if none else OPERATIONS[1:]
                choices[f"{kind}_in_{i}_{a}"] = range(INPUTS + i)
        super().__init__(choices)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nodes={self.nodes}, none={self.none})"

    def to_params(self, architecture: CellArchitecture) -> dict[str, ParamValue]:
        params: dict[str, ParamValue] = {}
        for kind, cell in (("normal", architecture.normal), ("reduce", architecture.reduce)):
            for i, a in _edges(len(cell)):
                params[f"{kind}_op_{i}_{a}"], params[f"{kind}_in_{i}_{a}"] = cell[i][a]
        return params

    def extremes(self) -> tuple[CellArchitecture, CellArchitecture]:
        """All nodes that no other takes are put out: all of them make the widest cell."""
        free = "none" if self.none else "skip_connect"
        least = tuple(((free, i + 1), (free, i + 1)) for i in range(self.nodes))
        most = ((("sep_conv_5x5", 0), ("sep_conv_5x5", 1)),) * self.nodes
        return CellArchitecture(least, least), CellArchitecture(most, most)

    def mutate(self, architecture: CellArchitecture, rng: np.random.Generator) -> CellArchitecture:
        """Another architecture that differs in one value.

        An operation or a connection, in the normal or the reduction cell, each with probability
        1/2; every edge of the cell, and every other value there, is equally likely.
        """
        what = ("op", "in")[int(rng.integers(2))]
        kind = ("normal", "reduce")[int(rng.integers(2))]
        i, a = divmod(int(rng.integers(2 * self.nodes)), 2)
        return self._changed(architecture, f"{kind}_{what}_{i}_{a}", rng)

    def _build(self, params: Mapping[str, Any]) -> CellArchitecture:
        return CellArchitecture(self._cell("normal", params), self._cell("reduce", params))

    def _cell(self, kind: str, params: Mapping[str, Any]) -> Cell:
        pairs = [
            (params[f"{kind}_op_{i}_{a}"], params[f"{kind}_in_{i}_{a}"])
            for i, a in _edges(self.nodes)
        ]
        return tuple(zip(pairs[::2], pairs[1::2], strict=True))


def _edges(nodes: int) -> list[tuple[int, int]]:
    return [(i, a) for i in range(nodes) for a in range(2)]


def _checked(name: str, nodes: Sequence[Any]) -> Cell:
    try:
        cell = tuple(tuple((operation, source) for operation, source in node) for node in nodes)
    except (TypeError, ValueError):
        cell = ()
    valid = all(
        operation in OPERATIONS and type(source) is int and 0 <= source < INPUTS + i
        for i, node in enumerate(cell)
        for operation, source in node
    )
    if not cell or not valid or any(len(node) != 2 for node in cell):
        raise ValueError(
            f"`{name}` must hold two (operation, input) pairs per node, the operation one of "
            f"{OPERATIONS} and the input of node i from 0 to i + 1: {nodes}."
        )
    return cell  # type: ignore[return-value]  # every node was just seen to have two pairs
