"""Running a study: everything checked before anything is created, every total respected."""

import contextlib
import dataclasses
import functools
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial

from optnas.config.contract import Objective
from optnas.config.file import StudyFile
from optnas.config.keys import Workers
from optnas.config.paths import default_artifacts
from optnas.drawing.attach import with_drawings
from optnas.errors import RunError, UserError
from optnas.forecast.start import said_at_start
from optnas.running import heart
from optnas.running.events import Display, PoolEvents, WorkerDisplay
from optnas.running.loop import BudgetUsedUp, Loop
from optnas.running.placement import WorkerPlan, check_gpus, plan_workers, streams_notice
from optnas.running.signals import TAKEN_BACK, Interruption, Signals
from optnas.running.streams import run_at_once
from optnas.running.workers import Pool, SendEvent, Work, WorkerPool
from optnas.storage.artifacts import Artifacts, check_artifacts, mark_artifacts, open_artifacts
from optnas.study.budget import limits_epochs, may_go_on, may_start
from optnas.study.data import (
    DataReading,
    SeenData,
    check_same,
    data_seen_by_study,
    data_seen_with,
    record_data,
)
from optnas.study.objectives import ObjectiveMaker
from optnas.study.opening import (
    Conclusion,
    OpenStudy,
    conclusions,
    config_to_run,
    create_or_open,
    open_study,
    reopened,
)
from optnas.study.record import identity_of
from optnas.trials.failures import fail_dead, is_grounds, one_line

Ending = Literal["finished", "budget"] | Interruption

PoolMaker = Callable[[Work, PoolEvents], Pool]
"""Makes workers that do some work, of which events hear."""


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
        return next(iter(conclusions(self.opened, 1)), None)


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
            this process.
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
    return run_as_made(
        config_to_run(config),
        display=display or Display(),
        device=device,
        workers=workers,
        accept_changed_data=accept_changed_data,
        sees_like=sees_like,
    )


def run_as_made(
    config: StudyFile,
    *,
    display: Display,
    device: str | None = None,
    workers: Workers | None = None,
    accept_changed_data: bool = False,
    sees_like: OpenStudy | None = None,
) -> Outcome:
    """The same with a configuration as `config_to_run` returns it, which opens the storage."""
    warn_of_kept_settings(config)
    workers = workers or config.workers
    if device is not None and not workers.devices:
        workers = workers.model_copy(update={"devices": (device,)})
    plan = plan_workers(workers)
    data = _Data(accept_changed_data, None if sees_like is None else data_seen_by_study(sees_like))
    if plan.count == 1:
        return _run_alone(config, display, plan.workers, data)
    return _run_pool(config, display, plan, data)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a run demands of its data."""

    accept: bool
    like: SeenData | None

    def check(self, seen: SeenData | None, reading: DataReading | None) -> list[str]:
        """How what was read differs from what the study has seen.

        Raises:
            ChangedData: If it does, or is not what another study has seen, and that matters.
        """
        check_same(self.like, reading, accept=self.accept)
        return check_same(seen, reading, accept=self.accept)


@contextlib.contextmanager
def _told_in_a_line() -> Iterator[None]:
    """Turn what the ground does, wherever it is raised, into a ``RunError``."""
    try:
        yield
    except (UserError, RunError, BrokenPipeError):  # Nobody reads what is shown any more.
        raise
    except Exception as error:
        if not is_grounds(error):
            raise
        message = f"{one_line(error)}; nothing is lost: the same command goes on"
        raise RunError(message) from error


@_told_in_a_line()
def _run_alone(
    config: StudyFile,
    display: Display,
    workers: Workers,
    data: _Data,
    *,
    number: int = 0,
    heard: tuple[signal.Signals, ...] = (signal.SIGINT, *TAKEN_BACK),
    patient: bool = False,
) -> Outcome:
    """Run a study in this process, as the worker with this number."""
    with heart.beats(display.pulse, number):
        seen = data_seen_with(config, patient=patient)
        maker = ObjectiveMaker(config, device=workers.device(number), seen=seen or data.like)
        changes = data.check(seen, maker.reading)
        in_channels, classes = maker.check()
        check_artifacts(config.artifacts)
        handle = create_or_open(config, in_channels=in_channels, classes=classes, patient=patient)
        record_data(handle.study, maker.reading, seen, changes, config.artifacts)
        return _search(handle, maker, display, workers, number, heard)


def _search(
    handle: OpenStudy,
    maker: ObjectiveMaker,
    display: Display,
    workers: Workers,
    number: int,
    heard: tuple[signal.Signals, ...],
) -> Outcome:
    """Search in an open study, in so many threads as the worker is to train trials at once."""
    study, store = handle.study, _own_store(handle)
    checkpoints = handle.checkpoints(store)
    loops: list[Loop] = []
    turn = threading.Lock()  # Threads are told from one after the other.

    def stop() -> None:
        for loop in loops:
            loop.stop()

    signals = Signals(stop, heard, answer=display.interrupted)

    def on_epoch(progress: Any) -> None:
        with turn:
            display.epoch(progress, number)
        _check_may_go_on(progress, handle, signals)

    def on_trial(trial: FrozenTrial) -> None:
        with turn:
            checkpoints.clean(study, trial)
            if display.trial is not None:
                display.trial(trial, number)

    objective = maker.make(checkpoints=checkpoints, on_epoch=on_epoch)
    work = with_drawings(objective, handle, store)
    own = [handle] if workers.streams == 1 else [reopened(handle) for _ in range(workers.streams)]
    loops += [Loop(each, work, signals, on_trial) for each in own]
    loops[0].recover()
    checkpoints.clean(study)  # What workers left that were killed before they could.
    _warn_of_lost_weights(checkpoints.find_lost(study))
    if number == 0:
        _show_start(handle, objective, display, workers)
    else:
        display.start(handle)
    with signals, contextlib.suppress(KeyboardInterrupt):
        if not handle.is_finished:
            run_at_once(loops, signals)
    return Outcome(handle, signals.ending or _ending(handle))


def _show_start(
    handle: OpenStudy, objective: Objective, display: Display, workers: Workers
) -> None:
    """What the first of several workers has to say."""
    if display.ahead is not None:
        display.ahead(said_at_start(handle, objective))
    display.start(handle)
    notice = streams_notice(workers.device(0)) if workers.streams > 1 else None
    if notice is not None:
        display.note(notice)


def _own_store(handle: OpenStudy) -> Artifacts:
    """The artifacts, marked as the study's where they are not where anybody would look."""
    config = handle.config
    store = open_artifacts(config.artifacts)
    if config.artifacts != default_artifacts(config.study, config.storage, config.folder):
        mark_artifacts(config.artifacts, identity_of(handle.study))
    return store


