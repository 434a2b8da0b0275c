"""A search by a clock of its own: the strategy, the study and the display are the real ones."""

import dataclasses
import functools
import heapq
import math
from collections.abc import Callable, Iterator
from typing import Any

from forecast import Moment
from optuna.trial import Trial, TrialState

from optnas.cli.watching import Watch
from optnas.config.contract import strategy_of
from optnas.forecast.left import DEPTH
from optnas.study.budget import may_go_on, may_start
from optnas.study.opening import OpenStudy
from optnas.trials.attributes import EPOCHS_TRAINED, PHASE, TRAIN_ACCURACY, TRAIN_SECONDS

BESIDE = 0.01
"""What a trial takes beside its training, as a share of a typical epoch."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What a trial trains.

    Args:
        accuracies: After every epoch.
        seconds: Of every epoch.
        attrs: User attributes from the beginning.
        train_accuracy: In the end.
    """

    accuracies: tuple[float, ...]
    seconds: tuple[float, ...]
    attrs: dict[str, Any]
    train_accuracy: float


class Simulated:
    """A search by a clock of its own.

    Args:
        handle: The study, in memory and empty.
        training: What a trial trains.
        workers: How many train at once.
    """

    def __init__(
        self, handle: OpenStudy, training: Callable[[Trial], Training], workers: int = 1
    ) -> None:
        self._handle = handle
        self._training = training
        self._workers = workers
        self._now = 0.0
        self._has_ended = False
        self._at: dict[int, Callable[[], dict[str, Any]]] = {}
        self._watch = Watch(lambda: self._now)
        self._watch.start(handle)

    def run(self, every: float | None = None, most: float = math.inf) -> list[Moment]:
        """Run the search.

        Args:
            every: Seconds between two moments; None looks at none, which takes no time.
            most: Seconds after which it is left as it is, between two trials.
        """
        going = {number: self._work(number, most) for number in range(self._workers)}
        due = [(0.0, number) for number in going]
        waiting: list[int] = []
        moments: list[Moment] = []
        look = every or math.inf
        while due:
            then, number = heapq.heappop(due)
            while look <= then:
                self._now = look
                moments += self._said()
                look += every or math.inf
            self._now = then
            pause = next(going[number], None)
            if pause == 0:
                waiting.append(number)
            elif pause is not None:
                heapq.heappush(due, (then + pause, number))
            if self._has_ended or not due:
                self._has_ended = False
                due += [(then, each) for each in waiting]
                heapq.heapify(due)
                waiting = []
        return moments

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self._now

    def _said(self) -> Iterator[Moment]:
        for number in range(self._workers):
            pulses = [self._at[number]()] if number in self._at else []
            self._watch.pulse(pulses, number)
        self._watch.foresee()
        span = self._watch.seconds_left()
        if span is not None:
            trials = self._handle.study.get_trials(deepcopy=False)
            phases = {trial.user_attrs.get(PHASE, "") for trial in trials}
            ended = sum(trial.state.is_finished() for trial in trials)
            yield Moment(self._now, ended, bool(phases - {"", DEPTH}), *span)

    def _work(self, number: int, most: float) -> Iterator[float]:
        """A worker; gives the seconds until it goes on, 0 if it waits for others."""
        study, budget = self._handle.study, self._handle.config.budget
        while self._now < most and may_start(budget, study.get_trials(deepcopy=False)):
            if self._has_to_wait():
                yield 0.0
                continue
            if strategy_of(study.sampler).is_finished(study):
                return
            yield from self._train(number, study.ask())

    def _has_to_wait(self) -> bool:
        """Whether the strategy has nothing to train before others have ended."""
        study, sampler = self._handle.study, self._handle.study.sampler
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not running or strategy_of(sampler).is_stock:
            return False
        return getattr(sampler._decide(study, sampler._history(study)), "name", "") in (
            "WAIT",
            "DONE",
        )

    def _train(self, number: int, trial: Trial) -> Iterator[float]:
        study = self._handle.study
        training = self._training(trial)
        for name, value in training.attrs.items():
            trial.set_user_attr(name, value)
        yield BESIDE * training.seconds[0]
        for epoch, seconds in enumerate(training.seconds):
            self._at[number] = functools.partial(
                self._pulse, trial, training, epoch, self._now, seconds
            )
            yield seconds
            trial.report(training.accuracies[epoch], epoch + 1)
            trial.set_user_attr(TRAIN_SECONDS, sum(training.seconds[: epoch + 1]))
            self._watch.look()
            if epoch + 1 < len(training.seconds):
                if trial.should_prune():
                    break
                if not may_go_on(self._handle.config.budget, study.get_trials(deepcopy=False)):
                    break
        del self._at[number]
        pruned = epoch + 1 < len(training.seconds)
        trial.set_user_attr(EPOCHS_TRAINED, epoch + 1)
        trial.set_user_attr(TRAIN_ACCURACY, training.train_accuracy)
        value = None if pruned else max(training.accuracies)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        self._watch.ended(number, study.tell(trial, value, state))
        self._has_ended = True
        self._watch.look()

    def _pulse(
        self, trial: Trial, training: Training, epoch: int, began: float, seconds: float
    ) -> dict[str, Any]:
        return {
            "number": trial.number,
            "phase": trial.user_attrs.get(PHASE, ""),
            "step": "",
            "epoch": epoch,
            "epochs": len(training.seconds),
            "accuracy": None,
            "seconds": sum(training.seconds[:epoch]),
            "running": self._now - began,
            "batch": int(100 * (self._now - began) / seconds),
            "batches": 100,
            "gpu": None,
        }
