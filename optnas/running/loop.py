"""One worker's loop over the trials of a study."""

import contextlib
import dataclasses
import datetime
import math
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from optnas.config.contract import strategy_of
from optnas.errors import RunError, UserError
from optnas.running.queueing import is_repeated, queue_lost
from optnas.running.signals import Signals
from optnas.seeds import derive_seed, named_seed, reseed
from optnas.storage.urls import identity_of_file
from optnas.study.budget import has_room, may_go_on, may_start
from optnas.study.opening import OpenStudy, is_counted
from optnas.trials.attributes import (
    CANDIDATE,
    CONTINUES,
    FAILURE,
    FAILURE_REASON,
    INTERRUPTED,
    LEASE,
    LOST,
    MACHINE,
)
from optnas.trials.claims import queued_params
from optnas.trials.damage import fits
from optnas.trials.failures import (
    fail_as_lost,
    fail_dead,
    fail_own,
    is_grounds,
    mark_failure,
    one_line,
)
from optnas.trials.leases import renew_lease

PATIENCE = 60.0
"""Seconds for which a machine that lets no trial go on is tried again."""
PAUSES = (0.05, 0.95)
"""The parts of it before each attempt: few, because each leaves a lost trial behind."""
FIRST = 3
"""When so many candidates, the study's first, fail with one exception, it is the code's fault."""
UNLEASED = datetime.timedelta(seconds=60)
"""A trial of a run has a lease at once; one that has none for so long has no worker."""


