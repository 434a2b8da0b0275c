"""What a study's trials say, in the form in which strategies read it."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.trials.claims import Claim, is_feasible
from optnas.trials.failures import is_lost, vain_attempts

Key = frozenset[tuple[str, Any]]
"""A candidate's identity: its parameters, in any order."""

FAILED = -math.inf
"""The value of a candidate that failed or is infeasible: worse than any accuracy."""


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
class Reading:
    """What one trial says.

    Args:
        trial: The trial.
        claim: Its claim, or None.
        claimed: The candidate that it was given, or None.
        said: The candidate that its parameters say.
        result: Its result; of no account while it runs.
    """

    trial: FrozenTrial
    claim: Claim | None
    claimed: Key | None
    said: Key
    result: Result


class Reader:
    """Reads trials, and remembers what finished ones say, which does not change any more.

    Args:
        names: Names of the parameters that make a candidate; others are ignored.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._finished: dict[int, Reading] = {}
        # One object per candidate is found in a dict without comparing every parameter.
        self._keys: dict[Key, Key] = {}

    def read(self, number: int, trial: FrozenTrial) -> Reading:
        """What ``trial`` says, the one with this number."""
        known = self._finished.get(number)
        # The very object, because another study has trials of the same numbers.
        if known is not None and known.trial is trial:
            return known
        claim = Claim.of(trial)
        said = self.key(trial.params)
        claimed = None if claim is None else self.key(claim.params)
        if claimed is not None and claimed <= said:
            # An objective may suggest more of the space, operations beyond the depth, say.
            said = claimed
        reading = Reading(trial, claim, claimed, said, _result(trial))
        if trial.state.is_finished():
            self._finished[number] = reading
        return reading

    def key(self, params: Mapping[str, Any]) -> Key:
        """The identity of the candidate that ``params`` say, the same object every time."""
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
        answers: Results of the trials that were not cut off, by number.
        workers: Number of running trials.
        lost: Lost candidates that nobody goes on with yet, by number.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        reader: Reader,
        max_retries: int,
        without_weights: Mapping[int, str] | None = None,
    ) -> None:
        self.trials = trials
        self.without_weights = without_weights or {}
        self.answers: list[Result] = []
        self.key = reader.key
        self._results: dict[Key, Result] = {}
        self._running: set[Key] = set()
        self.workers = 0
        asked: dict[int, Key] = {}
        adopted: set[int] = set()
        lost: list[LostCandidate] = []
        failed: dict[Key, Result] = {}
        in_vain: dict[Key, int] = {}
        voided: dict[Key, int] = {}
        for number, trial in enumerate(trials):
            reading = reader.read(number, trial)
            claim, claimed, said = reading.claim, reading.claimed, reading.said
            if claim is not None and claimed is not None:
                asked.setdefault(claim.index, claimed)
                if claim.continues is not None:
                    adopted.add(claim.continues)
            if trial.state == TrialState.RUNNING:
                self.workers += 1
                if claimed or said:
                    self._running.add(claimed or said)
            elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                if said:
                    self.answers.append(reading.result)
                    self._results.setdefault(said, reading.result)
                if claimed is not None and claimed is not said:
                    voided[claimed] = voided.get(claimed, 0) + 1
            elif trial.state == TrialState.FAIL and not is_lost(trial):
                failed.setdefault(claimed or said, reading.result)
            elif claim is not None and claimed is not None:
                lost.append(LostCandidate(number, claim))
                in_vain[claimed] = vain_attempts(trial, trials)
        given_up = {
            key
            for key in in_vain.keys() | voided.keys()
            if in_vain.get(key, 0) + voided.get(key, 0) > max_retries
        }
        failed.update((key, Result(FAILED)) for key in given_up)
        for key, result in failed.items():
            self._results.setdefault(key, result)
        self.asked = [asked[index] for index in sorted(asked)]
        self.lost = [
            candidate
            for candidate in lost
            if candidate.number not in adopted and self.key(candidate.claim.params) not in given_up
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

    def answer(self, key: Key) -> Result | None:
        """What the finished trials say of a candidate, or None."""
        return self._results.get(key)

    def result(self, params: Mapping[str, Any]) -> Result | None:
        """What the finished trials say of a candidate, or None."""
        return self.answer(self.key(params))

    def is_running(self, params: Mapping[str, Any]) -> bool:
        """Whether a running trial has claimed this candidate."""
        return self.key(params) in self._running

    def candidates(self) -> list[tuple[Key, Result | None]]:
        """All candidates that are not lost, with their results or None while they run.

        First those that were claimed, in this order, then other people's by number.
        """
        others = sorted(self._results.items(), key=lambda item: item[1].number or 0)
        keys = dict.fromkeys([*self.asked, *(key for key, _ in others)])
        answers = [(key, self.answer(key)) for key in keys]
        return [(k, a) for k, a in answers if a is not None or k in self._running]


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
