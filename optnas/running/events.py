"""What a run tells whoever shows it: the display, and how worker processes come to it."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from optnas.config.file import StudyFile
from optnas.running import heart
from optnas.running.placement import gpu_sharing_notice
from optnas.running.signals import Interruption
from optnas.running.workers import SendEvent
from optnas.study.opening import OpenStudy, open_study


class Display:
    """What shows a run to whoever watches: nothing, but for what a subclass overrides.

    ``worker`` is a worker's number, from 0.

    Attributes:
        ahead: A method that is told before the start what the search may take, a line. None does
            without, so that nothing is forecast.
        pulse: A method that is told every second, from another thread, what a worker trains
            (`optnas.running.heart.Beat`). None does without, so that no thread is started.
        trial: A method that is told of every trial that has finished. None does without, so that
            none is looked up.
    """

    ahead: Callable[[str], None] | None = None
    pulse: heart.Beat | None = None
    trial: Callable[[FrozenTrial, int], None] | None = None

    def start(self, handle: OpenStudy) -> None:
        """The study is open."""

    def epoch(self, progress: Any, worker: int) -> None:
        """A trial has finished an epoch."""

    def note(self, text: str) -> None:
        """A line between the trials: what was decided about the workers, or where they are."""

    def interrupted(self, ending: Interruption) -> None:
        """Ctrl-C or SIGTERM was heard; called from another thread."""


class WorkerDisplay(Display):
    """The display of a worker process: tells its parent."""

    def __init__(self, send: SendEvent) -> None:
        self._send = send

    def start(self, handle: OpenStudy) -> None:
        self._send("start", None)

    def epoch(self, progress: Any, worker: int) -> None:
        self._send("epoch", dict(vars(progress)))

    def ahead(self, text: str) -> None:
        self._send("ahead", text)

    def pulse(self, pulses: Sequence[Mapping[str, Any]], worker: int) -> None:
        self._send("pulse", pulses)

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._send("trial", trial.number)

    def note(self, text: str) -> None:
        self._send("note", text)


class PoolEvents:
    """Shows what worker processes tell.

    Args:
        config: The study.
        display: Shows it.
        shares_gpus: Whether several of them are on one GPU of this machine.

    Attributes:
        opened: The study, once a worker has made or opened it.
    """

    def __init__(self, config: StudyFile, display: Display, *, shares_gpus: bool = False) -> None:
        self.opened: OpenStudy | None = None
        self._config = config
        self._display = display
        self._shares_gpus = shares_gpus

    def listen(self, worker: int, event: str, value: Any) -> None:
        if event == "ahead":
            if self.opened is not None:  # Another worker was faster.
                self.note(value)
            elif self._display.ahead is not None:
                self._display.ahead(value)
            return
        if event == "pulse":
            if self._display.pulse is not None:
                self._display.pulse(value, worker)
            return
        if self.opened is None:
            self.opened = open_study(self._config)
            self._display.start(self.opened)
            if self._shares_gpus:
                self.note(gpu_sharing_notice())
        if event == "epoch":
            self._display.epoch(types.SimpleNamespace(**value), worker)
        elif event == "note":
            self.note(value)
        elif event == "trial" and self._display.trial is not None:
            study = self.opened.study
            storage, known = study._storage, study._study_id
            trial_id = storage.get_trial_id_from_study_id_trial_number(known, value)
            self._display.trial(storage.get_trial(trial_id), worker)

    def note(self, text: str) -> None:
        """Show a decision."""
        self._display.note(text)
