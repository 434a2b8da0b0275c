"""Which networks RandGrow may come to train, from how its children did so far."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from optnas.samplers._outlook import Course, Stretch
from optnas.spaces import GrowthArchitecture, GrowthSpace
from optnas.trials.hull import cost_hull

FORESEEN = 30
"""Children that are imagined one by one; those after them are as the last one."""
WAYS = 16
"""How often."""
BETTER, SPREAD, BELIEF = -0.3, 0.3, 2
"""The logarithm of a child's error as a share of its parent's, on average and how far from it, and
as how many children that counts."""
LATEST = 20
"""So many children tell how children do."""
LEAST = 1e-4
"""The least error that is believed."""


@dataclasses.dataclass(frozen=True)
class Grown:
    """A network, trained or imagined.

    Args:
        architecture: The network.
        cost: Its multiply-adds, or what stands for them.
        value: Its accuracy.
        growths: Rounds of growth since the initial network.
    """

    architecture: GrowthArchitecture
    cost: float
    value: float
    growths: int = 0


@dataclasses.dataclass(frozen=True)
class RandGrowOutlook:
    """Children of children, of made-up accuracy.

    Args:
        space: The space.
        increments: Increments that a child adds, as of the sampler.
        probabilities: Says with which probability each network of a hull is a parent.
        may_grow: Whether a network of such a cost and so many growths may have children.
    """

    space: GrowthSpace
    increments: int | None
    probabilities: Callable[[Sequence[float]], NDArray[np.floating]]
    may_grow: Callable[[float, int], bool]

    def drawn(
        self,
        networks: Sequence[Grown],
        pairs: Sequence[tuple[float | None, float]],
        number: int,
        rng: np.random.Generator,
    ) -> list[Course]:
        """Ways in which the next networks may follow one another.

        Args:
            networks: The parents there are; none before the initial network is trained.
            pairs: Accuracies of parents and of their children; None is not known.
            number: How many networks, one or more.
            rng: Draws them.
        """
        logs = [
            np.log(_error(child) / _error(parent))
            for parent, child in pairs
            if parent is not None and np.isfinite([parent, child]).all()
        ]
        better = (sum(logs) + BELIEF * BETTER) / (len(logs) + BELIEF)
        return [self._way(list(networks), better, number, rng) for _ in range(WAYS)]

    def _way(
        self, networks: list[Grown], better: float, number: int, rng: np.random.Generator
    ) -> Course:
        course: list[Stretch] = []
        if not networks:
            initial = self.space.initial()
            networks = [Grown(initial, float(initial.num_params(3, 10)), 0.5)]
            course = [Stretch("initial", 1, None, initial)]
        while len(course) < min(number, FORESEEN):
            child = self._child(networks, better, rng)
            networks = [*networks, child]
            course.append(Stretch("growth", 1, None, child.architecture))
        if rest := number - len(course):
            course.append(Stretch("growth", rest, None, course[-1].architecture))
        return course

    def _child(self, networks: list[Grown], better: float, rng: np.random.Generator) -> Grown:
        parents = [each for each in networks if self.may_grow(each.cost, each.growths)]
        parents = parents or networks[:1]
        hull = [parents[i] for i in cost_hull([(each.cost, each.value) for each in parents])]
        parent = hull[rng.choice(len(hull), p=self.probabilities([each.cost for each in hull]))]
        seed = int(rng.integers(2**31))
        architecture = self.space.grow(parent.architecture, seed, self.increments)
        larger = architecture.num_params(3, 10) / parent.architecture.num_params(3, 10)
        error = _error(parent.value) * float(np.exp(better + SPREAD * rng.standard_normal()))
        return Grown(architecture, parent.cost * larger, 1 - min(error, 1.0), parent.growths + 1)


def _error(accuracy: float) -> float:
    return max(1 - accuracy, LEAST)
