"""The networks of a study, whatever number of trials it took to train each."""

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.config.contract import count_params, described
from optnas.spaces import Architecture, Space
from optnas.study.budget import trial_epochs
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD
from optnas.trials.attributes import (
    ARCHITECTURE,
    CONTINUES,
    FAILURE_REASON,
    INHERITED,
    PHASE,
    STAGE_IMPORTANCE,
    TRAIN_SECONDS,
)
from optnas.trials.claims import is_feasible
from optnas.trials.failures import is_lost
from optnas.trials.lineage import parent_of
from optnas.trials.metric import ACCURACY, Metric


@dataclasses.dataclass(frozen=True)
class StudyNetwork:
    """A network, and the trial that speaks for it.

    What others wrote on a trial is taken as it is: a number that is none counts as absent.

    Args:
        trial: The last trial that trained it, unless that one was lost.
        earlier: Numbers of the trials that it goes on from.
        parent: Number of the trial that speaks for its parent; None for random weights.
        generation: Number of its ancestors.
        name: What people call it, if they designed it; then it is no trial of the study itself.
        metric: What the trial's value is.
    """

    trial: FrozenTrial
    earlier: tuple[int, ...] = ()
    parent: int | None = None
    generation: int = 0
    name: str = ""
    metric: Metric = ACCURACY

    @property
    def number(self) -> int:
        """Number of the trial that speaks for it."""
        return self.trial.number

    @property
    def phase(self) -> str:
        """What the strategy was doing; empty where it does not say."""
        return str(self.trial.user_attrs.get(PHASE, ""))

    @property
    def state(self) -> str:
        """``complete``, ``infeasible``, ``pruned``, ``failed``, ``lost`` or ``running``."""
        if self.trial.state == TrialState.COMPLETE:
            return "complete" if is_feasible(self.trial) else "infeasible"
        if self.trial.state == TrialState.FAIL:
            return "lost" if is_lost(self.trial) else "failed"
        return self.trial.state.name.lower()

    @property
    def accuracy(self) -> float | None:
        """The trial's value: the validation metric, a fraction; of a pruned one, the last."""
        return _finite(self.trial.values[0]) if self.trial.values else None

    @property
    def curve(self) -> dict[int, float]:
        """The validation metric by epoch."""
        reported = sorted(self.trial.intermediate_values.items())
        return {epoch: value for epoch, value in reported if math.isfinite(value)}

    @property
    def stage_importance(self) -> list[float]:
        """Importance of each stage; empty where it was not measured."""
        recorded = self.trial.user_attrs.get(STAGE_IMPORTANCE)
        numbers = [_finite(number) for number in recorded] if isinstance(recorded, list) else []
        return [number for number in numbers if number is not None]

    @functools.cached_property
    def increments(self) -> int | None:
        """How many increments it has grown by; None for networks that do not grow."""
        try:
            return len(json.loads(self.trial.user_attrs[ARCHITECTURE])["increments"])
        except (KeyError, TypeError, ValueError):
            return None

    def attribute(self, name: str) -> float | None:
        """A number among the trial's user attributes."""
        return _finite(self.trial.user_attrs.get(name))

    def depth(self, space: Space[Any]) -> int | None:
        """Depth of the architecture, where its kind has one."""
        return described(space.named_by(self.trial)).depth


def networks_of(trials: Sequence[FrozenTrial], metric: Metric = ACCURACY) -> list[StudyNetwork]:
    """The networks that ``trials`` trained or train, by the number that speaks for each.

    Trials that go on from one another are one network: adopted ones, continued ones, promotions.

    Args:
        trials: Trials of one study.
        metric: What it maximises.
    """
    chains: dict[int, list[FrozenTrial]] = {}
    begins: dict[int, int] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.params and trial.state != TrialState.WAITING:
            before = _finite(trial.user_attrs.get(CONTINUES))
            begin = trial.number if before is None else begins.get(int(before), trial.number)
            begins[trial.number] = begin
            chains.setdefault(begin, []).append(trial)
    speakers = {begin: _speaker(chain) for begin, chain in chains.items()}
    parents = {begin: begins.get(_parent(trial)) for begin, trial in speakers.items()}
    networks = []
    for begin, speaker in speakers.items():
        ancestors = _ancestors(begin, parents)
        networks.append(
            StudyNetwork(
                speaker,
                tuple(trial.number for trial in chains[begin] if trial.number < speaker.number),
                speakers[ancestors[0]].number if ancestors else None,
                len(ancestors),
                metric=metric,
            )
        )
    return sorted(networks, key=lambda network: network.number)


