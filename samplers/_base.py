"""The common base of the strategies: deciding, claiming, waiting and losing, once for all."""

import abc
import contextlib
import copy
import dataclasses
import enum
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import Any, Generic, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas.samplers._history import History, LostCandidate, Reader
from optnas.seeds import derive_seed, study_seed
from optnas.spaces import Architecture, Space
from optnas.trials.attributes import (
    CANDIDATE,
    CONTINUES,
    FAILURE,
    FAILURE_REASON,
    INTERRUPTED,
    LEASE,
    LOST,
    MAX_EPOCHS,
    PHASE,
)
from optnas.trials.claims import Claim, queued_params
from optnas.trials.failures import fail_as_lost, fail_dead
from optnas.trials.leases import lease_expired, renew_lease
from optnas.trials.lineage import without_weights

A = TypeVar("A", bound=Architecture)

DECIDING = 5.0
"""Seconds that a decision takes at most, on however busy a machine."""
TURN = 0.02
"""Seconds that a decision takes, about."""
LONGEST_PAUSE = 0.5
"""Seconds after which a trial that waits looks again, at most."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What a strategy wants trained next.

    Args:
        params: The parameters of the trial.
        phase: What the strategy is doing, in a word, for people who watch.
        guess: The accuracy to go on with, in a replay, while the candidate still trains; None
            waits for it.
        attrs: What else the objective must know, as user attributes of the trial.
    """

    params: Mapping[str, Any]
    phase: str
    guess: float | None = None
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Step(enum.Enum):
    """What a strategy says when it has no candidate."""

    WAIT = "wait"
    DONE = "done"


