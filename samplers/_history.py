"""What a study's trials say, in the form in which strategies read it."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.trials import FAILURE, FAILURE_REASON, INTERRUPTED, LOST, Claim

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
    """

    value: float
    number: int | None = None
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.value == FAILED


@dataclasses.dataclass(frozen=True)
class LostCandidate:
    """A candidate whose trial was lost and that nobody goes on with yet."""

    number: int
    claim: Claim


class History:
    """The trials of a study, sorted into results, running claims and lost candidates.

    A finished trial answers for what its *parameters* say, whoever set them; a failed one for
    what it was given, since it may not have come to write its parameters. A candidate that was
    tried more than ``max_retries`` times in vain counts as failed.

    Args:
        trials: All trials of the study, by number.
        names: Names of the parameters that make a candidate; others are ignored.
        max_retries: How often a candidate is tried again that got no further.

    Attributes:
        trials: The trials as given.
        claims: Number of distinct candidates claimed so far.
        workers: Number of running trials.
        lost: Lost candidates that nobody goes on with yet, by number.
    """

    def __init__(
        self, trials: Sequence[FrozenTrial], names: Collection[str], max_retries: int
    ) -> None:
        self.trials = trials
        self._names = names
        self._results: dict[Key, Result] = {}
        self._running: set[Key] = set()
        claims = {t.number: claim for t in trials if (claim := Claim.of(t)) is not None}
        self.claims = len({claim.index for claim in claims.values()})
        self.workers = sum(trial.state == TrialState.RUNNING for trial in trials)
        failed: dict[Key, Result] = {}
        in_vain: dict[Key, int] = {}
        for trial in trials:
            claim = claims.get(trial.number)
            claimed = None if claim is None else self.key(claim.params)
            if trial.state == TrialState.RUNNING and claimed is not None:
                self._running.add(claimed)
            elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.params:
                key = self.key(trial.params)
                self._results.setdefault(key, _result(trial))
                if claimed is not None and claimed != key:
                    in_vain[claimed] = in_vain.get(claimed, 0) + 1
            elif _is_lost(trial) and claim is not None and claimed is not None:
                before = None if claim.continues is None else trials[claim.continues]
                in_vain[claimed] = _count_in_vain(trial, before, in_vain.get(claimed, 0))
            elif trial.state == TrialState.FAIL and not _is_lost(trial):
                key = claimed or self.key(trial.params)
                failed.setdefault(key, _result(trial))
        failed.update(
            (key, Result(FAILED)) for key, count in in_vain.items() if count > max_retries
        )
        for key, result in failed.items():
            self._results.setdefault(key, result)
        adopted = {claim.continues for claim in claims.values()}
        self.lost = [
            LostCandidate(number, claim)
            for number, claim in claims.items()
            if _is_lost(trials[number])
            and number not in adopted
            and self.result(claim.params) is None
        ]

    def key(self, params: Mapping[str, Any]) -> Key:
        """The identity of the candidate that ``params`` say."""
        return frozenset((name, value) for name, value in params.items() if name in self._names)

    def result(self, params: Mapping[str, Any]) -> Result | None:
        """What the finished trials say of a candidate, or None."""
        return self._results.get(self.key(params))

    def is_running(self, params: Mapping[str, Any]) -> bool:
        """Whether a running trial has claimed this candidate."""
        return self.key(params) in self._running


def _is_lost(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(FAILURE) == LOST


def _count_in_vain(trial: FrozenTrial, before: FrozenTrial | None, count: int) -> int:
    """The number of vain attempts after a lost trial: none once it got further, or was stopped."""
    if trial.user_attrs.get(FAILURE_REASON) == INTERRUPTED:
        return count
    epochs = 0 if before is None else len(before.intermediate_values)
    return 0 if len(trial.intermediate_values) > epochs else count + 1


def _result(trial: FrozenTrial) -> Result:
    value = FAILED
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        value = trial.value
    elif trial.state == TrialState.PRUNED:
        reported = (v for v in trial.intermediate_values.values() if math.isfinite(v))
        value = max(reported, default=FAILED)
    if any(violation > 0 for violation in trial.constraints.values()):
        value = FAILED
    return Result(value, trial.number, trial.user_attrs)