class BudgetUsedUp(KeyboardInterrupt):
    """Hands the running trial back, to be continued when there is more budget."""


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How the objective's work on a trial ended.

    Args:
        value: The objective's value, if it came to one.
        state: The trial's state.
        error: What ends the whole run.
    """

    value: float | None = None
    state: TrialState = TrialState.COMPLETE
    error: BaseException | None = None


class Loop:
    """Asks for trials, has them trained and tells what came of it.

    Not ``Study.optimize``, which ends with an assertion when another worker has failed the trial
    in the meantime, because its worker was taken for dead.

    Args:
        handle: The study.
        objective: What a trial computes.
        signals: What interrupts a training.
        on_trial: Called with every trial that is finished.
    """

    def __init__(
        self,
        handle: OpenStudy,
        objective: Callable[[Trial], Any],
        signals: Signals,
        on_trial: Callable[[FrozenTrial], None],
    ) -> None:
        self._study = handle.study
        self._config = handle.config
        self._objective = objective
        self._signals = signals
        self._on_trial = on_trial
        self._is_stock = strategy_of(handle.study.sampler).is_stock
        self._seed = named_seed(handle.config.study, handle.config.seed)
        self._drawn = False
        self._known: list[FrozenTrial] = []
        self._is_queued = True
        self._trouble = Trouble()
        self._file = identity_of_file(handle.config.storage)

    def run(self) -> None:
        """Run trials until the strategy or the budget ends, or a signal comes.

        Raises:
            KeyboardInterrupt: If a trial was handed back.
            RunError: If trials could not go on for a while because of the machine.
            Exception: What the objective raised, if it did so for the first candidates.
        """
        with _stoppable(self._study):
            while not self._study._stop_flag:
                try:
                    if not self._is_due():
                        break
                    self._run_trial()
                    self._trouble.is_over()
                except (UserError, BrokenPipeError):  # Nobody reads what is shown any more.
                    raise
                except Exception as error:
                    if not is_grounds(error):
                        raise
                    self._trouble.lasts(error, self._signals)

    def stop(self) -> None:
        """Start no further trial, and wait for none; from any thread."""
        self._study._stop_flag = True

    def give_up(self, thread: int) -> None:
        """Hand back what a thread works on that does not end; its result will be dropped."""
        trials = self._study.get_trials(deepcopy=False)
        fail_own(self._study._storage, trials, INTERRUPTED, thread)

    def recover(self) -> list[FrozenTrial]:
        """End the trials of dead workers, and those whose end this one could not write.

        To be called between trials only.

        Returns:
            All trials of the study, by number.
        """
        study = self._study
        while True:
            trials = study.get_trials(deepcopy=False)
            abandoned = list(filter(is_abandoned, trials))
            for trial in abandoned:
                reason = "its worker died before it wrote a lease"
                fail_as_lost(study._storage, trial, reason)
            reason = f"{MACHINE}how it ended could not be stored"
            broken_off = fail_own(study._storage, trials, reason)
            dead = fail_dead(study._storage, trials, self._config.max_retries)
            if not (abandoned or broken_off or dead):
                return trials

    def _is_due(self) -> bool:
        """Whether another trial may start; it may be one that was lost."""
        budget = self._config.budget
        if identity_of_file(self._config.storage) != self._file:
            raise OSError(f"{self._config.storage}: another file is in its place")
        while True:
            self._known = trials = self.recover()
            if self._signals.ending is not None or not may_go_on(budget, trials):
                return False
            if may_start(budget, trials):
                queued = queue_lost(self._study, trials, self._config.max_retries)
                self._is_queued = queued or any(t.state == TrialState.WAITING for t in trials)
                return True
            if not any(map(_has_no_lease, trials)):
                return False
            # Its worker is about to write one, or died and leaves its place in the budget.
            time.sleep(0.5)

    def _run_trial(self) -> None:
        """Run a trial; what came of it is dropped if another worker ended it meanwhile.

        That may show wherever something is written on the trial.
        """
        number = None
        attempt = Attempt()
        try:
            trial = self._ask()
            number = trial.number
            attempt = self._train(trial)
            finished = self._study.tell(trial, attempt.value, attempt.state, skip_if_finished=True)
            # Who fails a trial of his own says why.
            taken = finished.state == TrialState.FAIL and FAILURE not in trial.user_attrs
        except UpdateFinishedTrialError:
            taken = True
        if taken:
            which = "A trial" if number is None else f"Trial {number}"
            warnings.warn(
                f"{which} was given to another worker while this one was suspended; its result "
                "is dropped.",
                stacklevel=2,
            )
        else:
            self._on_trial(finished)
        if attempt.error is not None:
            raise attempt.error

    def _ask(self) -> Trial:
        """A trial that somebody queued, or a new one."""
        if self._is_queued:
            return self._study.ask()
        # What `ask` does, which reads all trials once more before it.
        self._study._thread_local.cached_all_trials = None
        return Trial(self._study, self._study._storage.create_new_trial(self._study._study_id))

    def _train(self, trial: Trial) -> Attempt:
        """Have the objective work on a trial, and mark the trial with what went wrong."""
        try:
            with self._signals.may_interrupt():
                self._begin(trial)
                unfit = self._unfit(trial)
                value = None if unfit else _number(self._objective(trial))
        except optuna.TrialPruned:
            return Attempt(state=TrialState.PRUNED)
        except (UpdateFinishedTrialError, UserError, RunError):
            raise
        except KeyboardInterrupt as error:
            return self._failed(trial, LOST, INTERRUPTED, error)
        except Exception as error:
            if self._signals.ending is not None:
                # What an interruption broke off, a transaction for example, may say so in words
                # of its own.
                return self._failed(trial, LOST, INTERRUPTED, KeyboardInterrupt())
            return self._broken(trial, error)
        if unfit:
            warnings.warn(f"trial {trial.number} failed: {unfit}", stacklevel=2)
        if value is None:
            return self._failed(trial, CANDIDATE, unfit or "the value is not a number")
        return Attempt(value)

    def _broken(self, trial: Trial, error: Exception) -> Attempt:
        """A trial whose objective raised ``error``: the machine's fault, or the candidate's."""
        if is_grounds(error):
            return self._failed(trial, LOST, f"{MACHINE}{one_line(error)}", error)
        attempt = self._failed(trial, CANDIDATE, repr(error))
        if self._is_first_failure(trial, error):
            return dataclasses.replace(attempt, error=error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        warnings.warn(
            f"trial {trial.number} failed: {one_line(error)} ({where.filename}, line "
            f"{where.lineno}); the search goes on with other candidates",
            stacklevel=2,
        )
        return attempt

    def _is_first_failure(self, trial: Trial, error: Exception) -> bool:
        """Whether this is the last of the study's first candidates, and all failed alike."""
        trials = self._study.get_trials(deepcopy=False)
        counted = [t for t in trials if t.number != trial.number and is_counted(t)]
        kind = f"{type(error).__name__}("
        return len(counted) >= FIRST - 1 and all(
            t.state == TrialState.FAIL and str(t.user_attrs.get(FAILURE_REASON)).startswith(kind)
            for t in counted
        )

    @staticmethod
    def _failed(
        trial: Trial,
        kind: Literal["lost", "candidate"],
        reason: str,
        error: BaseException | None = None,
    ) -> Attempt:
        if FAILURE not in trial.user_attrs:  # The objective may have said more.
            mark_failure(trial, kind, reason)
        return Attempt(state=TrialState.FAIL, error=error)

    def _begin(self, trial: Trial) -> None:
        """Let a trial begin, unless other workers were faster.

        Raises:
            TrialPruned: If it need not be run.
            BudgetUsedUp: If it is a candidate that somebody queued, for which there is no room.
        """
        if self._is_stock:
            renew_lease(trial.storage, trial._trial_id, None)
            self._seed_draws(trial.number)
        known, budget = self._known, self._config.budget
        # These and those after them are all that can come before this one.
        more = max(0, trial.number - len(known))
        if CONTINUES not in trial.user_attrs and has_room(budget, known, len(known), more=more):
            return
        trials = self._study.get_trials(deepcopy=False)
        frozen = trials[trial.number]
        if is_repeated(frozen, trials):
            raise optuna.TrialPruned("Another trial goes on with the same lost one.")
        if not has_room(budget, trials, trial.number):
            if queued_params(frozen):
                raise BudgetUsedUp
            raise optuna.TrialPruned("The budget is used up.")

    def _unfit(self, trial: Trial) -> str:
        """What a trial was queued with that the space does not have; empty for nothing.

        Optuna would store it, and nobody could read it afterwards.
        """
        if not self._is_queued:
            return ""
        known = self._config.search_space.distributions()
        queued = queued_params(self._study._storage.get_trial(trial._trial_id))
        return "; ".join(
            f"it was queued with {name} {value!r}, expected a value of {known[name]}"
            for name, value in queued.items()
            if name in known and not fits(known[name], value)
        )

    def _seed_draws(self, number: int) -> None:
        """Make a stock sampler's draws a function of the trial's number.

        So workers that start at once draw different candidates, and a search that goes on does
        not repeat its draws. Samplers that hide their random state are seeded at random, as
        Optuna does it for several workers, unless theirs is the study's first trial.
        """
        sampler = self._study.sampler
        known = reseed(sampler, derive_seed(self._seed, "trial", number))
        if not known and not self._drawn and number > 0:
            sampler.reseed_rng()
        self._drawn = True


