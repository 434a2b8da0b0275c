"""What `optnas rank` and `optnas compare` share: studies made from a study file, and tables."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from optnas.config.file import StudyFile
from optnas.config.keys import Workers
from optnas.errors import UserError
from optnas.pages.content import Page, Table
from optnas.pages.frame import render, write_page
from optnas.running.events import Display
from optnas.running.runner import run
from optnas.trials.claims import is_feasible
from optnas.units import aligned

R = TypeVar("R")


class Stopped(Exception):
    """The experiment was interrupted; nothing is lost, and running it again goes on.

    Args:
        ending: ``interrupted`` (Ctrl-C) or ``terminated`` (SIGTERM).
    """

    def __init__(self, ending: Literal["interrupted", "terminated"]) -> None:
        super().__init__(ending)
        self.ending = ending


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What came of an experiment.

    Args:
        fields: For programs: JSON values.
        text: For people: tables.
        page: The same as a page, with plots.
    """

    fields: dict[str, Any]
    text: str
    page: Page

    def write(self, folder: Path, name: str) -> None:
        """Write ``name.json``, ``name.txt`` and ``name.html`` into ``folder``, made if absent.

        Raises:
            UserError: If they cannot be written.
        """
        contents = {"json": json.dumps(self.fields, indent=2), "txt": self.text}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for ending, content in contents.items():
                (folder / f"{name}.{ending}").write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None
        write_page(folder / f"{name}.html", render(self.page))


class _Watcher(Display):
    """Shows nothing, but has every finished trial looked at."""

    def __init__(self, check: Callable[[FrozenTrial], None]) -> None:
        self._check = check

    def trial(self, trial: FrozenTrial, worker: int) -> None:
        self._check(trial)


def finish_study(
    config: StudyFile,
    device: str | None,
    check: Callable[[FrozenTrial], None] = lambda trial: None,
) -> optuna.Study:
    """Run a study to its end, together with other processes that do so.

    Args:
        config: The study.
        device: A torch device; None takes CUDA where there is one.
        check: Called with every trial that is finished; what it raises ends the study.

    Raises:
        Stopped: If it was interrupted.
        UserError: As ``optnas.running.runner.run``.
    """
    # One worker, whatever the file says: these studies are compared, and run side by side.
    outcome = run(config, device=device, display=_Watcher(check), workers=Workers(count=1))
    if outcome.ending in ("interrupted", "terminated"):
        raise Stopped(outcome.ending)
    return outcome.study


def run_all(
    configs: Sequence[StudyFile], work: Callable[[StudyFile], R], processes: int
) -> Iterator[tuple[StudyFile, R]]:
    """Do the work of studies, some at once; yields each with its result when it is finished.

    Args:
        configs: The studies.
        work: Takes a study to its end; it and its results can be pickled.
        processes: How many run at once, each in a process of its own; 1 stays in this one.

    Raises:
        Stopped: If one was interrupted; the others then end too.
        UserError: As ``work``.
    """
    if processes == 1:
        for config in configs:
            yield config, work(config)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_start_worker) as pool:
        # No more than can run, so that none is started after an interruption.
        waiting = iter(configs)
        running = {
            pool.submit(work, config): config for config in itertools.islice(waiting, processes)
        }
        try:
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
                    for config in itertools.islice(waiting, 1):
                        running[pool.submit(work, config)] = config
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # SIGTERM, on which a run hands its trial back.
            raise


def run_to_end(
    config: StudyFile, *, device: str | None, check: Callable[[FrozenTrial], None]
) -> None:
    """``finish_study``, but the study itself does not leave its process."""
    finish_study(config, device, check)


def _start_worker() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    # Ctrl-C reaches every process of a terminal; between two studies it is the parent's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As an exception, so that no lock of a storage is left behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever for its next study."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        while True:  # Once to end the study, and once more to end the process.
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)


def is_result(trial: FrozenTrial) -> bool:
    """Whether a trial trained a feasible network to its end."""
    return trial.state == TrialState.COMPLETE and is_feasible(trial)


def table_text(table: Table) -> str:
    """Columns as wide as their widest cell: text on the left, numbers on the right."""
    texts = [place for place, column in enumerate(table.columns) if column.text]
    return "\n".join(aligned([[c.heading for c in table.columns], *table.rows], left=texts))


def number(value: float | None, digits: int = 3) -> str:
    """A number of a table: ``-`` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval of a table."""
    return "-" if low is None else f"[{number(low, digits)}, {number(high, digits)}]"


def finite(value: float) -> float | None:
    """``value`` as JSON has it: None for NaN and the infinities."""
    return value if abs(value) < float("inf") else None
