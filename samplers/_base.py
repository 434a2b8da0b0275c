"""The common base of the strategies: deciding, claiming and explaining failures, once for all."""

import abc
import contextlib
import copy
import dataclasses
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
import optuna
from annotated_types import Ge
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optnas.samplers._batches import Candidate, Step
from optnas.samplers._history import History, LostCandidate, TrialReader, results_alone
from optnas.samplers._options import Count, check_options
from optnas.samplers._outlook import Course, Outlook
from optnas.samplers._turns import Turns, all_trials, names_candidate, promise_decision
from optnas.seeds import derive_seed, study_seed
from optnas.spaces import Architecture, Space
from optnas.trials.attributes import (
    CLAIM,
    CONTINUES,
    LEASE,
    MAX_EPOCHS,
    PHASE,
    STEP,
    TRAIN_ACCURACY,
)
from optnas.trials.claims import Claim
from optnas.trials.failures import explain_failure, fail_dead
from optnas.trials.leases import new_lease, renew_lease
from optnas.trials.lineage import without_weights
from optnas.trials.writing import Attr, write_attrs

A = TypeVar("A", bound=Architecture)


@dataclasses.dataclass(eq=False)
class StrategySampler(BaseSampler, abc.ABC, Generic[A]):
    """Base of samplers whose state is a pure function of the study's trials.

    A strategy implements :meth:`propose`. Everything else is here: every trial decides in turn,
    by trial number, so that no candidate is given out twice; writes its claim before its first
    parameter; takes over from trials whose worker died; waits where the strategy needs a result
    that another worker is still computing; and stops the study when the strategy is done.

    A strategy with options of its own is a dataclass whose fields they are, with their bounds:
    ``size: Annotated[int, Ge(1)] = 50``. Checks that concern several options stand in its
    ``__post_init__``.

    Args:
        space: The search space.
        seed: Seed of the study. None derives one from the study's name.
        max_retries: How often a candidate is tried again whose worker died before it got further.
        patience: Seconds after which a running trial that decides nothing (asked for and
            forgotten) is no longer waited for.

    Raises:
        TypeError: If the strategy cannot search the space.
        ValueError: If an option is not what its annotation says.
    """

    space: Space[A]
    _: KW_ONLY
    seed: Count | None = None
    max_retries: Count = 5
    patience: Annotated[float, Ge(0)] = 60.0

    searches: ClassVar[tuple[type[Any], ...]] = ()
    """The kinds of space that the strategy searches; empty for any."""
    needs_whole_networks: ClassVar[bool] = False
    """Whether the parameters of a trial must say the whole network."""
    compares_fractions: ClassVar[bool] = False
    """Whether values are compared with thresholds that are fractions."""
    _told_fractions = False
    sets_epochs: ClassVar[bool] = False
    """Whether the strategy proposes the parameter ``epochs``."""
    retrained: ClassVar[int] = 1
    """How many of the candidates are trained fully in the end."""
    needs_objective: ClassVar[str | None] = None
    """The objective that study files must name, or one of their own; None for any."""
    phases: ClassVar[tuple[str, ...] | None] = None
    """The values of the parameter ``phase``, where trials are of several kinds."""

    def __post_init__(self) -> None:
        if self.searches and not isinstance(self.space, self.searches):
            kinds = " or ".join(kind.__name__ for kind in self.searches)
            raise TypeError(f"{type(self).__name__} searches a {kinds}, not {self.space!r}.")
        if self.needs_whole_networks and self.space.inherits:
            raise TypeError(
                f"{type(self).__name__} needs parameters that say the whole network; those of "
                f"{self.space!r} name only what a network descends from."
            )
        check_options(self)
        self._distributions = {**self.own_distributions(), **self.space.distributions()}
        if self.sets_epochs:
            self._distributions["epochs"] = IntDistribution(1, MAX_EPOCHS)
        self._reader = TrialReader(self._distributions.keys())
        self._named: dict[int, tuple[FrozenTrial, A | None]] = {}

    @abc.abstractmethod
    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        """The next candidate, as a pure function of the arguments.

        Args:
            history: The study's trials.
            rng: Made from the study's seed and the number of candidates claimed so far.
        """

    def own_distributions(self) -> Mapping[str, BaseDistribution]:
        """Parameters that trials have beside those of the space."""
        return {}

    def found(self, study: Study) -> A | None:
        """The architecture that the strategy has settled on, or None as long as there is none."""
        return next((architecture for _, architecture, _ in self.candidates(study)), None)

    def candidates(self, study: Study) -> list[tuple[int, A, float]]:
        """Trial number, architecture and value of what would be trained fully, best first.

        All finished networks, where the strategy does not know better.
        """
        trials = all_trials(study)
        results = [r for r in results_alone(trials) if math.isfinite(r.value)]
        return [
            (result.number, architecture, result.value)
            for result in sorted(results, key=lambda result: -result.value)
            if result.number is not None
            # Somebody may have added a trial that names none.
            and (architecture := self.named_by(trials[result.number])) is not None
        ]

    def named_by(self, trial: FrozenTrial) -> A | None:
        """The network that a finished trial names, or None if it names none: remembered."""
        known = self._named.get(trial.number)
        if known is None or known[0] is not trial:
            known = self._named[trial.number] = (trial, self.space.named_by(trial))
        return known[1]

    @property
    def has_end(self) -> bool:
        """Whether the strategy comes to an end by itself, whatever the budget."""
        return True

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook | None:
        """What is ahead of the search; None where it has no end, or does not say.

        Args:
            study: The study, which may have trials.
            rng: Draws the likely courses.
        """
        return None

    def ways_ahead(
        self, study: Study, number: int, rng: np.random.Generator
    ) -> Sequence[Course] | None:
        """Courses that are equally likely, of a search that a budget ends.

        Default: None, it trains any networks of the space.

        Args:
            study: The study, which may have trials.
            number: How many trials there will be.
            rng: Draws the courses.
        """
        return None

    @property
    def epochs_range(self) -> tuple[int, int] | None:
        """Least and most epochs that the strategy proposes; None for any number."""
        return None

    @property
    def least_claims(self) -> float:
        """Claims of candidates before which the strategy cannot be done."""
        return 0

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

    def parent_probabilities(self, study: Study) -> Mapping[int, float]:
        """With which probability each trial is the parent of the next candidate.

        Empty where no parent is drawn.
        """
        return {}

    def default_params(self) -> dict[str, Any]:
        """Values for the parameters that an enqueued trial leaves open; others are random."""
        return {}

    def is_finished(self, study: Study) -> bool:
        """Whether the strategy is done, so that no further trial should be started."""
        return self._is_over(study, all_trials(study))

    # How Optuna sees the strategy.

    def reseed_rng(self) -> None:
        pass  # There is no state: draws come from the seed and the history.

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        promise_decision(study, trial, self.patience)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._check_study(study)
        names = self._distributions.keys()
        if names_candidate(trial, names):
            # Somebody's own trial: it claims nothing, and answers for its parameters in the end.
            renew_lease(study._storage, trial._trial_id, None)
            return self.default_params()
        for turn in Turns(study, trial, names, self.max_retries, self.patience):
            history = self._history(study, turn.trials)
            step = self._decide(study, history)
            if turn.is_over():
                continue
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
        seed = derive_seed(study_seed(study, self.seed), which, param_name) % 2**32
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
        self._warn_if_no_fraction(own)
        explain_failure(study._storage, own)
        trials = list(all_trials(study))
        trials[own.number] = own
        if self._is_over(study, trials):
            # Nobody comes after this one.
            fail_dead(study._storage, trials, self.max_retries)
            _stop(study)

    # Deciding and claiming.

    def _is_over(self, study: Study, trials: list[FrozenTrial]) -> bool:
        """Whether there is nothing to propose, nor to wait for."""
        if sum(CLAIM in trial.system_attrs for trial in trials) < self.least_claims:
            return False  # Known without reading what was claimed, and without a proposal.
        return self._ends(study, self._history(study, trials))

    def _ends(self, study: Study, history: History) -> bool:
        return self._decide(study, history) is Step.DONE

    def _decide(self, study: Study, history: History) -> Candidate | LostCandidate | Step:
        """Lost candidates come first, then the strategy's next."""
        return history.lost[0] if history.lost else self._propose(study, history)

    def _propose(self, study: Study, history: History) -> Candidate | Step:
        seed = study_seed(study, self.seed)
        return self.propose(history, np.random.default_rng((seed, history.claims)))

    def _history(self, study: Study, trials: list[FrozenTrial] | None = None) -> History:
        gone = without_weights(study._storage, study._study_id) if self.inherits else {}
        trials = all_trials(study) if trials is None else trials
        return History(trials, self._reader, self.max_retries, gone)

    def _claim(
        self, study: Study, trial: FrozenTrial, history: History, step: Candidate | LostCandidate
    ) -> dict[str, Any]:
        if isinstance(step, LostCandidate):
            attrs = {**step.claim.attrs, CONTINUES: step.number}
            claim = dataclasses.replace(step.claim, attrs=attrs, continues=step.number)
        else:
            words = {STEP: step.step} if step.step else {}
            attrs = {PHASE: step.phase, **words, **step.attrs}
            claim = Claim(history.claims, step.params, attrs)
        # In this order, where it cannot be at once: whoever dies on the way can be told from the
        # living, and whoever waits for this claim does not wait for what people alone read.
        user: list[Attr] = [("user", name, value) for name, value in claim.attrs.items()]
        shown = [attr for attr in user if attr[1] in (PHASE, STEP)]
        others = [attr for attr in user if attr not in shown]
        # The lease promises nothing from here on: an objective may take as long as it likes,
        # unless it renews the lease itself.
        lease: Attr = ("system", LEASE, new_lease(None))
        write_attrs(study._storage, trial, [*others, claim.attr(), lease, *shown])
        return dict(claim.params)

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

    def _warn_if_no_fraction(self, trial: FrozenTrial) -> None:
        """Say once that accuracies are fractions, where thresholds are compared with them."""
        if not self.compares_fractions or self._told_fractions:
            return
        numbers = {"its value": (trial.values or [None])[0]}
        numbers[f"`{TRAIN_ACCURACY}`"] = trial.user_attrs.get(TRAIN_ACCURACY)
        for name, number in numbers.items():
            if isinstance(number, int | float) and not 0 <= number <= 1:
                self._told_fractions = True
                warnings.warn(
                    f"Trial {trial.number}: {name} is {number}, but the thresholds of "
                    f"{type(self).__name__} are fractions from 0 to 1: divide percent by 100, or "
                    "the search ends where it should not.",
                    stacklevel=2,
                )


def _stop(study: Study) -> None:
    with contextlib.suppress(RuntimeError):  # Under ask and tell there is no loop to stop.
        study.stop()
