"""Local search: from a random network to a better neighbour, again and again."""

import dataclasses
import math
from typing import TypeVar

import numpy as np

from optnas.samplers._batches import Candidate, Step
from optnas.samplers._endless import EndlessSampler
from optnas.samplers._history import History, Result
from optnas.spaces import Architecture
from optnas.trials.attributes import PHASE

A = TypeVar("A", bound=Architecture)

START = "start"
"""The phase of the network that a climb starts from."""
MANY = 100
"""Values of a parameter beyond which they are not all tried."""
SOME = 10
"""How many of those count as neighbours."""


@dataclasses.dataclass(eq=False)
class LocalSearchSampler(EndlessSampler[A]):
    """Sampler using local search: hill-climbing by first improvement, with restarts.

    The search stands at a network, at first a random one, and tries its neighbours, those that
    differ in one parameter, in random order. It goes to the first that is better. Where none is
    better it starts anew from a random network. It has no options: there is nothing to set.

    Real numbers, and others of more than 100 values, have no end of neighbours. Where the space
    has such, the search starts anew after as many results as there are neighbours if each of
    these parameters has ten.

    It is the baseline that a strategy must beat; ``docs/measurements/search.md`` says how it
    does on tables of trained networks.

    The objective suggests the parameters of the space; its value is an accuracy. In a space whose
    networks grow from one another, the neighbours of a network are its children, of which 20 are
    tried, and the search starts anew from a child of any network.

    Source: White et al. 2021, *Exploring the Loss Landscape in Neural Architecture Search*,
    algorithm 1, with "query until lower" (first improvement).

    Example:

        .. code-block:: python

            study = optuna.create_study(direction="maximize", sampler=LocalSearchSampler(space))
            study.optimize(objective, n_trials=50)

    Args:
        space: The space to search.

    Differences from the paper:
        The paper starts from the best of several random networks; here from one. Neighbours are
        drawn by the space's own mutation, until it gives none in 100 draws that is new. With
        several workers several neighbours are tried at once, and a climb starts anew as soon as
        the last neighbour is claimed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        counted = [size - 1 if 0 < size <= MANY else SOME for size in self._sizes]
        is_countable = all(0 < size <= MANY for size in self._sizes)
        self._neighbours = math.inf if is_countable else sum(counted)

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        here = _best_since_start(self.networks(history))
        mutant = None
        if here is not None and _results_since(here, history) < self._neighbours:
            mutant = self.new_mutant(history, here, rng, "neighbour")
        return mutant or self.new_anywhere(history, rng, START)


def _best_since_start(results: list[Result]) -> Result | None:
    """Where the search stands: the best network since it last started anew."""
    here: Result | None = None
    for result in results:
        if here is None or result.attrs.get(PHASE) == START or result.value > here.value:
            here = result
    return here


def _results_since(here: Result, history: History) -> int:
    """How many networks were tried after one."""
    return len(history.results) - 1 - history.results.index(here)
