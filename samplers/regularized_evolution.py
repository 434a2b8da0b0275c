"""Regularized evolution: the best of a few living networks has a child, and the oldest dies."""

import dataclasses
from dataclasses import KW_ONLY
from typing import TypeVar

import numpy as np

from optnas.samplers._batches import Candidate, Step
from optnas.samplers._endless import EndlessSampler
from optnas.samplers._history import History
from optnas.samplers._options import Positive
from optnas.spaces import Architecture

A = TypeVar("A", bound=Architecture)


@dataclasses.dataclass(eq=False)
class RegularizedEvolutionSampler(EndlessSampler[A]):
    """Sampler using regularized (ageing) evolution.

    The first networks are random. Then the best of a few networks drawn from the population has a
    child, which differs from it in one parameter. The population is the networks that finished
    last: whoever is good lives on in its children only.

    The objective suggests the parameters of the space; its value is an accuracy. In a space whose
    networks grow from one another, a child grows from its parent.

    Source: Real et al. 2019, *Regularized Evolution for Image Classifier Architecture Search*,
    algorithm 1.

    Example:

        .. code-block:: python

            sampler = RegularizedEvolutionSampler(space)
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.optimize(objective, n_trials=100)

    Args:
        space: The space to search.
        population: Networks that are alive, and random networks at the start.
        tournament: Networks drawn, of which the best is the parent.

    Raises:
        ValueError: If a number is below 1, or ``tournament`` above ``population``.

    Differences from the paper:
        The paper keeps 100 networks and draws 25, for searches of 20,000; the defaults here are
        for 30 to 100. No network is trained twice. Failed networks are never in the population.
    """

    _: KW_ONLY
    population: Positive = 10
    tournament: Positive = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tournament > self.population:
            raise ValueError(
                f"`tournament` must be {self.population}, the `population`, or less: "
                f"{self.tournament}."
            )

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        living = self.networks(history)[-self.population :]
        child = None
        if living and history.claims >= self.population:
            size = min(self.tournament, len(living))
            drawn = rng.choice(len(living), size, replace=False)
            parent = max((living[i] for i in drawn), key=lambda member: member.value)
            child = self.new_mutant(history, parent, rng, "child")
        return child or self.new_anywhere(history, rng, "initial")
