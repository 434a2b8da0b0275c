"""What the searches on super-networks share: trials of several kinds, and weights to read."""

import collections
import dataclasses
import functools
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.errors import UserError
from optnas.samplers._batches import Candidate
from optnas.samplers._history import Result
from optnas.samplers._outlook import Outlook, Stretch
from optnas.samplers._replay import ReplaySampler
from optnas.spaces import CellSpace, NasBench201Space
from optnas.spaces.topology import NONE, Topology, TopologySpace
from optnas.trials.attributes import (
    ARCHITECTURE_PHASE,
    EDGE_WEIGHTS,
    OPERATION_WEIGHTS,
    PHASE,
    PHASES,
)
from optnas.trials.claims import Claim


@dataclasses.dataclass(eq=False)
class PhasedSampler(ReplaySampler[Any]):
    """Base of searches on super-networks, whose trials are of several kinds.

    The parameter ``phase`` tells them apart. The objective suggests it first, by
    ``trial.suggest_categorical("phase", PHASES)``; it may leave out phases that the search does
    not have. Only trials of the phase ``"architecture"`` have the parameters of the space.

    Args:
        space: The space of cells.
    """

    searches = (CellSpace, NasBench201Space)
    phases = PHASES
    needs_objective = "supernet_classification"

    space: CellSpace | NasBench201Space

    def own_distributions(self) -> Mapping[str, BaseDistribution]:
        return {PHASE: CategoricalDistribution(PHASES), **self._topologies.distributions()}

    @functools.cached_property
    def _topologies(self) -> TopologySpace:
        return TopologySpace(self.space)

    def _trained(self, study: Study) -> list[tuple[Candidate, Result]]:
        trained = super()._trained(study)
        return [pair for pair in trained if pair[0].params[PHASE] == ARCHITECTURE_PHASE]

    # The phase is not among the relative parameters, for which Optuna would insist on one list of
    # choices: an objective that only knows some of the phases is as good.

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        space = super().infer_relative_search_space(study, trial)
        return {name: distribution for name, distribution in space.items() if name != PHASE}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        params = super().sample_relative(study, trial, search_space)
        return {name: value for name, value in params.items() if name != PHASE}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if param_name == PHASE:
            claim = Claim.of(trial)
            # Somebody's own trial is an architecture, unless it says otherwise.
            return ARCHITECTURE_PHASE if claim is None else claim.params[PHASE]
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _left(self, study: Study, topology: int, operators: int, networks: int) -> Outlook:
        """What is ahead, of a search with so many trials of every phase."""
        results = self._history(study).results
        done = collections.Counter(result.attrs.get(PHASE) for result in results)
        planned = zip(PHASES, (topology, operators, networks), strict=True)
        return Outlook.settled(*(Stretch(phase, n - done[phase]) for phase, n in planned))

    def _train(self, architecture: Any) -> Generator[Candidate, Result, Any]:
        """Train an architecture, which is what the search has found, whatever comes of it."""
        params = self.space.to_params(architecture)
        params = {PHASE: ARCHITECTURE_PHASE, **params}
        yield Candidate(params, phase=ARCHITECTURE_PHASE, step="the network found")
        return architecture

    def _edge_weights(self, result: Result, topology: Topology) -> list[list[list[float]]]:
        """Weights by kind of cell, node and edge of ``topology``."""
        found: list[list[list[float]]] = self._checked(result, EDGE_WEIGHTS, topology)
        if not all(_is_weight(weight) for cell in found for node in cell for weight in node):
            raise self._malformed(result, EDGE_WEIGHTS, "one number per edge")
        return found

    def _operation_weights(
        self, result: Result, topology: Topology
    ) -> list[list[list[dict[str, float]]]]:
        """Weights by kind of cell, node, edge of ``topology`` and operation."""
        found = self._checked(result, OPERATION_WEIGHTS, topology)
        operations = self._topologies.operations
        edges = [edge for cell in found for node in cell for edge in node]
        if not all(
            _is_list(edge, len(operations)) and all(map(_is_weight, edge)) for edge in edges
        ):
            rule = f"{len(operations)} numbers per edge, one for each operation of the space"
            raise self._malformed(result, OPERATION_WEIGHTS, rule)
        return [
            [[dict(zip(operations, edge, strict=True)) for edge in node] for node in cell]
            for cell in found
        ]

    def _checked(self, result: Result, name: str, topology: Topology) -> Any:
        """An attribute of a trial, if it has an entry for every edge."""
        weights = result.attrs.get(name)
        if (
            not isinstance(weights, Mapping)
            or weights.keys() != dict(topology.cells).keys()
            or not all(
                _is_list(weights[kind], len(nodes))
                and all(_is_list(w, len(n)) for w, n in zip(weights[kind], nodes, strict=True))
                for kind, nodes in topology.cells
            )
        ):
            raise self._malformed(result, name, "one entry per edge")
        return [weights[kind] for kind, _ in topology.cells]

    def _malformed(self, result: Result, name: str, rule: str) -> UserError:
        kinds = " and ".join(map(repr, self._topologies.kinds))
        return UserError(
            f"Trial {result.number} must have the user attribute `{name}`: for {kinds} one list "
            f"per node, with {rule}, but has {result.attrs.get(name)!r}. The objective must set "
            "it, as `supernet_classification` does, and no pruner may cut the trial short."
        )

    @staticmethod
    def _best(weights: Mapping[str, float]) -> str:
        """The strongest operation of an edge that is there; the first of equal ones."""
        return max((name for name in weights if name != NONE), key=lambda name: weights[name])


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)