class Trouble:
    """How long the machine has let no trial go on."""

    def __init__(self) -> None:
        self._failed = 0

    def lasts(self, error: Exception, signals: Signals) -> None:
        """Wait a little after an attempt in vain.

        Raises:
            RunError: If it has lasted for too long.
        """
        if isinstance(error, RunError):
            raise error  # It was waited for already.
        if self._failed == len(PAUSES) or not PATIENCE:
            raise RunError(
                f"trials could not go on for {PATIENCE:.0f} seconds: {one_line(error)}; nothing "
                "is lost: the same command goes on"
            ) from error
        pause, self._failed = PAUSES[self._failed] * PATIENCE, self._failed + 1
        if self._failed == 1:
            message = f"{one_line(error)}; trying again for {PATIENCE:.0f} seconds"
            warnings.warn(f"a trial could not go on: {message}", stacklevel=3)
        until = time.monotonic() + pause
        while time.monotonic() < until and signals.ending is None:
            time.sleep(0.1)

    def is_over(self) -> None:
        """A trial came to its end."""
        self._failed = 0


@contextlib.contextmanager
def _stoppable(study: optuna.Study) -> Iterator[None]:
    """Let ``study.stop()`` be called inside, as ``Study.optimize`` does."""
    study._stop_flag = False
    study._thread_local.in_optimize_loop = True
    try:
        yield
    finally:
        study._thread_local.in_optimize_loop = False
        study._storage.remove_session()


def _number(value: Any) -> float | None:
    """``value`` as a number; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _has_no_lease(trial: FrozenTrial) -> bool:
    return (
        trial.state == TrialState.RUNNING and LEASE not in trial.system_attrs and not trial.params
    )


def is_abandoned(trial: FrozenTrial) -> bool:
    """Whether the worker of a running trial died before it wrote anything on it."""
    started = trial.datetime_start
    return (
        _has_no_lease(trial)
        and started is not None
        and datetime.datetime.now() - started > UNLEASED
    )