class StrategySampler(BaseSampler, abc.ABC, Generic[A]):
    """Base of samplers whose state is a pure function of the study's trials.

    A strategy implements :meth:`propose`. Everything else is here: every trial decides in turn,
    by trial number, so that no candidate is given out twice; writes its claim before its first
    parameter; takes over from trials whose worker died; waits where the strategy needs a result
    that another worker is still computing; and stops the study when the strategy is done.

    Args:
        space: The search space.
        seed: Seed of the study. None derives one from the study's name.
        max_retries: How often a candidate is tried again whose worker died before it got further.
        patience: Seconds after which a running trial that decides nothing (asked for and
            forgotten) is no longer waited for.
        own_params: Parameters that trials have beside those of the space.
    """

    sets_epochs: bool = False
    """Whether the strategy proposes the parameter ``epochs``."""

    def __init__(
        self,
        space: Space[A],
        *,
        seed: int | None = None,
        max_retries: int = 5,
        patience: float = 60.0,
        own_params: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        check_integer("seed", 0 if seed is None else seed, 0)
        check_integer("max_retries", max_retries, 0)
        check_at_least("patience", patience, 0)
        self.space = space
        self._seed = seed
        self._max_retries = max_retries
        self._patience = patience
        self._distributions = {**(own_params or {}), **space.distributions()}
        if self.sets_epochs:
            self._distributions["epochs"] = IntDistribution(1, MAX_EPOCHS)
        self._reader = Reader(self._distributions.keys())

    @abc.abstractmethod
    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        """The next candidate, as a pure function of the arguments.

        Args:
            history: The study's trials.
            rng: Made from the study's seed and the number of candidates claimed so far.
        """

    def found(self, study: Study) -> A | None:
        """The architecture that the strategy has settled on, or None before the end."""
        raise NotImplementedError

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of what would be trained fully, best first."""
        raise NotImplementedError

    @property
    def has_end(self) -> bool:
        """Whether the strategy comes to an end by itself, whatever the budget."""
        return True

    @property
    def inherits(self) -> bool:
        """Whether candidates start from the weights of others."""
        return self.space.inherits

    def weights_needed(self, study: Study) -> Collection[int]:
        """Numbers of the finished trials whose training later candidates may start from.

        All complete ones, where networks inherit and the strategy does not know better.
        """
        if not self.inherits:
            return ()
        return [t.number for t in all_trials(study) if t.state == TrialState.COMPLETE]

    def default_params(self) -> dict[str, Any]:
        """Values for the parameters that an enqueued trial leaves open; others are random."""
        return {}

    def is_finished(self, study: Study) -> bool:
        """Whether the strategy is done, so that no further trial should be started."""
        return self._decide(study, self._history(study)) is Step.DONE

    # How Optuna sees the strategy.

    def reseed_rng(self) -> None:
        pass  # There is no state: draws come from the seed and the history.

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._renew_turn(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._check_study(study)
        if self._is_own(trial):
            # Somebody's own trial: it claims nothing, and answers for its parameters in the end.
            renew_lease(study._storage, trial._trial_id, None)
            return self.default_params()
        for trials, until in self._turns(study, trial):
            history = self._history(study, trials)
            step = self._decide(study, history)
            if time.time() > until:
                continue  # Suspended meanwhile: others may have decided.
            if step is Step.DONE:
                _stop(study)
                raise optuna.TrialPruned("The search is finished.")
            if not isinstance(step, Step):
                return self._claim(study, trial, history, step)
            if not history.waits:
                raise RuntimeError(f"{type(self).__name__} waits, but no candidate is running.")
        raise optuna.TrialPruned("The study was stopped while this trial waited.")

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        claim = Claim.of(trial)
        # By the claim, so that an adopted trial draws what the lost one drew.
        which = ["trial", trial.number] if claim is None else ["claim", claim.index]
        seed = derive_seed(study_seed(study, self._seed), which, param_name) % 2**32
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Any,
    ) -> None:
        if study._is_multi_objective():
            return
        own = copy.copy(trial)
        own.state, own.values = state, values
        self._warn_if_void(own)
        self._explain_failure(study, own)
        trials = list(all_trials(study))
        trials[own.number] = own
        if self._is_over(study, self._history(study, trials)):
            # Nobody comes after this one.
            fail_dead(study._storage, trials, self._max_retries)
            _stop(study)

    # Deciding and claiming.

    def _is_over(self, study: Study, history: History) -> bool:
        """Whether there is nothing to propose, nor to wait for."""
        return self._decide(study, history) is Step.DONE

    def _decide(self, study: Study, history: History) -> Candidate | LostCandidate | Step:
        """Lost candidates come first, then the strategy's next."""
        return history.lost[0] if history.lost else self._propose(study, history)

    def _propose(self, study: Study, history: History) -> Candidate | Step:
        seed = study_seed(study, self._seed)
        return self.propose(history, np.random.default_rng((seed, history.claims)))

    def _history(self, study: Study, trials: list[FrozenTrial] | None = None) -> History:
        gone = without_weights(study._storage, study._study_id) if self.inherits else {}
        trials = all_trials(study) if trials is None else trials
        return History(trials, self._reader, self._max_retries, gone)

    def _claim(
        self, study: Study, trial: FrozenTrial, history: History, step: Candidate | LostCandidate
    ) -> dict[str, Any]:
        storage = study._storage
        if isinstance(step, LostCandidate):
            attrs = {**step.claim.attrs, CONTINUES: step.number}
            claim = dataclasses.replace(step.claim, attrs=attrs, continues=step.number)
        else:
            attrs = {PHASE: step.phase, **step.attrs}
            claim = Claim(history.claims, step.params, attrs)
        # In this order: whoever dies on the way can be told from the living, and whoever waits
        # for this claim does not wait for what people alone read.
        shown = {PHASE: claim.attrs[PHASE]} if PHASE in claim.attrs else {}
        _set_attrs(storage, trial, {k: v for k, v in claim.attrs.items() if k not in shown})
        claim.write(storage, trial)
        # The lease promises nothing from here on: an objective may take as long as it likes,
        # unless it renews the lease itself.
        renew_lease(storage, trial._trial_id, None)
        _set_attrs(storage, trial, shown)
        return dict(claim.params)

    # Waiting and losing.

    def _turns(
        self, study: Study, trial: FrozenTrial
    ) -> Iterator[tuple[list[FrozenTrial] | None, float]]:
        """Yield whenever it is this trial's turn to decide, until the study is stopped.

        Yields:
            All trials, or None if they must be read anew; and until when the turn lasts, as of
            ``time.time``.
        """
        start = time.monotonic()
        while not getattr(study, "_stop_flag", False):
            until = trial.system_attrs.get(LEASE, {}).get("until") or 0.0
            # The objective may have taken its time before its first parameter.
            if until - time.time() < 0.75 * self._patience:
                until = self._renew_turn(study, trial)
            trials = all_trials(study)
            if fail_dead(study._storage, trials, self._max_retries):
                continue
            before = [other for other in trials if self._must_wait_for(other, trial)]
            waited = time.monotonic() - start
            if not before:
                # A storage in memory may show the parameters of a trial before its claim.
                torn = any(map(self._claims_nothing, trials))
                yield None if torn else trials, max(until, time.time() + DECIDING)
            elif waited > self._patience:
                for other in before:
                    if LEASE not in other.system_attrs:
                        reason = "its worker died, or forgot it, before it wrote a lease"
                        fail_as_lost(study._storage, other, reason)
            # Decisions follow one another: long pauses would add up.
            time.sleep(min(max(TURN * len(before), TURN, waited / 20), LONGEST_PAUSE))

    def _renew_turn(self, study: Study, trial: FrozenTrial) -> float:
        lease = renew_lease(study._storage, trial._trial_id, self._patience, decides=True)
        trial.system_attrs[LEASE] = lease
        return float(lease["until"])

    def _is_own(self, trial: FrozenTrial) -> bool:
        """Whether somebody gave ``trial`` parameters of the space, so that it needs no claim."""
        given = trial.params.keys() | queued_params(trial).keys()
        return not given.isdisjoint(self._distributions)

    def _claims_nothing(self, other: FrozenTrial) -> bool:
        """Whether ``other`` is somebody's own trial, and runs."""
        return (
            other.state == TrialState.RUNNING and Claim.of(other) is None and self._is_own(other)
        )

    def _must_wait_for(self, other: FrozenTrial, trial: FrozenTrial) -> bool:
        """Whether ``other`` decides before ``trial`` and has not done so yet."""
        return (
            other.state == TrialState.RUNNING
            and other.number < trial.number
            and Claim.of(other) is None
            and not self._is_own(other)
            and not lease_expired(other)
        )

    # Checks.

    def _check_study(self, study: Study) -> None:
        self._raise_error_if_multi_objective(study)
        if study.direction != StudyDirection.MAXIMIZE:
            warnings.warn(
                f"{type(self).__name__} maximises accuracy, but the study minimises: create it "
                "with direction='maximize', or its best trial will be the worst.",
                stacklevel=2,
            )

    def _warn_if_void(self, trial: FrozenTrial) -> None:
        claim = Claim.of(trial)
        if claim is None or trial.state == TrialState.FAIL:
            return
        wrong = {
            name: value
            for name, value in claim.params.items()
            if name not in trial.params or trial.params[name] != value
        }
        if wrong:
            warnings.warn(
                f"Trial {trial.number} was given {wrong}, but its parameters say otherwise, so it "
                "is no answer: the objective must suggest every parameter that the sampler "
                "proposes, from a range that holds the proposal.",
                stacklevel=2,
            )

    @staticmethod
    def _explain_failure(study: Study, trial: FrozenTrial) -> None:
        """Say on a trial that its own worker fails why it does, unless the objective has."""
        if trial.state != TrialState.FAIL or FAILURE in trial.user_attrs:
            return
        cause = _cause_of_failure()
        if isinstance(cause, KeyboardInterrupt):
            attrs = {FAILURE: LOST, FAILURE_REASON: INTERRUPTED}
        else:
            reason = "the value is not a number" if cause is None else repr(cause)
            attrs = {FAILURE: CANDIDATE, FAILURE_REASON: reason}
        for name, value in attrs.items():
            study._storage.set_trial_user_attr(trial._trial_id, name, value)
        trial.user_attrs = trial.user_attrs | attrs


def _cause_of_failure() -> BaseException | None:
    """What the objective raised, when Optuna tells of it; None if that cannot be known.

    Optuna does not pass it on, but Ctrl-C must not count against a candidate; so this looks into
    Optuna's own frame. Under ask and tell there is none.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run_trial":
            cause: BaseException | None = frame.f_locals.get("func_err")
            return cause
        frame = frame.f_back
    return None


def _set_attrs(storage: BaseStorage, trial: FrozenTrial, attrs: Mapping[str, Any]) -> None:
    """Set user attributes, and show them on ``trial`` itself."""
    for name, value in attrs.items():
        storage.set_trial_user_attr(trial._trial_id, name, value)
        trial.user_attrs[name] = value


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}: {value!r}.")


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise ValueError unless ``value`` is an integer and ``value >= least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"`{name}` must be an integer, {least} or more: {value!r}.")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless ``value >= least``."""
    if not value >= least:
        raise ValueError(f"`{name}` must be greater than or equal to {least}: {value}.")


def all_trials(study: Study) -> list[FrozenTrial]:
    """Every trial of the study, by number, not to be modified."""
    # From the storage itself: Hyperband hands samplers a study that shows one bracket only.
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def _stop(study: Study) -> None:
    with contextlib.suppress(RuntimeError):  # Under ask and tell there is no loop to stop.
        study.stop()