def _check_may_go_on(progress: Any, handle: OpenStudy, signals: Signals) -> None:
    """End the running trial after an epoch, if a signal came or the budget is used up.

    Raises:
        KeyboardInterrupt: Then, so that the trial is handed back.
    """
    if signals.ending is not None:  # Python drops what is raised inside some callbacks.
        raise KeyboardInterrupt
    budget = handle.config.budget
    if progress.epoch == progress.epochs or not limits_epochs(budget):
        return
    if not may_go_on(budget, handle.study.get_trials(deepcopy=False)):
        raise BudgetUsedUp


def _run_pool(config: StudyFile, display: Display, plan: WorkerPlan, data: _Data) -> Outcome:
    """Run a study in several processes of this machine."""
    check_gpus(plan)

    def make_pool(work: Work, events: PoolEvents) -> WorkerPool:
        return WorkerPool(
            work,
            count=plan.count,
            max_restarts=plan.workers.max_restarts,
            listen=events.listen,
            answer=display.interrupted,
        )

    events = PoolEvents(config, display, shares_gpus=plan.shares_gpus)
    return _run_workers(
        config, events, functools.partial(_work, config, plan.workers, data), make_pool
    )


def run_elsewhere(
    config: StudyFile,
    make_pool: PoolMaker,
    *,
    display: Display,
    workers: Workers,
    accept_changed_data: bool = False,
) -> Outcome:
    """Run a study with workers that are no processes of this machine.

    Args:
        config: The configuration, as `config_to_run` returns it.
        make_pool: Makes the workers, given what each does and who hears of it.
        display: What shows progress.
        workers: Their settings; the devices are those that they have where they are.
        accept_changed_data: As of `run`.

    Raises:
        UserError: As `run`.
        RunError: As `run`.
    """
    warn_of_kept_settings(config)
    data = _Data(accept_changed_data, None)
    work = functools.partial(_work, config, workers, data)
    return _run_workers(config, PoolEvents(config, display), work, make_pool)


def _run_workers(
    config: StudyFile, events: PoolEvents, work: Work, make_pool: PoolMaker
) -> Outcome:
    """Run a study with workers that tell what they do."""
    pool = make_pool(work, events)
    ending: Interruption | None = None
    try:
        ending = pool.run()
    except KeyboardInterrupt:  # The second Ctrl-C.
        ending = "interrupted"
    # Workers may have come further than this process, which was opening the study meanwhile.
    handle = events.opened or _opened_after_all(config)
    if handle is None:
        raise RunError(pool.lost) if pool.lost else KeyboardInterrupt
    # Of workers that were killed at last.
    trials = handle.study.get_trials(deepcopy=False)
    fail_dead(handle.study._storage, trials, config.max_retries)
    may_continue = not handle.is_finished and may_start(config.budget, trials)
    if ending is None and pool.lost and may_continue:
        raise RunError(f"{pool.lost}; nothing is lost: the same command goes on")
    return Outcome(handle, ending or _ending(handle))


def _opened_after_all(config: StudyFile) -> OpenStudy | None:
    """The study, if a worker has made it."""
    with contextlib.suppress(UserError):
        return open_study(config)
    return None


def _work(
    config: StudyFile, workers: Workers, data: _Data, number: int, send: SendEvent
) -> Interruption | None:
    """What a worker process does; its parent hears Ctrl-C for it."""
    outcome = _run_alone(
        config,
        WorkerDisplay(send),
        workers,
        data,
        number=number,
        heard=TAKEN_BACK,
        patient=True,  # Its siblings wait, too.
    )
    return outcome.ending if outcome.ending in ("interrupted", "terminated") else None


def _ending(handle: OpenStudy) -> Literal["finished", "budget"]:
    """Why there is nothing more to do."""
    if handle.is_finished:
        return "finished"
    trials = handle.study.get_trials(deepcopy=False)
    return "finished" if may_start(handle.config.budget, trials) else "budget"


def _warn_of_lost_weights(numbers: Sequence[int]) -> None:
    if numbers:
        warnings.warn(
            f"The weights of trials {', '.join(map(str, numbers))} are missing from the "
            "artifacts: no network can start from them any more; the search goes on from those "
            "that are left.",
            stacklevel=2,
        )


def warn_of_kept_settings(config: StudyFile) -> None:
    """Warn of what a study was made with that the file does not say, and is otherwise today."""
    if config.kept:
        warnings.warn(f"kept from when the study was made: {', '.join(config.kept)}", stacklevel=3)
