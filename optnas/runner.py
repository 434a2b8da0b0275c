"""Running a study: everything checked before anything is created, every total respected."""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

import optuna
from optuna.trial import FrozenTrial

from optnas import plugins
from optnas.budget import may_go_on, may_start
from optnas.checkpoints import Checkpoints
from optnas.seeds import named_seed
from optnas.storage import open_artifacts
from optnas.studies import Conclusion, OpenStudy, conclusions, create_or_open
from optnas.study_file import StudyFile, load_study_file, study_from_dict

Ending = Literal["finished", "budget", "interrupted", "terminated"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        opened: The study and its configuration.
        ending: ``finished`` (the strategy came to its end), ``budget`` (the study's budget is
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


class Terminated(KeyboardInterrupt):
    """SIGTERM: hands the running trial back."""


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
    opened = create_or_open(config, in_channels=objective.in_channels, classes=objective.classes)
    study, budget = opened.study, config.budget
    objective.checkpoints = Checkpoints(
        open_artifacts(config.artifacts), study._storage, study.study_name
    )

    def on_epoch(progress: Any) -> None:
        if display is not None:
            display.epoch(progress)
        if progress.epoch < progress.epochs and not may_go_on(budget, study, progress.seconds):
            raise BudgetUsedUp

    def on_trial(study: optuna.Study, trial: FrozenTrial) -> None:
        if display is not None:
            display.trial(trial)
        if not may_start(budget, study):
            study.stop()

    objective.on_epoch = on_epoch
    if display is not None:
        display.start(opened)
    try:
        with _terminable():
            if not opened.is_finished and may_start(budget, study):
                study.optimize(objective, callbacks=[on_trial])
    except BudgetUsedUp:
        pass
    except Terminated:
        return Outcome(opened, "terminated")
    except KeyboardInterrupt:
        return Outcome(opened, "interrupted")
    return Outcome(opened, "finished" if opened.is_finished else "budget")


def make_objective(config: StudyFile, *, device: str | None = None) -> Any:
    """The objective of a configuration, with its data loaded.

    Raises:
        UserError: If the data cannot be had.
    """
    limits = config.limits.model_dump(exclude_none=True)
    return plugins.load("objective", config.objective.name, config.folder).from_settings(
        config.make_space(),
        config.data,
        train=config.train,
        limits=limits,
        seed=named_seed(config.study, config.seed),
        device=device,
        **config.objective.options,
    )


def _checked(config: StudyFile | Mapping[str, Any] | str | Path) -> StudyFile:
    if isinstance(config, StudyFile):
        return config
    return study_from_dict(config) if isinstance(config, Mapping) else load_study_file(config)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does; Optuna would leave the trial running for ever."""

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set handlers.
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
