"""DARTS: edges and operations at once, in one super-network with all of them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.study import Study

from optnas.samplers._batches import Candidate
from optnas.samplers._outlook import Outlook
from optnas.samplers._phases import PhasedSampler
from optnas.samplers._replay import Search
from optnas.samplers.ftso import topology
from optnas.spaces import NasBench201Space, Topology
from optnas.trials.attributes import EDGE_WEIGHTS, OPERATION_WEIGHTS, OPERATORS_PHASE, PHASE


@dataclasses.dataclass(eq=False)
class DARTSSampler(PhasedSampler):
    """Sampler using *DARTS: Differentiable Architecture Search*, the baseline of FTSO.

    The first trial (its parameter ``phase`` is ``"operators"``) trains a super-network with all
    operations on all edges, and learns how strong they are. The network found is then trained
    (``phase`` ``"architecture"``), which ends the search.

    On a `CellSpace`, every node keeps the two edges whose strongest operation is strongest, with
    that operation, which is never ``"none"``; on NAS-Bench-201 every edge has its strongest
    operation, ``"none"`` among them, as in the benchmark's own search.

    If the objective records the user attribute ``edge_weights`` beside ``operation_weights``, the
    strength of an edge is the product of both (PC-DARTS). What is trained, the plain
    super-network, PC-DARTS's, by the first or by the second order, is the objective's affair:
    ``optnas.objectives.supernet_classification``.

    Source: DARTS (Liu, Simonyan and Yang 2019), section 2.4; PC-DARTS (Xu et al. 2020), section
    3.2; NAS-Bench-201 (Dong and Yang 2020), section 5.

    Args:
        space: The space of cells.

    Raises:
        TypeError: If ``space`` is neither a `CellSpace` nor a `NasBench201Space`.
        UserError: Later, if a finished trial has no weights.

    Differences from the paper:
        The search is run once. The paper takes the best of four, by a short training.
    """

    def search(self) -> Search[Any]:
        edges = self._topologies.whole
        step = "edges and operations, in a super-network"
        result = yield Candidate({PHASE: OPERATORS_PHASE}, phase=OPERATORS_PHASE, step=step)
        if result.failed and OPERATION_WEIGHTS not in result.attrs:
            return None
        cells = self._operation_weights(result, edges)
        if isinstance(self.space, NasBench201Space):
            operations = [
                max(e, key=e.__getitem__) for cell in cells for node in cell for e in node
            ]
        else:
            scales = [[[1.0] * len(node) for node in cell] for cell in cells]
            if EDGE_WEIGHTS in result.attrs:
                weights = self._edge_weights(result, edges)
                scales = [[_softmax(node) for node in cell] for cell in weights]
            edges, operations = self._strongest(cells, scales)
        return (yield from self._train(self._topologies.architecture(edges, operations)))

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook:
        return self._left(study, topology=0, operators=1, networks=1)

    def _strongest(
        self,
        cells: Sequence[Sequence[Sequence[dict[str, float]]]],
        scales: Sequence[Sequence[Sequence[float]]],
    ) -> tuple[Topology, list[str]]:
        """The two strongest edges of every node, and their operations."""
        kept = [
            topology(
                [
                    [scale * edge[self._best(edge)] for scale, edge in zip(s, node, strict=True)]
                    for s, node in zip(scale_cell, cell, strict=True)
                ]
            )
            for scale_cell, cell in zip(scales, cells, strict=True)
        ]
        operations = [
            self._best(node[source])
            for cell, sources in zip(cells, kept, strict=True)
            for node, pair in zip(cell, sources, strict=True)
            for source in pair
        ]
        return self._topologies.topology(kept), operations


def _softmax(weights: Sequence[float]) -> list[float]:
    greatest = max(weights)
    powers = [math.exp(weight - greatest) for weight in weights]
    return [power / sum(powers) for power in powers]