def _speaker(chain: Sequence[FrozenTrial]) -> FrozenTrial:
    return next((trial for trial in reversed(chain) if not is_lost(trial)), chain[-1])


def _parent(trial: FrozenTrial) -> int:
    number = parent_of(trial)
    return -1 if number is None else number


def _ancestors(begin: int, parents: Mapping[int, int | None]) -> list[int]:
    """The parent, its parent and so on; empty where they go round in a circle."""
    found: list[int] = []
    parent = parents[begin]
    while parent is not None:
        if len(found) == len(parents):
            return []
        found.append(parent)
        parent = parents[parent]
    return found


def best_first(networks: Iterable[StudyNetwork]) -> list[StudyNetwork]:
    """The networks, the most accurate of the complete ones first."""
    order = ("complete", "pruned", "running", "infeasible", "failed", "lost")
    return sorted(networks, key=lambda n: (order.index(n.state), -(n.accuracy or 0.0), n.number))


def network_row(network: StudyNetwork, space: Space[Any]) -> dict[str, Any]:
    """What a network's trial says of it, as JSON values.

    Args:
        network: The network.
        space: The space that it is of.
    """
    trial = network.trial
    return {
        "trial": None if network.name else network.number,
        "human_designed": network.name,
        "phase": "" if network.name else network.phase,
        "state": network.state,
        "accuracy": network.accuracy,
        "metric": network.metric.key,
        "depth": network.depth(space),
        "params": network.attribute("params"),
        "multiply_adds": network.attribute("multiply_adds"),
        "memory_bytes": network.attribute("memory_bytes"),
        "epochs": trial_epochs(trial),
        "train_seconds": network.attribute(TRAIN_SECONDS),
        "parent": network.parent,
        "generation": network.generation,
        "increments": network.increments,
        "inherited_tensors": network.attribute(INHERITED),
        "continues": list(network.earlier),
        "reason": str(trial.user_attrs.get(FAILURE_REASON, "")),
    }


def network_lines(network: StudyNetwork) -> Iterator[str]:
    """What a person wants to know of a network at a glance, a line each."""
    went_on = f", going on from {', '.join(map(str, network.earlier))}" if network.earlier else ""
    yield network.name or f"trial {network.number}{went_on}"
    yield " ".join(filter(None, (network.phase, network.state)))
    if network.parent is not None:
        yield f"parent: trial {network.parent}"
    if network.accuracy is not None:
        yield f"{network.metric.name} {network.accuracy:.4f}"
    numbers = {
        "multiply-adds": network.attribute("multiply_adds"),
        "parameters": network.attribute("params"),
        "increments": network.increments,
        "inherited tensors": network.attribute(INHERITED),
    }
    for name, number in numbers.items():
        if number is not None:
            yield f"{name} {number:,.0f}"


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number and abs(value) <= sys.float_info.max else None


def params_of(
    handle: OpenStudy, architecture: Architecture, attrs: Mapping[str, Any]
) -> int | None:
    """Parameters of a network of a study; None if nobody knows.

    Args:
        handle: The study.
        architecture: The network.
        attrs: The user attributes of a trial that trained it: where the architecture does not
            say, the network that was built does.
    """
    record = handle.study.user_attrs[RECORD]
    shape = (record["in_channels"], record["classes"])
    params = count_params(handle.config.search_space, architecture, *shape)
    built = attrs.get("params")
    return built if params is None and type(built) is int else params
