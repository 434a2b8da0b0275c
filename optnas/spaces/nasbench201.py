"""The space of NAS-Bench-201: one cell, whose 15,625 architectures were all trained."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.choices import ChoiceSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""The edges of the cell as (node, the earlier node it takes), in the order of the operations."""


@dataclasses.dataclass(frozen=True)
class NasBench201Architecture(Architecture):
    """A cell of four nodes, each the sum of an operation on every node before it.

    ``str()`` gives the string by which the benchmark names the architecture.

    Source: NAS-Bench-201 (Dong and Yang 2020), section 2.1.

    Args:
        operations: One of ``OPERATIONS`` for each of ``EDGES``: 1 from 0, 2 from 0, 2 from 1,
            3 from 0, 3 from 1, 3 from 2.

    Raises:
        ValueError: If there are not six known operations.
    """

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        operations = tuple(self.operations)
        if len(operations) != len(EDGES) or not all(o in OPERATIONS for o in operations):
            raise ValueError(
                f"`operations` must hold {len(EDGES)} values, each one of {OPERATIONS}: "
                f"{operations}."
            )
        object.__setattr__(self, "operations", operations)

    def __str__(self) -> str:
        nodes: dict[int, str] = {}
        for operation, (node, source) in zip(self.operations, EDGES, strict=True):
            nodes[node] = nodes.get(node, "|") + f"{operation}~{source}|"
        return "+".join(nodes.values())


class NasBench201Space(ChoiceSpace[NasBench201Architecture]):
    """All architectures of NAS-Bench-201.

    A trial's parameters are ``edge_{i}_{j}``: the operation that node ``i`` applies to node
    ``j < i``; six in the order of ``EDGES``.

    Source: NAS-Bench-201 (Dong and Yang 2020), section 2.1.
    """

    architecture_class: ClassVar[type[NasBench201Architecture]] = NasBench201Architecture

    def __init__(self) -> None:
        super().__init__({f"edge_{i}_{j}": OPERATIONS for i, j in EDGES})

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def to_params(self, architecture: NasBench201Architecture) -> dict[str, ParamValue]:
        return dict(zip(self.choices, architecture.operations, strict=True))

    def extremes(self) -> tuple[NasBench201Architecture, NasBench201Architecture]:
        least, most = (("none",) * len(EDGES), ("nor_conv_3x3",) * len(EDGES))
        return NasBench201Architecture(least), NasBench201Architecture(most)

    def mutate(
        self, architecture: NasBench201Architecture, rng: np.random.Generator
    ) -> NasBench201Architecture:
        """Another architecture that differs in one edge, every edge and operation alike."""
        names = tuple(self.choices)
        return self._changed(architecture, names[int(rng.integers(len(names)))], rng)

    def _build(self, params: Mapping[str, Any]) -> NasBench201Architecture:
        return NasBench201Architecture(tuple(params[name] for name in self.choices))
