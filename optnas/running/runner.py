"""Running a study: everything checked before anything is created, every total respected."""

import contextlib
import dataclasses
import functools
import signal
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
from optuna.trial import FrozenTrial

from optnas.config.file import StudyFile
from optnas.config.keys import Workers
from optnas.config.paths import default_artifacts
from optnas.drawing.attach import with_drawings
from optnas.errors import RunError
from optnas.running.gpu_sharing import Orders, Sharing
from optnas.running.loop import BudgetUsedUp, Loop
from optnas.running.placement import Crew, check_gpus, crew, how_shared
from optnas.running.signals import Interruption, Signals
from optnas.running.workers import LOST, Team, Tell
from optnas.storage.artifacts import Artifacts, check_artifacts, mark_artifacts, open_artifacts
from optnas.study.budget import may_go_on, may_start
from optnas.study.data import DataReading, Seen, check_same, record_data, seen_by, seen_of
from optnas.study.objectives import ObjectiveMaker
from optnas.study.opening import (
    Conclusion,
    OpenStudy,
    conclusions,
    create_or_open,
    open_study,
    settled,
)
from optnas.study.record import RECORD
from optnas.trials.failures import fail_dead

Ending = Literal["finished", "budget"] | Interruption


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
    """What shows a run to whoever watches; ``worker`` is a worker's number, from 0."""

    def start(self, opened: OpenStudy) -> None:
        """The study is open."""

    def epoch(self, progress: Any, worker: int) -> None:
        """A trial has finished an epoch."""

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        """A trial has finished."""

    def note(self, text: str) -> None:
        """Something was decided about the workers; called only where several share a GPU."""


def run(
    config: StudyFile | Mapping[str, Any] | str | Path,
    *,
    display: Display | None = None,
    device: str | None = None,
    workers: Workers | None = None,
    accept_changed_data: bool = False,
    sees_like: OpenStudy | None = None,
) -> Outcome:
    """Run a study until its strategy ends, its budget is used up, or it is interrupted.

    The study is created if it does not exist, and resumed if it does. Any number of processes,
    on any machines, may run it at once. With more than one worker a script must call this under
    ``if __name__ == "__main__":``, because every worker imports it.

    Args:
        config: The path of a study file, a mapping with its keys, or a checked configuration.
        display: What shows progress; None shows nothing.
        device: A torch device, where ``workers`` name none; None takes CUDA where there is one.
        workers: The worker processes; None takes those of the configuration. A single one is
            this process, unless more of them may be added.
        accept_changed_data: Whether to go on with other images than the study has seen, which is
            recorded.
        sees_like: Another study, whose images this one must have, in the same splits.

    Raises:
        UserError: If the configuration is wrong, the data cannot be had or is not what the study
            has seen, the storage cannot be opened, or the study exists with another
            configuration. Nothing was created.
        RunError: If a trial could not go on because of the machine, or a worker died and was not
            replaced. Nothing is lost.
    """
    config = settled(config)
    say_kept(config)
    workers = workers or config.workers
    if device is not None and not workers.devices:
        workers = workers.model_copy(update={"devices": (device,)})
    there = crew(workers, config.train.threads)
    data = _Data(accept_changed_data, None if sees_like is None else seen_of(sees_like))
    if there.count == 1 and not there.is_measured:
        return _run_alone(config, display, there.workers.device(0), data)
    return _run_team(config, display, there, data)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a run demands of its data."""

    accept: bool
    like: Seen | None

    def check(self, seen: Seen | None, reading: DataReading | None) -> list[str]:
        """How what was read differs from what the study has seen.

        Raises:
            ChangedData: If it does, or is not what another study has seen, and that matters.
        """
        check_same(self.like, reading, accept=self.accept)
        return check_same(seen, reading, accept=self.accept)


def _run_alone(
    config: StudyFile,
    display: Display | None,
    device: str | None,
    data: _Data,
    *,
    number: int = 0,
    heard: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
    is_dismissed: Callable[[], bool] = lambda: False,
    patient: bool = False,
) -> Outcome:
    """Run a study in this process, as the worker with this number, until it is dismissed."""
    seen = seen_by(config, patient=patient)
    maker = ObjectiveMaker(config, device=device, seen=seen or data.like)
    changes = data.check(seen, maker.reading)
    in_channels, classes = maker.check()
    check_artifacts(config.artifacts)
    opened = create_or_open(config, in_channels=in_channels, classes=classes, patient=patient)
    study = opened.study
    record_data(study, maker.reading, seen, changes, config.artifacts)
    store = _own_store(opened)
    checkpoints = opened.checkpoints(store)

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # The loop has not begun, or is over.
            study.stop()

    signals = Signals(stop, heard)

    def on_epoch(progress: Any) -> None:
        if display is not None:
            display.epoch(progress, number)
        _check_may_go_on(progress, opened, signals)

    def on_trial(trial: FrozenTrial) -> None:
        checkpoints.clean(study, trial)
        if display is not None:
            display.trial(trial, number)
        if is_dismissed():
            stop()

    objective = maker.make(checkpoints=checkpoints, on_epoch=on_epoch)
    loop = Loop(opened, with_drawings(objective, opened, store), signals, on_trial)
    loop.recover()
    checkpoints.clean(study)  # What workers left that were killed before they could.
    _say_lost(checkpoints.find_lost(study))
    if display is not None:
        display.start(opened)
    with signals, contextlib.suppress(KeyboardInterrupt):
        if not opened.is_finished:
            loop.run()
    return Outcome(opened, signals.ending or _ending(opened))


def _own_store(opened: OpenStudy) -> Artifacts:
    """The artifacts, marked as the study's where they are not where anybody would look."""
    config = opened.config
    store = open_artifacts(config.artifacts)
    if config.artifacts != default_artifacts(config.study, config.storage, config.folder):
        mark_artifacts(config.artifacts, opened.study.user_attrs[RECORD].get("id", ""))
    return store


