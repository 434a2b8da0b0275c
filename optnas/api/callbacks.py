"""Callbacks: what is called with every trial that has finished, in Optuna's own protocol."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optnas.errors import UserError
from optnas.running.events import Display
from optnas.running.signals import Interruption
from optnas.study.opening import OpenStudy
from optnas.study.record import metric_of

Callback = Callable[[optuna.Study, FrozenTrial], None]


def called(shown: Display | None, callbacks: Sequence[Callback]) -> Display | None:
    """What shows a run and calls back; what shows it alone if there is nothing to call."""
    return Called(shown or Display(), callbacks) if callbacks else shown


class Called(Display):
    """A display that calls back with every trial, and shows what another one shows.

    With several workers this is the process that started them, which hears of their trials.

    Args:
        shown: What shows the run.
        callbacks: What is called with the study and a trial that has finished.
    """

    def __init__(self, shown: Display, callbacks: Sequence[Callback]) -> None:
        self.ahead = shown.ahead
        self.pulse = shown.pulse
        self._shown = shown
        self._callbacks = callbacks
        self._study: optuna.Study | None = None

    def start(self, handle: OpenStudy) -> None:
        self._study = handle.study
        self._shown.start(handle)

    def epoch(self, progress: Any, worker: int) -> None:
        self._shown.epoch(progress, worker)

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        if self._shown.trial is not None:
            self._shown.trial(trial, worker)
        assert self._study is not None
        for callback in self._callbacks:
            callback(self._study, trial)

    def note(self, text: str) -> None:
        self._shown.note(text)

    def interrupted(self, ending: Interruption) -> None:
        self._shown.interrupted(ending)


class TensorBoardCallback:
    """Writes every trial as a run of TensorBoard: its curve, its parameters and its value.

    Parameters and value are a run ``result`` within that of the trial.

    Args:
        folder: Where the runs are written, one folder for each trial.

    Raises:
        UserError: If tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError("TensorBoard needs `pip install optnas[tensorboard]`") from None
        self._folder = Path(folder)
        self._writer = SummaryWriter

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Write a trial that has finished."""
        metric = metric_of(study).key
        run = self._folder / f"trial-{trial.number:05}"
        with self._writer(str(run)) as writer:
            for epoch, value in sorted(trial.intermediate_values.items()):
                writer.add_scalar(metric, value, epoch)
            if trial.value is not None:
                params = {name: str(value) for name, value in trial.params.items()}
                writer.add_hparams(params, {"value": trial.value}, name="result")
