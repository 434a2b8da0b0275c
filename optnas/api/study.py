"""A study as Python and notebooks see it: a method for every command."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from optnas.api.answers import Answer, ShownOutcome, command_target
from optnas.api.callbacks import Callback, called
from optnas.api.notebook import display_of, epochs_shown
from optnas.config.file import StudyFile
from optnas.config.settings import DataSettings
from optnas.errors import UserError
from optnas.extensions.importing import load_part
from optnas.report.costs import Footprint, network_costs
from optnas.report.files import write_report
from optnas.report.text import status_fields, status_text
from optnas.running import runner
from optnas.running.retraining import RetrainReport, retrain_found
from optnas.running.signals import heard
from optnas.study.folders import network_folder
from optnas.study.opening import (
    Conclusion,
    OpenStudy,
    conclusions,
    config_to_run,
    open_existing,
    open_study,
)


def run(
    config: StudyFile | Mapping[str, Any] | str | Path,
    *,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> ShownOutcome:
    """Run a study without showing progress: see ``optnas.run``."""
    outcome = runner.run(config, display=called(None, callbacks), device=device)
    return ShownOutcome(outcome.opened, outcome.ending)


class Study:
    """A study, which need not have begun: ``optnas.open`` makes it.

    Every method opens the study anew, so that it sees what other processes did.

    Args:
        target: The path of a study file, a mapping with its keys, or the URL of a storage.
        name: The study's name, if ``target`` is a storage with several.
        allow: Code that may be imported though a storage names it: ``module:Name``.
    """

    def __init__(
        self,
        target: Mapping[str, Any] | str | Path,
        name: str | None = None,
        *,
        allow: Collection[str] = (),
    ) -> None:
        self._target = target if isinstance(target, Mapping) else str(target)
        self._name = name
        self._allow = tuple(allow)

    @property
    def optuna(self) -> optuna.Study:
        """The study as Optuna knows it.

        Raises:
            UserError: If it has not begun.
        """
        return self._open().study

    def run(
        self,
        *,
        device: str | None = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        accept_changed_data: bool = False,
    ) -> ShownOutcome:
        """Search, or go on with the search, until it ends or its budget is used up.

        With more than one worker a script must call this under ``if __name__ == "__main__":``.

        Args:
            device: A torch device, where the study's ``workers`` name none; None takes CUDA where
                there is one.
            callbacks: Called with the Optuna study and every trial that has finished, as those of
                ``optuna.Study.optimize`` are.
            progress: Whether to show it: in a notebook as a view that leaves one line.
            accept_changed_data: Whether to go on with other images than the study has seen.

        Returns:
            How the run ended; a notebook shows the network found.

        Raises:
            KeyboardInterrupt: If it was interrupted, so that no later cell runs. Nothing is lost:
                the same call goes on.
            UserError: If the configuration or the data is wrong. Nothing was created.
            RunError: If trials could not go on because of the machine. Nothing is lost.
        """
        with display_of(progress) as shown:
            outcome = runner.run(
                self._config(),
                display=called(shown, callbacks),
                device=device,
                accept_changed_data=accept_changed_data,
            )
        if outcome.ending == "interrupted":
            raise KeyboardInterrupt("nothing is lost: the same call goes on")
        return ShownOutcome(outcome.opened, outcome.ending)

    def status(self) -> Answer:
        """How far the search is: the fields of ``optnas status --json``, shown as its text."""
        handle = self._open(reading=True)
        return Answer(status_fields(handle), status_text(handle))

    def best(self) -> Conclusion | None:
        """The network found, or the best so far; None if none could be trained yet."""
        return next(iter(conclusions(self._open(reading=True))), None)

    def report(self, output: str | Path | None = None, *, inference: bool = True) -> Path:
        """Write the search as one page to send, and its trials as a CSV file beside it.

        Args:
            output: The page, as HTML, or as Markdown if its name ends with ``.md``; None puts an
                HTML page beside the storage.
            inference: Whether to time the most accurate networks on this machine's CPU.

        Returns:
            The page.
        """
        handle = self._open(reading=True)
        costs = network_costs(handle, Footprint(), timed=inference)
        place = None if output is None else Path(output)
        return write_report(handle, command_target(handle), costs, place)[0]

    def retrain(
        self,
        *,
        epochs: int | None = None,
        top: int | None = None,
        repeats: int | None = None,
        trial: int | None = None,
        channels: int | None = None,
        data: DataSettings | None = None,
        ensemble: bool = False,
        output: str | Path | None = None,
        device: str | None = None,
        progress: bool = True,
        accept_changed_data: bool = False,
    ) -> list[Answer]:
        """Train what was found on all training images, test it once, and keep it.

        Args:
            epochs: Number of epochs; None takes the study file's.
            top: Number of networks, best first; None takes the study file's.
            repeats: Trainings of each network, with seeds of their own.
            trial: Number of a trial whose network is trained instead.
            channels: Channels of the first layers; None leaves those it was found with.
            data: Images to train on and to test with instead of the study's.
            ensemble: Whether to average the probabilities of all that was trained.
            output: The network's folder; None puts it beside the storage.
            device: A torch device; None takes CUDA where there is one.
            progress: Whether to show the epochs.
            accept_changed_data: Whether to train on other images than the study has seen.

        Returns:
            For every training its fields, ``test_accuracy`` and ``folder`` among them, shown as
            ``optnas retrain`` shows them.

        Raises:
            KeyboardInterrupt: If it was interrupted; it says what is kept. The same call goes on.
            UserError: If there is no network yet, or the data cannot be had.
        """
        with epochs_shown(progress) as on_epoch, heard():
            reports = retrain_found(
                self._open(),
                epochs=epochs,
                top=top,
                repeats=repeats,
                trial=trial,
                channels=channels,
                data=data,
                ensemble=ensemble,
                output=None if output is None else Path(output),
                device=device,
                accept_changed_data=accept_changed_data,
                on_epoch=on_epoch,
            )
            return list(map(_answer, reports))

    def predict(self, images: Any, *, top: int = 1, device: str = "cpu") -> Any:
        """What the network that ``retrain`` kept sees in images.

        Args:
            images: A file, a folder, a list of them, a picture, an array or a tensor.
            top: Most probable classes to name.
            device: A torch device.

        Raises:
            UserError: If no network was kept beside the storage.
        """
        return load_part("load")(self._network(), device).predict(images, top=top)

    def export(self, form: str, output: str | Path | None = None, **options: Any) -> Any:
        """Write the network that ``retrain`` kept for other programs and devices.

        Args:
            form: ``onnx``, ``torch``, ``openvino``, ``executorch`` or ``python``.
            output: The file; None puts one into the network's folder.
            options: ``images``, ``raw`` and ``int8``, as of ``optnas export``.

        Returns:
            What was written, and how near it is to the network.

        Raises:
            UserError: If no network was kept, or it cannot be written so.
        """
        path = None if output is None else Path(output)
        return load_part("export")(self._network(), form, path, **options)

    def __repr__(self) -> str:
        return f"optnas.open({self._target!r})"

    def _repr_html_(self) -> str | None:
        """For notebooks: how far the search is."""
        try:
            return self.status()._repr_html_()
        except UserError as error:
            return Answer({}, str(error))._repr_html_()

    def _config(self) -> StudyFile | Mapping[str, Any] | str:
        """What is run; a study in a storage alone must exist."""
        if isinstance(self._target, str) and "://" in self._target:
            return self._open().config
        return self._target

    def _open(self, *, reading: bool = False) -> OpenStudy:
        if isinstance(self._target, Mapping):
            return open_study(config_to_run(self._target))
        return open_existing(self._target, self._name, allow=self._allow, reading=reading)

    def _network(self) -> str:
        folder = network_folder(self._open())
        if not Path(folder).is_dir():
            raise UserError(f"no network was kept in {folder} yet; `retrain` trains and keeps it")
        return folder


def _answer(report: RetrainReport) -> Answer:
    return Answer(report.fields, report.text)
