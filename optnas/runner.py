"""Running a study: everything checked before anything is created, every total respected."""

import contextlib
import dataclasses
import inspect
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial

from optnas import plugins
from optnas.budget import may_go_on, may_start
from optnas.checkpoints import Checkpoints, ancestors
from optnas.seeds import named_seed
from optnas.storage import check_folder, open_artifacts
from optnas.studies import Conclusion, OpenStudy, conclusions, create_or_open
from optnas.study_file import StudyFile, load_study_file, study_from_dict
from optnas.trials import (
    CONTINUES,
    FAILURE_REASON,
    INTERRUPTED,
    LEASE,
    LOST,
    fail_dead,
    is_lost,
    mark_failure,
    renew_lease,
)

Ending = Literal["finished", "budget", "interrupted", "terminated"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        opened: The study and its configuration.
        ending: ``finished`` (the sampler came to its end), ``budget`` (the study's budget is
            used up), ``interrupted`` (Ctrl-C) or ``terminated`` (SIGTERM).
    """

    opened: OpenStudy
    ending: Ending

    @property
    def study(self) -> optuna.Study:
        """The Optuna study."""
        return self.opened.study

    @property
    def best(self) -> Conclusion | None:
        """The network found, or the best so far; None if none could be trained."""
        return next(iter(conclusions(self.opened)), None)


class Display(Protocol):
    """What shows a run to whoever watches."""

    def start(self, opened: OpenStudy) -> None:
        """The study is open."""

    def epoch(self, progress: Any) -> None:
        """A trial has finished an epoch."""

    def trial(self, trial: FrozenTrial) -> None:
        """A trial has finished."""


class BudgetUsedUp(KeyboardInterrupt):
    """Hands the running trial back, to be continued when there is more budget."""


def run(
    config: StudyFile | Mapping[str, Any] | str | Path,
    *,
    display: Display | None = None,
    device: str | None = None,
) -> Outcome:
    """Run a study until its strategy ends, its budget is used up, or it is interrupted.

    The study is created if it does not exist, and resumed if it does. Any number of processes
    may run it at once.

    Args:
        config: The path of a study file, a mapping with its keys, or a checked configuration.
        display: What shows progress; None shows nothing.
        device: A torch device; None takes CUDA where there is one.

    Raises:
        UserError: If the configuration is wrong, the data cannot be had, the storage cannot be
            opened, or the study exists with another configuration. Nothing was created.
    """
    config = _checked(config)
    objective = make_objective(config, device=device)
    check_folder(config.artifacts)
    opened = create_or_open(config, in_channels=objective.in_channels, classes=objective.classes)
    study, budget = opened.study, config.budget
    checkpoints = Checkpoints(open_artifacts(config.artifacts), study._storage, study.study_name)
    signals = _Signals(study)

    def train(trial: Trial) -> Any:
        if LEASE not in trial.storage.get_trial_system_attrs(trial._trial_id):
            renew_lease(trial.storage, trial._trial_id, None)
        with signals.may_interrupt(trial):
            return objective(trial)

    def on_epoch(progress: Any) -> None:
        if display is not None:
            display.epoch(progress)
        if signals.ending is not None:  # Python drops what is raised inside some callbacks.
            raise KeyboardInterrupt
        if progress.epoch < progress.epochs and not may_go_on(budget, study):
            raise BudgetUsedUp

    def on_trial(study: optuna.Study, trial: FrozenTrial) -> None:
        if display is not None:
            display.trial(trial)
        # The trials of dead workers are no part of the budget.
        fail_dead(study._storage, study.get_trials(deepcopy=False))
        if not may_start(budget, study):
            study.stop()

    objective.checkpoints, objective.on_epoch = checkpoints, on_epoch
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        checkpoints.clean(study, trial)  # Of workers that were killed before they could.
    fail_dead(study._storage, trials)
    if display is not None:
        display.start(opened)
    with signals, contextlib.suppress(KeyboardInterrupt):
        if not opened.is_finished and may_start(budget, study):
            _queue_lost(opened)
            study.optimize(train, callbacks=[checkpoints.clean, on_trial])
    if signals.ending is not None:
        return Outcome(opened, signals.ending)
    used_up = not opened.is_finished and not may_start(budget, study)
    return Outcome(opened, "budget" if used_up else "finished")


def make_objective(config: StudyFile, *, device: str | None = None) -> Any:
    """The objective of a configuration, with its data loaded.

    Raises:
        UserError: If the data cannot be had.
    """
    plugins.make_importable(config.folder)  # Data may be a function beside the study file.
    make = plugins.load("objective", config.objective.name, config.folder).from_settings
    supplied = {
        "space": config.make_space(),
        "data": config.data,
        "train": config.train,
        "network": config.network,
        "proxy": config.proxy,
        "limits": config.limits.model_dump(exclude_none=True),
        "seed": named_seed(config.study, config.seed),
        "device": device,
        "folder": config.folder,
    }
    taken = inspect.signature(make).parameters
    return make(**{k: v for k, v in supplied.items() if k in taken}, **config.objective.options)


class _Signals:
    """Ctrl-C and SIGTERM hand back the trial that trains, and end the run.

    An exception anywhere else, while a result is being stored say, would leave a trial running
    for ever; so elsewhere the loop ends by itself.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.ending: Literal["interrupted", "terminated"] | None = None
        self._study = study
        self._trains = False

    @contextlib.contextmanager
    def may_interrupt(self, trial: Trial) -> Iterator[None]:
        try:
            self._trains = True
            if self.ending is not None:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            self._trains = False
            mark_failure(trial, LOST, INTERRUPTED)
            raise
        finally:
            self._trains = False

    def __enter__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():  # No other may set handlers.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.ending = "interrupted" if number == signal.SIGINT else "terminated"
        # A second Ctrl-C does not wait.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(RuntimeError):  # The loop has not begun, or is over.
            self._study.stop()
        if self._trains:
            raise KeyboardInterrupt


def _queue_lost(opened: OpenStudy) -> None:
    """Queue lost candidates again for stock samplers; a strategy takes up its own."""
    study = opened.study
    if hasattr(study.sampler, "is_finished"):
        return
    trials = study.get_trials(deepcopy=False)
    continued = {trial.user_attrs.get(CONTINUES) for trial in trials}
    for trial in trials:
        chain = [trial, *ancestors(trials, trial)]
        attempts = sum(t.user_attrs.get(FAILURE_REASON) != INTERRUPTED for t in chain)
        tried_enough = trial.number in continued or attempts > opened.config.max_retries
        if is_lost(trial) and trial.params and not tried_enough:
            study.enqueue_trial(trial.params, user_attrs={CONTINUES: trial.number})


def _checked(config: StudyFile | Mapping[str, Any] | str | Path) -> StudyFile:
    if isinstance(config, StudyFile):
        return config
    return study_from_dict(config) if isinstance(config, Mapping) else load_study_file(config)
