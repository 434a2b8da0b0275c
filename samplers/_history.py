"""What a study's trials say, in the form in which strategies read it."""

import collections
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.trials.claims import Claim, is_feasible
from optnas.trials.failures import failed_attempts, is_lost

Key = frozenset[tuple[str, Any]]
"""A candidate's identity: its parameters, in any order."""

FAILED = -math.inf
"""The value of a candidate that failed or is infeasible: worse than any accuracy."""

_WITH_RESULT = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclasses.dataclass(frozen=True)
class Result:
    """What is known of a candidate.

    Args:
        value: Its accuracy as a fraction, or ``FAILED``.
        number: Number of the trial that says so; None for a guess.
        attrs: The user attributes of that trial.
        params: The parameters that make the candidate, where it was drawn by a sampler.
    """

    value: float
    number: int | None = None
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.value == FAILED


@dataclasses.dataclass(frozen=True)
class LostCandidate:
    """A candidate whose trial was lost and that nobody goes on with yet."""

    number: int
    claim: Claim


@dataclasses.dataclass(frozen=True)
class TrialReading:
    """What one trial says.

    Args:
        trial: The trial.
        claim: Its claim, or None.
        given: The candidate that it was given, or None.
        trained: The candidate that its parameters name; empty if they name none.
        result: Its result; of no account while it runs.
        is_void: Whether it has a result, but of another candidate than it was given.
    """

    trial: FrozenTrial
    claim: Claim | None
    given: Key | None
    trained: Key
    result: Result
    is_void: bool


class TrialReader:
    """Reads trials, and remembers what finished ones say, which does not change any more.

    Args:
        names: Names of the parameters that make a candidate; others are ignored.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._finished: dict[int, TrialReading] = {}
        # Only for speed: a dict finds the very object without comparing every parameter.
        self._keys: dict[Key, Key] = {}

    def read(self, number: int, trial: FrozenTrial) -> TrialReading:
        """What ``trial`` says, the one with this number."""
        known = self._finished.get(number)
        # The very object, because another study has trials of the same numbers.
        if known is not None and known.trial is trial:
            return known
        claim = Claim.of(trial)
        trained = self.key(trial.params)
        given = None if claim is None else self.key(claim.params)
        if given is not None and given <= trained:
            # An objective may suggest more of the space, operations beyond the depth, say.
            trained = given
        is_void = trial.state in _WITH_RESULT and given is not None and given != trained
        reading = TrialReading(trial, claim, given, trained, _result(trial), is_void)
        if trial.state.is_finished():
            self._finished[number] = reading
        return reading

    def key(self, params: Mapping[str, Any]) -> Key:
        """The identity of the candidate that ``params`` name."""
        key = frozenset((name, value) for name, value in params.items() if name in self._names)
        return self._keys.setdefault(key, key)


class History:
    """The trials of a study, sorted into results, running claims and lost candidates.

    A finished trial answers for what its *parameters* say, whoever set them; a failed one for
    what it was given, since it may not have come to write its parameters. A candidate that was
    tried more than ``max_retries`` times in vain counts as failed.

    Args:
        trials: All trials of the study, by number.
        reader: What reads them.
        max_retries: How often a candidate is tried again that got no further.
        without_weights: Finished trials whose weights do not exist any more, and why.

    Attributes:
        trials: The trials as given.
        without_weights: As given.
        asked: The distinct candidates claimed so far, in the order of their claims.
        results: Results of the trials that were not cut off, by number.
        workers: Number of running trials.
        lost: Lost candidates that nobody goes on with yet, by number.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        reader: TrialReader,
        max_retries: int,
        without_weights: Mapping[int, str],
    ) -> None:
        self.trials = trials
        self.without_weights = without_weights
        self.key = reader.key
        readings = [reader.read(number, trial) for number, trial in enumerate(trials)]
        self.asked = _asked(readings)
        self.results: list[Result] = []
        self.workers = 0
        self._running: set[Key] = set()
        self._by_key: dict[Key, Result] = {}
        failed: dict[Key, Result] = {}
        lost: list[tuple[Key, LostCandidate]] = []
        for number, reading in enumerate(readings):
            state, key = reading.trial.state, reading.given or reading.trained
            if state == TrialState.RUNNING:
                self.workers += 1
                if key:
                    self._running.add(key)
            elif state in _WITH_RESULT:
                if reading.trained:
                    self.results.append(reading.result)
                    self._by_key.setdefault(reading.trained, reading.result)
            elif state == TrialState.FAIL and not is_lost(reading.trial):
                failed.setdefault(key, reading.result)
            elif reading.claim is not None:
                lost.append((key, LostCandidate(number, reading.claim)))
        given_up = _given_up(readings, max_retries)
        failed |= dict.fromkeys(given_up, Result(FAILED))
        for key, result in failed.items():
            self._by_key.setdefault(key, result)
        adopted = {reading.claim.continues for reading in readings if reading.claim}
        self.lost = [
            candidate
            for key, candidate in lost
            if candidate.number not in adopted and key not in given_up
        ]

    @property
    def claims(self) -> int:
        """Number of distinct candidates claimed so far."""
        return len(self.asked)

    @property
    def waits(self) -> bool:
        """Whether a candidate is still running."""
        return bool(self._running)

    def started_after(self, params: Mapping[str, Any]) -> int:
        """Number of candidates that were claimed after this one, which runs."""
        key = self.key(params)
        return next((n for n, other in enumerate(reversed(self.asked)) if other == key), 0)

    def result_of(self, key: Key) -> Result | None:
        """What the finished trials say of a candidate, or None."""
        return self._by_key.get(key)

    def result(self, params: Mapping[str, Any]) -> Result | None:
        """What the finished trials say of a candidate, or None."""
        return self.result_of(self.key(params))

    def is_running(self, params: Mapping[str, Any]) -> bool:
        """Whether a running trial has claimed this candidate."""
        return self.key(params) in self._running

    def candidates(self) -> list[tuple[Key, Result | None]]:
        """All candidates that are not lost, with their results or None while they run.

        First those that were claimed, in this order, then other people's by number.
        """
        others = sorted(self._by_key.items(), key=lambda item: item[1].number or 0)
        keys = dict.fromkeys([*self.asked, *(key for key, _ in others)])
        results = [(key, self.result_of(key)) for key in keys]
        return [(k, r) for k, r in results if r is not None or k in self._running]