def _check_may_go_on(progress: Any, opened: OpenStudy, signals: Signals) -> None:
    """End the running trial after an epoch, if a signal came or the budget is used up.

    Raises:
        KeyboardInterrupt: Then, so that the trial is handed back.
    """
    if signals.ending is not None:  # Python drops what is raised inside some callbacks.
        raise KeyboardInterrupt
    if progress.epoch < progress.epochs and not may_go_on(
        opened.config.budget, opened.study.get_trials(deepcopy=False)
    ):
        raise BudgetUsedUp


def _run_team(config: StudyFile, display: Display | None, there: Crew, data: _Data) -> Outcome:
    """Run a study in several processes of this machine."""
    check_gpus(there)
    audience = _Audience(config, display, there)
    team = Team(
        functools.partial(_work, config, there.workers, data),
        count=there.count,
        max_restarts=there.workers.max_restarts,
        listen=audience.listen,
    )
    if there.is_measured:
        orders = Orders(team.add, team.dismiss, audience.find, audience.note)
        audience.sharing = Sharing(there, orders)
    ending: Interruption | None = None
    try:
        ending = team.run()
    except KeyboardInterrupt:  # The second Ctrl-C.
        ending = "interrupted"
    opened = audience.opened
    if opened is None:  # Nobody came so far.
        raise RunError(team.lost) if team.lost else KeyboardInterrupt
    # Of workers that were killed at last.
    trials = opened.study.get_trials(deepcopy=False)
    fail_dead(opened.study._storage, trials, config.max_retries)
    may_continue = not opened.is_finished and may_start(config.budget, trials)
    if ending is None and team.lost and may_continue:
        raise RunError(f"{team.lost}; nothing is lost: the same command goes on")
    return Outcome(opened, ending or _ending(opened))


def _work(
    config: StudyFile, workers: Workers, data: _Data, number: int, tell: Tell
) -> Interruption | None:
    """What a worker process does; its parent hears Ctrl-C for it."""
    teller = _Teller(tell)
    outcome = _run_alone(
        config,
        teller,
        workers.device(number),
        data,
        number=number,
        heard=(signal.SIGTERM,),
        is_dismissed=lambda: teller.is_dismissed,
        patient=True,  # Its siblings wait, too.
    )
    return outcome.ending if outcome.ending in ("interrupted", "terminated") else None


class _Teller:
    """The display of a worker process: tells its parent.

    Attributes:
        is_dismissed: Whether the parent wants the worker to end.
    """

    def __init__(self, tell: Tell) -> None:
        self.is_dismissed = False
        self._tell = tell

    def start(self, opened: OpenStudy) -> None:
        self._tell("start", None)

    def epoch(self, progress: Any, worker: int) -> None:
        self._tell("epoch", dict(vars(progress)))

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self.is_dismissed = not self._tell("trial", trial.number)

    def note(self, text: str) -> None:
        pass  # Its parent decides.


class _Audience:
    """Shows what worker processes tell, and has somebody decide how many there are.

    Attributes:
        opened: The study, once a worker has made or opened it.
        sharing: Decides how many workers there are, if that is not settled.
    """

    def __init__(self, config: StudyFile, display: Display | None, there: Crew) -> None:
        self.opened: OpenStudy | None = None
        self.sharing: Sharing | None = None
        self._config = config
        self._display = display
        self._there = there

    def listen(self, worker: int, event: str, value: Any) -> None:
        if event == LOST:
            if self.sharing is not None and self.opened is not None:
                self.sharing.lost(worker, value)
            return
        if self.opened is None:
            self.opened = open_study(self._config)
            if self._display is not None:
                self._display.start(self.opened)
            if self._there.shares_gpus:
                self.note(how_shared())
        if event == "epoch":
            if self._display is not None:
                self._display.epoch(types.SimpleNamespace(**value), worker)
            if self.sharing is not None:
                self.sharing.epoch(worker, value["number"])
        elif event == "trial" and (self._display is not None or self.sharing is not None):
            trial = self.find(value)
            if self._display is not None:
                self._display.trial(trial, worker)
            if self.sharing is not None:
                self.sharing.trial(worker, trial)

    def find(self, number: int) -> FrozenTrial:
        """The trial with a number, as the storage shows it."""
        assert self.opened is not None
        return self.opened.study.get_trials(deepcopy=False)[number]

    def note(self, text: str) -> None:
        """Show a decision."""
        if self._display is not None:
            self._display.note(text)


def _ending(opened: OpenStudy) -> Literal["finished", "budget"]:
    """Why there is nothing more to do."""
    if opened.is_finished:
        return "finished"
    trials = opened.study.get_trials(deepcopy=False)
    return "finished" if may_start(opened.config.budget, trials) else "budget"


def _say_lost(numbers: Sequence[int]) -> None:
    if numbers:
        warnings.warn(
            f"The weights of trials {', '.join(map(str, numbers))} are missing from the "
            "artifacts: no network can start from them any more; the search goes on from those "
            "that are left.",
            stacklevel=2,
        )


def say_kept(config: StudyFile) -> None:
    """Warn of what a study was made with that the file does not say, and is otherwise today."""
    if config.kept:
        warnings.warn(f"kept from when the study was made: {', '.join(config.kept)}", stacklevel=3)
