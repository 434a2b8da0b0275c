"""Regularized evolution: the best of a few living networks has a child, and the oldest dies."""

from typing import TypeVar

import numpy as np

from optnas.samplers._base import Candidate, Step, check_at_least
from optnas.samplers._history import History
from optnas.samplers._population import PopulationSampler
from optnas.spaces import Architecture, Space

A = TypeVar("A", bound=Architecture)


class RegularizedEvolutionSampler(PopulationSampler[A]):
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
        seed: Seed of the study. None derives one from the study's name.
        max_retries: How often a candidate is tried again whose worker died before it got further.
        patience: Seconds after which a running trial that decides nothing is not waited for.

    Raises:
        ValueError: If a number is below 1, or ``tournament`` above ``population``.

    Differences from the paper:
        The paper keeps 100 networks and draws 25, for searches of 20,000; the defaults here are
        for 30 to 100. No network is trained twice. Failed networks are never in the population.
    """

    def __init__(
        self,
        space: Space[A],
        *,
        population: int = 20,
        tournament: int = 5,
        seed: int | None = None,
        max_retries: int = 5,
        patience: float = 60.0,
    ) -> None:
        check_at_least("population", population, 1)
        check_at_least("tournament", tournament, 1)
        if tournament > population:
            raise ValueError(f"`tournament` must be {population}, the `population`, or less.")
        super().__init__(space, seed=seed, max_retries=max_retries, patience=patience)
        self._population = population
        self._tournament = tournament

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        living = self.networks(history)[-self._population :]
        child = None
        if living and history.claims >= self._population:
            size = min(self._tournament, len(living))
            drawn = rng.choice(len(living), size, replace=False)
            parent = max((living[i] for i in drawn), key=lambda member: member.value)
            child = self.new_mutant(history, parent, rng, "child")
        return child or self.new_anywhere(history, rng, "initial")
