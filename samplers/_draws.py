"""Candidates that an Optuna sampler draws in the middle of a replayed search."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.samplers._history import Key, Result

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
            params.keys() == self._names
            and all(params[name] == value for name, value in self.fixed.items())
            and all(params[name] in values for name, values in self.choices.items())
        )

    def among(self, candidates: Iterable[tuple[Key, Result | None]]) -> Known:
        """Those that are drawn of this."""
        found = []
        for key, result in candidates:
            if key not in self._seen:
                params = dict(key)
                self._seen[key] = params if self.holds(params) else None
            held = self._seen[key]
            if held is not None:
                found.append((held, result))
        return found

    def draw(self, known: Known, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters of a candidate that is not among ``known``.

        A pure function: the sampler sees a study in memory that holds ``known`` and nothing else.

        Args:
            known: The candidates so far, fewer than there are.
            rng: Decides the sampler's seed.
        """
        values = [self._values(params) for params, _ in known]
        trials = [
            self._trial(number, which, result)
            for number, (which, (_, result)) in enumerate(zip(values, known, strict=True))
        ]
        study = self._study(trials, int(rng.integers(2**32)))
        taken = set(values)
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

    def _study(self, trials: list[FrozenTrial], seed: int) -> optuna.Study:
        """What the sampler sees."""
        storage = _Shown(trials)
        storage.create_new_study([StudyDirection.MAXIMIZE], "draws")
        # Not by `create_study`, which would tell the user of a study that is none of theirs.
        return optuna.Study("draws", storage, sampler=self.sampler(seed))

    def _trial(self, number: int, values: tuple[str, ...], result: Result | None) -> FrozenTrial:
        """A candidate as the sampler sees it: made once, because that takes most of a draw.

        A failed one has the worst accuracy, to be learnt from.
        """
        value = None if result is None else max(result.value, 0.0)
        key = (number, values, value)
        if key not in self._trials:
            trial = create_trial(
                state=TrialState.RUNNING if result is None else TrialState.COMPLETE,
                value=value,
                params=dict(zip(self.choices, values, strict=True)),
                distributions=self._distributions,
            )
            trial.number = number
            self._trials[key] = trial
        return self._trials[key]

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.fixed) | frozenset(self.choices)

    @functools.cached_property
    def _seen(self) -> dict[Key, Mapping[str, Any] | None]:
        """The candidates looked at so far: their parameters, or None for those of others."""
        return {}

    @functools.cached_property
    def _trials(self) -> dict[tuple[Any, ...], FrozenTrial]:
        return {}

    @functools.cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        return {n: CategoricalDistribution(tuple(v)) for n, v in self.choices.items()}

    def _values(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([params[name] for name in self.choices])


class _Shown(InMemoryStorage):
    """A storage in memory with trials before its own, of which it keeps no copies.

    Args:
        before: These trials, numbered from 0; they are shown with all others alone.
    """

    def __init__(self, before: list[FrozenTrial]) -> None:
        super().__init__()
        self._before = before

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        before = [trial for trial in self._before if states is None or trial.state in states]
        own = super().get_all_trials(study_id, deepcopy, states)
        own = [self._numbered(trial) for trial in own]
        return [*(copy.deepcopy(before) if deepcopy else before), *own]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._numbered(super().get_trial(trial_id))

    def get_trial_number_from_id(self, trial_id: int) -> int:
        return super().get_trial_number_from_id(trial_id) + len(self._before)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(self, study_id)

    def _numbered(self, trial: FrozenTrial) -> FrozenTrial:
        trial = copy.copy(trial)
        trial.number += len(self._before)
        return trial
