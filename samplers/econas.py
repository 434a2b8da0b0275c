"""EcoNAS: evolution over three populations, of networks trained for E, 2E and 3E epochs."""

import dataclasses
import math
from typing import TypeVar

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.samplers._batches import Candidate, Step
from optnas.samplers._history import History
from optnas.samplers._outlook import Outlook, Stretch
from optnas.samplers._populations import PopulationSampler, by_rung, in_cycle, shares
from optnas.samplers._rungs import WHOLE, rung_of
from optnas.spaces import Architecture

A = TypeVar("A", bound=Architecture)


@dataclasses.dataclass(eq=False)
class EcoNASSampler(PopulationSampler[A]):
    """Sampler using the evolution of *EcoNAS: Finding Proxies for Economical NAS*.

    Networks live in three populations, of those trained for E, 2E and 3E epochs. Every cycle
    of 16 children takes 6 parents from the first, 5 from the second and 5 from the third, each by
    a tournament, and changes one value of each. The first networks are random.

    With :class:`HierarchicalPruner`, which prunes a trial at E or 2E epochs, the populations are
    the trials by the rung that they reached; a trial that runs to its end is in the last one,
    and so are all of them with another pruner that stops none, or without reports. With more
    rungs than three, those between the first and the last share a population. An empty
    population lends its share of the parents to the others. A network dies when ``max_age``
    cycles of trials have ended after it.

    The objective suggests the parameters of the space; its value is the best held-out accuracy
    over the epochs, a fraction. :class:`SynchronousEcoNASSampler` promotes in cycles, as the
    paper's algorithm does.

    Source: Zhou et al., *EcoNAS*, section 4 and algorithm 1; the tournament and its
    numbers from the authors' code.

    Example:

        .. code-block:: python

            sampler = EcoNASSampler(CellSpace())
            pruner = HierarchicalPruner(epochs=20)
            study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
            study.optimize(objective)
            print(sampler.found(study))

    Args:
        space: The space to search: any whose parameters say the
            whole network. The other options are
            those of the evolution (:class:`PopulationSampler`).

    Raises:
        TypeError: If the networks of ``space`` descend from one another.
        ValueError: If an option is out of range.

    Differences from the paper:
        A child is drawn when a worker is free, from the networks that are finished, and promoted
        when it arrives at a rung, or never (by the pruner). No network is trained twice, unless
        ``unique`` is off. Age counts trials: a cycle is ``sum(parents)`` of them.
    """

    @property
    def least_claims(self) -> float:
        """All of them: the search ends by their number."""
        if self.cycles is None:
            return math.inf
        return self.initial + self.cycles * sum(self.parents)

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        """A child of the networks that are finished now."""
        size = sum(self.parents)
        if history.claims >= self.least_claims:
            return Step.WAIT if history.waits else Step.DONE
        if history.claims < self.initial:
            step = f"random network {history.claims + 1} of {self.initial}"
            return dataclasses.replace(self._random_network(history, rng), step=step)
        living = self._members(history, history.results[-self.max_age * size :])
        among = shares(by_rung(living, WHOLE), self.parents)
        if not among:
            return self._random_network(history, rng)
        child = self._child(among[history.claims % len(among)], history, rng)
        cycle, place = divmod(history.claims - self.initial, size)
        step = f"{in_cycle(cycle, self.cycles)}: child {place + 1} of {size}"
        return dataclasses.replace(child, step=step)

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook | None:
        if self.cycles is None:
            return None
        done = len(self._history(study).results)
        initial = max(self.initial - done, 0)
        children = self.initial + self.cycles * sum(self.parents) - max(self.initial, done)
        return Outlook.settled(Stretch("initial", initial), Stretch("child", children))

    def rung(self, trial: FrozenTrial) -> int:
        """The rung that the pruner saw the trial reach; the last one at the training's end."""
        return rung_of(trial)