def results_alone(trials: Sequence[FrozenTrial]) -> list[Result]:
    """The results of the trials that were not cut off, by number, whatever they name.

    Without what was claimed, which takes long to read of ten thousand trials.
    """
    return [_result(trial) for trial in trials if trial.state in _WITH_RESULT]


def _asked(readings: Sequence[TrialReading]) -> list[Key]:
    """The candidates given, each once, in the order of their claims."""
    asked: dict[int, Key] = {}
    for reading in readings:
        if reading.claim is not None and reading.given is not None:
            asked.setdefault(reading.claim.index, reading.given)
    return [asked[index] for index in sorted(asked)]


def _given_up(readings: Sequence[TrialReading], max_retries: int) -> set[Key]:
    """The candidates that were tried too often in vain."""
    trials = [reading.trial for reading in readings]
    lost: dict[Key, int] = {}
    void: collections.Counter[Key] = collections.Counter()
    for reading in readings:
        if reading.given is None:
            continue
        if reading.is_void:
            void[reading.given] += 1
        elif is_lost(reading.trial):
            lost[reading.given] = failed_attempts(reading.trial, trials)
    return {key for key in lost.keys() | void.keys() if lost.get(key, 0) + void[key] > max_retries}


def _result(trial: FrozenTrial) -> Result:
    value = FAILED
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        value = trial.value
    elif trial.state == TrialState.PRUNED:
        reported = (v for v in trial.intermediate_values.values() if math.isfinite(v))
        value = max(reported, default=FAILED)
    if not is_feasible(trial):
        value = FAILED
    return Result(value, trial.number, trial.user_attrs)
