"""Taking turns: trials decide one after the other, by number, so that none decides twice."""

import dataclasses
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optnas.trials.attributes import LEASE
from optnas.trials.claims import Claim, queued_params
from optnas.trials.failures import fail_as_lost, fail_dead
from optnas.trials.leases import lease_expired, renew_lease

DECIDING = 5.0
"""Seconds that a decision takes at most, on however busy a machine."""
TURN = 0.02
"""Seconds that a decision takes, about."""
DECIDED = 2.0
"""Seconds after which is decided anew although no trial says more: its study might."""
LOOK = 1.0
"""Seconds after which a trial that waits for another's decision looks at all of them, too."""
LONGER = 1.5
"""How much longer the next pause of a trial is that waits for another's decision."""
LONGEST_PAUSE = 0.5
"""Seconds after which a trial that waits looks again, at most."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """A moment at which a trial may decide.

    Args:
        trials: All trials of the study, by number, as they are now.
        until: When the turn is over, as of ``time.time``.
    """

    trials: list[FrozenTrial]
    until: float

    def is_over(self) -> bool:
        """Whether others may have decided meanwhile, because this process was suspended."""
        return time.time() > self.until


@dataclasses.dataclass(frozen=True)
class Turns:
    """The turns of a trial that waits for its candidate.

    Args:
        study: The study.
        trial: The trial.
        names: Names of the parameters that make a candidate.
        max_retries: How often a candidate is tried again whose worker died.
        patience: Seconds after which a running trial that decides nothing is not waited for.
    """

    study: Study
    trial: FrozenTrial
    names: Collection[str]
    max_retries: int
    patience: float

    def __iter__(self) -> Iterator[Turn]:
        """A turn whenever no earlier trial has to decide, until the study is stopped.

        Another turn only comes when trials say something new, or after a while.
        """
        start = time.monotonic()
        decided: tuple[list[FrozenTrial], float] | None = None
        while not getattr(self.study, "_stop_flag", False):
            until = self._kept_lease()
            trials = all_trials(self.study)
            if fail_dead(self.study._storage, trials, self.max_retries):
                continue
            before = [other for other in trials if self._decides_before(other)]
            waited = time.monotonic() - start
            if before:
                if waited > self.patience:
                    self._give_up(before)
                self._await(before)
                continue
            if decided is None or _say_more(trials, *decided):
                # A storage in memory may show the parameters of a trial before its claim.
                torn = any(map(self._shows_no_claim, trials))
                turn = Turn(
                    all_trials(self.study) if torn else trials,
                    max(until, time.time() + DECIDING),
                )
                yield turn
                decided = None if turn.is_over() else (turn.trials, time.monotonic())
            # Decisions follow one another: long pauses would add up.
            time.sleep(min(max(TURN, waited / 20), LONGEST_PAUSE))

    def _give_up(self, before: Sequence[FrozenTrial]) -> None:
        """End those that say nothing for too long, and of whose workers nothing is known."""
        for other in before:
            if LEASE not in other.system_attrs:
                reason = "its worker died, or forgot it, before it wrote a lease"
                fail_as_lost(self.study._storage, other, reason)

    def _await(self, before: Sequence[FrozenTrial]) -> None:
        """Wait for the last of those that decide before, which itself waits for the others.

        All of them are looked at when it has decided, and now and then, as it may have died.
        """
        last, until = before[-1], time.monotonic() + min(LOOK, self.patience)
        pause = min(TURN * len(before), LONGEST_PAUSE)
        while time.monotonic() < until:
            time.sleep(pause)
            if not self._decides_before(self.study._storage.get_trial(last._trial_id)):
                return
            pause = min(LONGER * pause, LONGEST_PAUSE)

    def _kept_lease(self) -> float:
        """Until when the trial's lease lasts; renewed where that is soon.

        The objective may have taken its time before its first parameter.
        """
        until = self.trial.system_attrs.get(LEASE, {}).get("until") or 0.0
        if until - time.time() < 0.75 * self.patience:
            until = promise_decision(self.study, self.trial, self.patience)
        return float(until)

    def _decides_before(self, other: FrozenTrial) -> bool:
        """Whether ``other`` decides before this trial and has not done so yet."""
        return (
            other.state == TrialState.RUNNING
            and other.number < self.trial.number
            and Claim.of(other) is None
            and not names_candidate(other, self.names)
            and not lease_expired(other)
        )

    def _shows_no_claim(self, other: FrozenTrial) -> bool:
        return (
            other.state == TrialState.RUNNING
            and Claim.of(other) is None
            and names_candidate(other, self.names)
        )


def _say_more(trials: list[FrozenTrial], before: list[FrozenTrial], when: float) -> bool:
    """Whether trials may lead to another decision than those seen before: not by leases alone."""
    if len(trials) != len(before) or time.monotonic() - when > DECIDED:
        return True
    return any(a is not b and _said(a) != _said(b) for a, b in zip(trials, before, strict=True))


def _said(trial: FrozenTrial) -> tuple[Any, ...]:
    system = {name: value for name, value in trial.system_attrs.items() if name != LEASE}
    reports = str(trial.intermediate_values)  # In which a NaN is like another.
    return trial.state, trial.params, trial.user_attrs, system, reports


def promise_decision(study: Study, trial: FrozenTrial, patience: float) -> float:
    """Write a lease that promises a decision within ``patience`` seconds; returns its end."""
    lease = renew_lease(study._storage, trial._trial_id, patience, decides=True)
    trial.system_attrs[LEASE] = lease
    return float(lease["until"])


def names_candidate(trial: FrozenTrial, names: Collection[str]) -> bool:
    """Whether ``trial`` has, or was queued with, a parameter of a candidate.

    Without a claim, it is somebody's own: it needs no candidate, and nobody waits for its turn.
    """
    return not (trial.params.keys() | queued_params(trial).keys()).isdisjoint(names)


def all_trials(study: Study) -> list[FrozenTrial]:
    """Every trial of the study, by number, not to be modified."""
    # From the storage itself: Hyperband hands samplers a study that shows one bracket only.
    return study._storage.get_all_trials(study._study_id, deepcopy=False)
