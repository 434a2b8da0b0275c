"""What the strategies share that go on from the results there are, whatever the space."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

from optnas.samplers._base import StrategySampler
from optnas.samplers._batches import Candidate, Step
from optnas.samplers._history import History, Result, results_alone
from optnas.samplers._turns import all_trials
from optnas.spaces import Architecture
from optnas.spaces.axes import Axis

A = TypeVar("A", bound=Architecture)

DRAWS = 100
"""How often a candidate is drawn that nobody has tried, before there seems to be none."""


@dataclasses.dataclass(eq=False)
class EndlessSampler(StrategySampler[A]):
    """Base of the strategies for every space, which have no order and no end of their own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sizes = [Axis(d).size for d in self._distributions.values()]

    @property
    def has_end(self) -> bool:
        return False

    @property
    def least_claims(self) -> float:
        return math.prod(self._sizes) or math.inf

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of the finished networks, best first.

        A network that a pruner stopped comes after those that were trained to their end.
        """
        trials = all_trials(study)
        found: dict[A, tuple[int, A, float]] = {}
        for result in results_alone(trials):
            number = _number(result)
            architecture = self.named_by(trials[number])
            if architecture is not None and math.isfinite(result.value):
                found.setdefault(architecture, (number, architecture, result.value))
        pruned = {n for n, trial in enumerate(trials) if trial.state != TrialState.COMPLETE}
        return sorted(found.values(), key=lambda entry: (entry[0] in pruned, -entry[2]))

    def networks(self, history: History) -> list[Result]:
        """The results of networks of the space that did not fail, by number."""
        return [
            result
            for result in history.results
            if not result.failed and self.architecture(history, result) is not None
        ]

    def architecture(self, history: History, result: Result) -> A | None:
        """The network of a result, or None if it names none: somebody may have added its trial."""
        return self.named_by(history.trials[_number(result)])

    def new_random(
        self, history: History, rng: np.random.Generator, phase: str
    ) -> Candidate | None:
        """A random network that nobody has tried, or None if there seems to be none."""
        for _ in range(DRAWS):
            params = self.space.random_params(rng)
            if is_new(history, params):
                return Candidate(params, phase=phase)
        return None

    def new_mutant(
        self, history: History, parent: Result, rng: np.random.Generator, phase: str
    ) -> Candidate | None:
        """A mutant of a network that nobody has tried, or None if there seems to be none."""
        trial = history.trials[_number(parent)]
        for _ in range(DRAWS):
            try:
                params = self.space.mutated_params(trial, rng)
            except ValueError:  # The space has no other network.
                return None
            if is_new(history, params):
                return Candidate(params, phase=phase)
        return None

    def new_anywhere(
        self, history: History, rng: np.random.Generator, phase: str
    ) -> Candidate | Step:
        """A random network that nobody has tried, else a mutant of any that somebody has."""
        candidate = self.new_random(history, rng, phase)
        known = self.networks(history)
        for index in rng.permutation(len(known))[:10] if candidate is None else ():
            candidate = self.new_mutant(history, known[index], rng, phase)
            if candidate is not None:
                break
        if candidate is None:
            return Step.WAIT if history.waits else Step.DONE
        return candidate


def is_new(history: History, params: Mapping[str, Any]) -> bool:
    """Whether a candidate has no result and is not running."""
    return history.result(params) is None and not history.is_running(params)


def _number(result: Result) -> int:
    assert result.number is not None  # Only guesses have none.
    return result.number
