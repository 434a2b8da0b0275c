"""Evolution: populations of networks by how long they were trained, parents and children."""

import abc
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, TypeVar

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.samplers._base import StrategySampler
from optnas.samplers._batches import Candidate
from optnas.samplers._history import History, Result, results_alone
from optnas.samplers._options import Count, Positive
from optnas.samplers._turns import all_trials
from optnas.spaces import Architecture, Space

A = TypeVar("A", bound=Architecture)

RUNGS = 3
"""The populations: of networks trained for E, 2E and 3E epochs."""
BEST = 5
"""How many networks the paper trains fully in the end (section 5.1)."""
DRAWS = 100
"""How often a child is drawn that nobody has tried, before one that is known is accepted."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A network of a population.

    Args:
        number: The trial that trained it last.
        value: Its best accuracy, over all rungs.
        rung: How far it was trained, in rungs, from 1.
        cycle: The cycle in which it was trained last.
    """

    number: int
    value: float
    rung: int
    cycle: int = 0


def tournament(members: Sequence[Member], rng: np.random.Generator) -> Member:
    """The best of ``len(members) // 4 + 1`` members drawn uniformly, with replacement.

    Who came further is better.
    """
    drawn: list[int] = rng.integers(len(members), size=len(members) // 4 + 1).tolist()
    return max(
        (members[i] for i in drawn), key=lambda member: (member.rung, member.value, -member.number)
    )


def by_rung(members: Sequence[Member], last: int) -> list[list[Member]]:
    """The populations: of the first rung, of all between, and of the last."""
    middle = [m for m in members if 1 < m.rung < last]
    return [
        [m for m in members if m.rung == 1],
        middle,
        [m for m in members if m.rung == last],
    ]


def shares(populations: Sequence[list[Member]], parents: Sequence[int]) -> list[list[Member]]:
    """Every child's population, for the children of those that are not empty."""
    some = [(members, n) for members, n in zip(populations, parents, strict=True) if members]
    return [members for members, n in some for _ in range(n)] or [members for members, _ in some]


def in_cycle(cycle: int, cycles: int | None) -> str:
    """A cycle, counted from 0, in words."""
    return f"cycle {cycle + 1}" + ("" if cycles is None else f" of {cycles}")


@dataclasses.dataclass(eq=False)
class PopulationSampler(StrategySampler[A]):
    """Base of the evolutions over populations of networks trained for E, 2E and 3E epochs.

    Args:
        space: The space to search: any whose parameters say the whole network.
        initial: Number of random networks at the start; the paper's 50 are for searches of a
            thousand trials.
        parents: Children of a cycle whose parent comes from the networks trained for E, 2E and
            3E epochs.
        max_age: Cycles for which a network stays alive.
        cycles: Cycles after which the search ends; None goes on for ever.
        unique: Whether a child that was tried before is changed once more, until it is new. The
            paper trains it again.
    """

    retrained = BEST
    needs_whole_networks = True

    space: Space[A]
    _: KW_ONLY
    initial: Positive = 10
    parents: Annotated[tuple[Count, Count, Count], "hold 3 integers from 0 upwards"] = (6, 5, 5)
    max_age: Positive = 10
    cycles: Count | None = 100
    unique: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(self.parents) < 1:
            raise ValueError(f"`sum(parents)` must be greater than or equal to 1: {self.parents}.")

    @property
    def has_end(self) -> bool:
        return self.cycles is not None

    @abc.abstractmethod
    def rung(self, trial: FrozenTrial) -> int:
        """How far a finished trial was trained, in rungs, from 1."""

    def found(self, study: Study) -> A | None:
        """The best network that is finished, or None before there is one."""
        # Not what a replay settles on, where a population is replayed.
        return next((architecture for _, architecture, _ in self.candidates(study)), None)

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of the five best networks, best first.

        A network that was trained for more rungs is better, whatever its age.
        """
        trials = all_trials(study)
        best: dict[A, Member] = {}
        trained = self._finished(trials, results_alone(trials))
        for member in sorted(trained, key=lambda m: (-m.rung, -m.value, m.number)):
            network = self.named_by(trials[member.number])
            if network is not None:
                best.setdefault(network, member)
            if len(best) == BEST:
                break
        return [(member.number, network, member.value) for network, member in best.items()]

    def _members(self, history: History, results: Sequence[Result]) -> list[Member]:
        """The finished networks among ``results``."""
        trained = self._finished(history.trials, results)
        return [m for m in trained if self.named_by(history.trials[m.number]) is not None]

    def _finished(
        self, trials: Sequence[FrozenTrial], results: Sequence[Result]
    ) -> Iterator[Member]:
        """What was trained among ``results``, whether it names a network or not."""
        for result in results:
            if result.number is not None and math.isfinite(result.value):
                rung = max(self.rung(trials[result.number]), 1)
                yield Member(result.number, result.value, rung)

    def _network(self, history: History, member: Member) -> A:
        return self.space.from_trial(history.trials[member.number])

    def _random_network(self, history: History, rng: np.random.Generator) -> Candidate:
        network = self._unknown(self.space.random(rng), history, rng)
        return self._first_training(network, "initial")

    def _child(
        self, among: Sequence[Member], history: History, rng: np.random.Generator
    ) -> Candidate:
        """A child of a network that wins a tournament."""
        parent = self._network(history, tournament(among, rng))
        network = self._unknown(self.space.mutate(parent, rng), history, rng)
        return self._first_training(network, "child")

    def _unknown(self, network: A, history: History, rng: np.random.Generator) -> A:
        """A network, or one near it, that nobody has tried."""
        for _ in range(DRAWS):
            if not self.unique or not self._is_known(history, network):
                break
            # From the known child onwards, so that a crowded neighbourhood is left.
            network = self.space.mutate(network, rng)
        return network

    def _is_known(self, history: History, network: A) -> bool:
        params = self._first_training(network, "").params
        return history.result(params) is not None or history.is_running(params)

    def _first_training(self, network: A, phase: str) -> Candidate:
        """What trains a new network."""
        return Candidate(self.space.to_params(network), phase=phase)
