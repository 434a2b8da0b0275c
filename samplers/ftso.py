"""FTSO: first the topology of the cells, then their operators."""

import dataclasses
import math
from collections.abc import Generator, Sequence
from dataclasses import KW_ONLY
from typing import Any, Literal

import numpy as np
from optuna.study import Study

from optnas.samplers._batches import Candidate
from optnas.samplers._draws import Draws
from optnas.samplers._history import Result
from optnas.samplers._options import Positive
from optnas.samplers._outlook import Outlook
from optnas.samplers._phases import PhasedSampler
from optnas.samplers._replay import Search
from optnas.samplers._stock import stock_sampler
from optnas.spaces import CellSpace, Topology
from optnas.spaces.topology import KEPT, NONE
from optnas.trials.attributes import (
    ARCHITECTURE_PHASE,
    EDGE_WEIGHTS,
    OPERATION_WEIGHTS,
    OPERATORS_PHASE,
    PHASE,
    TOPOLOGY_PHASE,
)


def topology(edge_weights: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    """The two strongest predecessors of every node.

    Softmaxed weights and raw ones give the same. Of equal weights, the lower index is stronger.

    Source: FTSO, algorithm 1; which would keep all predecessors that tie for the second place.

    Args:
        edge_weights: For every node the weights of its predecessors: 2, 3, 4 and 5 numbers for
            the four nodes of a DARTS cell.

    Returns:
        For every node the indices of its two strongest predecessors, ascending; a node with a
        single predecessor keeps that.

    Raises:
        ValueError: If a weight is no number, or NaN, or a node has no predecessor.
    """
    return [_strongest(weights) for weights in edge_weights]


@dataclasses.dataclass(eq=False)
class FTSOSampler(PhasedSampler):
    """Sampler using the strategy of *FTSO: Effective NAS via First Topology Second Operator*.

    The first trial (its parameter ``phase`` is ``"topology"``) trains a super-network whose edges
    all have the same simple operation, and learns how strong the edges are. Every node keeps its
    two strongest predecessors. What these edges do is then settled without a search, by one
    powerful operation for all; or by the gradient, in a second super-network with all operations
    on the edges that are left (``phase`` ``"operators"``); or by any Optuna sampler. The network
    that results is trained (``phase`` ``"architecture"``), which ends the search.

    The edges may be searched for by any Optuna sampler too: then every trial of this phase trains
    a network that has the simple operation on all its edges, and the best one's edges are kept.

    Every phase waits for the one before. Workers share the trials that a sampler draws: these do
    not wait for one another.

    The objective suggests ``phase`` first (one of ``optnas.trials.PHASES``). A super-network's
    trial records the user attribute ``edge_weights``, or ``operation_weights``, and ends pruned,
    so that it is never the study's best: :class:`SupernetClassification` in
    ``optnas.objectives.supernet_classification`` does all that. ``edge_weights`` holds, for
    ``"normal"`` and ``"reduce"`` (NAS-Bench-201: ``"cell"``), a list of numbers per node, one for
    each predecessor. ``operation_weights`` has, instead of a number, a list with one per
    operation of the space. The parameters ``{kind}_pair_{state}``, such as ``"0,2"``, are the
    predecessors that a state of the cell keeps.

    Source: *FTSO: Effective NAS via First Topology Second Operator*, section 3, algorithms 1 and
    2; section 5 for searches by other algorithms.

    Example:

        .. code-block:: python

            space = CellSpace(nodes=4)
            sampler = FTSOSampler(space)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(SupernetClassification(space, images))
            print(sampler.found(study))

    Args:
        space: The space of cells.
        topology_search: What searches for the edges: ``"gradient"``, or ``"discrete"`` for
            ``topology_sampler``.
        operators: What settles the operations: ``"replace"``, ``"gradient"``, or ``"discrete"``
            for ``operator_sampler``.
        replace: The operation that replaces all others. Default: ``"sep_conv_3x3"``, on
            NAS-Bench-201 ``"nor_conv_3x3"``.
        keep_all: Whether every edge is kept, on NAS-Bench-201. Then no topology is searched for.
        topology_sampler: A stock sampler's name, or a mapping of its ``name`` and its options.
        topology_trials: Trials that search for the topology; fewer where there are fewer.
        operator_sampler: As ``topology_sampler``, for the operations.
        operator_trials: Trials that search for the operations.

    Raises:
        TypeError: If ``space`` is neither a `CellSpace` nor a `NasBench201Space`.
        ValueError: If an option has none of its values.
        UserError: Later, if a finished trial has no weights.

    Differences from the paper:
        Exactly two predecessors are kept where several tie. ``"none"`` is never the operation of
        an edge that is kept. The found network is trained in the search, as all strategies train
        what they judge; ``optnas retrain`` trains it fully. A search by a sampler, which the
        paper suggests, keeps the edges of the network with the best validation accuracy.
    """

    _: KW_ONLY
    topology_search: Literal["gradient", "discrete"] = "gradient"
    operators: Literal["replace", "gradient", "discrete"] = "replace"
    replace: str | None = None
    keep_all: bool = False
    topology_sampler: str | dict[str, Any] = "tpe"
    topology_trials: Positive = 50
    operator_sampler: str | dict[str, Any] = "tpe"
    operator_trials: Positive = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        is_cell = isinstance(self.space, CellSpace)
        self._edge_operations = tuple(n for n in self._topologies.operations if n != NONE)
        self._powerful = self.replace or ("sep_conv_3x3" if is_cell else "nor_conv_3x3")
        if self._powerful not in self._edge_operations:
            raise ValueError(
                f"`replace` must be one of {self._edge_operations}: {self._powerful!r}."
            )
        if self.keep_all and is_cell:
            raise ValueError("`keep_all` must be false: a node of a CellSpace has two edges.")
        if self.keep_all and self.topology_search == "discrete":
            raise ValueError(
                "`keep_all` must be false with `topology_search: discrete`: it leaves nothing to "
                "search for."
            )
        self._draw_topology = stock_sampler("topology_sampler", self.topology_sampler)
        self._draw_operators = stock_sampler("operator_sampler", self.operator_sampler)

    def search(self) -> Search[Any]:
        edges = yield from self._search_topology()
        return None if edges is None else (yield from self._settle_operations(edges))

    def _search_topology(self) -> Generator[Candidate | Draws, Result, Topology | None]:
        """The edges that are kept, or None if all failed."""
        topologies = self._topologies
        if self.keep_all:
            return topologies.whole
        if self.topology_search == "discrete":
            choices = {name: tuple(map(str, v)) for name, v in topologies.choices.items()}
            best = yield Draws(
                self._draw_topology,
                {PHASE: TOPOLOGY_PHASE},
                choices,
                self.topology_trials,
                TOPOLOGY_PHASE,
            )
            return None if best.failed else topologies.from_params(best.params)
        step = "the edges, in a super-network"
        result = yield Candidate({PHASE: TOPOLOGY_PHASE}, phase=TOPOLOGY_PHASE, step=step)
        if result.failed and EDGE_WEIGHTS not in result.attrs:
            return None
        weights = self._edge_weights(result, topologies.whole)
        return topologies.topology([topology(cell) for cell in weights])

    def _settle_operations(self, edges: Topology) -> Generator[Candidate | Draws, Result, Any]:
        """The architecture with these edges, trained; None if none could be found."""
        if self.operators == "discrete":
            known, unknown = self._topologies.split_params(edges)
            best = yield Draws(
                self._draw_operators,
                {PHASE: ARCHITECTURE_PHASE, **known},
                dict.fromkeys(unknown, self._edge_operations),
                self.operator_trials,
                ARCHITECTURE_PHASE,
            )
            return None if best.failed else self.space.from_params(best.params)
        operations: str | list[str] = self._powerful
        if self.operators == "gradient":
            kept = {} if self.keep_all else self._topologies.to_params(edges)
            step = "the operations, in a super-network"
            params = {PHASE: OPERATORS_PHASE, **kept}
            result = yield Candidate(params, phase=OPERATORS_PHASE, step=step)
            if result.failed and OPERATION_WEIGHTS not in result.attrs:
                return None
            cells = self._operation_weights(result, edges)
            operations = [self._best(edge) for cell in cells for node in cell for edge in node]
        return (yield from self._train(self._topologies.architecture(edges, operations)))

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook:
        topology, operators, networks = 0 if self.keep_all else 1, 0, 1
        if self.topology_search == "discrete":
            choices = math.prod(map(len, self._topologies.choices.values()))
            topology = min(self.topology_trials, choices)
        if self.operators == "gradient":
            operators = 1
        if self.operators == "discrete":
            networks = self.operator_trials
        return self._left(study, topology, operators, networks)


def _strongest(weights: Sequence[float]) -> tuple[int, ...]:
    try:
        numbers = [float(weight) for weight in weights]
    except (TypeError, ValueError):
        numbers = []  # Not a list of numbers: a whole network's weights, say.
    if not numbers or any(map(math.isnan, numbers)):
        raise ValueError(
            "Every node must have the weights of its predecessors, one or more numbers other "
            f"than NaN: {weights!r}."
        )
    ranked = sorted(range(len(numbers)), key=lambda index: -numbers[index])
    return tuple(sorted(ranked[:KEPT]))
