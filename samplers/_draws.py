"""Candidates that an Optuna sampler draws in the middle of a replayed search."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optnas.samplers._history import Result

ATTEMPTS = 10
"""How often the sampler is asked for a candidate that is new, before one is drawn at random."""

Known = Sequence[tuple[Mapping[str, Any], Result | None]]
"""Candidates by their parameters, with their results or None while they run."""


@dataclasses.dataclass(frozen=True)
class Draws:
    """Candidates of which a sampler draws one after the other; the search goes on with the best.

    They do not wait for one another: any number of workers is kept busy. None is drawn twice.

    Args:
        sampler: Makes the sampler from a seed.
        fixed: The parameters that all candidates have in common.
        choices: The other parameters, each with its values.
        trials: Number of candidates; fewer if there are no more.
        phase: What the strategy is doing, in a word, for people who watch.
    """

    sampler: Callable[[int], BaseSampler]
    fixed: Mapping[str, Any]
    choices: Mapping[str, Sequence[str]]
    trials: int
    phase: str

    @property
    def number(self) -> int:
        """How many candidates are drawn."""
        return min(self.trials, math.prod(map(len, self.choices.values())))

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether these are the parameters of one of the candidates."""
        return (
            params.keys() == self.fixed.keys() | self.choices.keys()
            and all(params[name] == value for name, value in self.fixed.items())
            and all(params[name] in values for name, values in self.choices.items())
        )

    def draw(self, known: Known, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters of a candidate that is not among ``known``.

        A pure function: the sampler sees a study in memory that holds ``known`` and nothing else.

        Args:
            known: The candidates so far, fewer than there are.
            rng: Decides the sampler's seed.
        """
        study = self._study(known, int(rng.integers(2**32)))
        taken = {self._values(params) for params, _ in known}
        for _ in range(ATTEMPTS):
            drawn = study.ask(self._distributions).params
            if self._values(drawn) not in taken:
                return {**self.fixed, **drawn}
        # Rows of all the values, from a random one on.
        sizes = tuple(map(len, self.choices.values()))
        count = math.prod(sizes)
        start = int(rng.integers(count))
        while True:
            row = np.unravel_index(start % count, sizes)
            drawn = {n: v[int(i)] for (n, v), i in zip(self.choices.items(), row, strict=True)}
            if self._values(drawn) not in taken:
                return {**self.fixed, **drawn}
            start += 1

    def _study(self, known: Known, seed: int) -> optuna.Study:
        """What the sampler sees. A failed candidate has the worst accuracy, to be learnt from."""
        storage = InMemoryStorage()
        storage.create_new_study([StudyDirection.MAXIMIZE], "draws")
        # Not by `create_study`, which would tell the user of a study that is none of theirs.
        study = optuna.Study("draws", storage, sampler=self.sampler(seed))
        for params, result in known:
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING if result is None else TrialState.COMPLETE,
                    value=None if result is None else max(result.value, 0.0),
                    params={name: params[name] for name in self.choices},
                    distributions=self._distributions,
                )
            )
        return study

    @property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {n: CategoricalDistribution(tuple(v)) for n, v in self.choices.items()}

    def _values(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(params[name] for name in self.choices)
