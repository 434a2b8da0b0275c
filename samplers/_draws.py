"""Candidates that an Optuna sampler draws in the middle of a replayed search."""

import copy
import dataclasses
import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.samplers._batches import Batch, Candidate, Members, Step
from optnas.samplers._history import History, Key, Result

ATTEMPTS = 10
"""How often the sampler is asked for a candidate that is new, before one is drawn at random."""


@dataclasses.dataclass(eq=False)
class Draws(Batch):
    """Candidates of which a sampler draws one after the other; the search goes on with the best.

    None is drawn twice. The search receives the best result, with the ``params`` that gave it.

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

    def __post_init__(self) -> None:
        # What was found out of candidates that do not change: their parameters, or None for
        # those that are not drawn of this; and the trials that the sampler sees.
        self._read: dict[Key, Mapping[str, Any] | None] = {}
        self._trials: dict[tuple[Any, ...], FrozenTrial] = {}
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(values)) for name, values in self.choices.items()
        }

    @property
    def number(self) -> int:
        return min(self.trials, math.prod(map(len, self.choices.values())))

    def members(self, history: History, before: int) -> Members:
        found = [(self._params(key), result) for key, result in history.candidates()]
        return [(Candidate(p, self.phase), result) for p, result in found if p is not None]

    def next(
        self, members: Members, history: History, rng: np.random.Generator
    ) -> Candidate | Step:
        for lost in history.lost:
            if self.holds(lost.claim.params):
                return Candidate(lost.claim.params, self.phase)
        if len(members) >= self.number:
            return Step.WAIT
        known = [(candidate.params, result) for candidate, result in members]
        step = f"{self.phase} {len(members) + 1} of {self.number}"
        return Candidate(self.draw(known, rng), self.phase, step=step)

    def answer(self, answered: Sequence[tuple[Candidate, Result]]) -> Result:
        tried, best = max(answered, key=lambda pair: pair[1].value)
        return dataclasses.replace(best, params=tried.params)

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether these are the parameters of one of the candidates."""
        return (
            params.keys() == self.fixed.keys() | self.choices.keys()
            and all(params[name] == value for name, value in self.fixed.items())
            and all(params[name] in values for name, values in self.choices.items())
        )

    def _params(self, key: Key) -> Mapping[str, Any] | None:
        if key not in self._read:
            params = dict(key)
            self._read[key] = params if self.holds(params) else None
        return self._read[key]

    def draw(
        self, known: Sequence[tuple[Mapping[str, Any], Result | None]], rng: np.random.Generator
    ) -> dict[str, Any]:
        """The parameters of a candidate that is not among ``known``.

        A pure function: the sampler sees a study in memory that holds ``known`` and nothing else.

        Args:
            known: The candidates so far, fewer than there are: parameters, and their results or
                None while they run.
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
