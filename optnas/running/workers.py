"""Several worker processes on one machine: started, listened to, replaced and ended."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import optuna

from optnas.errors import RunError, UserError
from optnas.running.signals import TAKEN_BACK, Interruption, Signals

SendEvent = Callable[[str, Any], None]
"""What a worker says: the name of an event, and what there is to know of it."""
Work = Callable[[int, SendEvent], Interruption | None]
"""What a worker does, given its number: a function at the top of a module. SIGTERM ends it."""

PATH, SAFE_PATH, OURS = "PYTHONPATH", "PYTHONSAFEPATH", "optnas"
"""The variable that has Python leave the folder it starts in alone, and our mark in it."""
WORKER_GRACE = 6.5
"""Seconds that workers have to end after SIGTERM."""


class Pool(Protocol):
    """Workers, wherever they are.

    Attributes:
        lost: What became of a worker that died and was not replaced, or None.
    """

    lost: str | None

    def run(self) -> Interruption | None:
        """Start the workers and wait for them: what ended them, or None at their own end."""
        ...


@dataclasses.dataclass
class _Worker:
    number: int
    process: BaseProcess
    connection: Connection
    has_ended: bool = False
    """Whether it said that it came to its end."""


class WorkerPool:
    """Processes that do the same work, until all of them come to their end.

    One that dies (killed, out of memory) is replaced; one that fails with an error ends the
    others. Ctrl-C and SIGTERM end all of them with SIGTERM, and with SIGKILL when they take too
    long or Ctrl-C comes a second time. Processes whose parent is killed end by themselves.

    Args:
        work: What each does.
        count: How many there are at the start.
        first: The number of the first of them.
        max_restarts: How many are replaced in all.
        listen: Called with a worker's number and what it tells.
        answer: As of `optnas.running.signals.Signals`.

    Attributes:
        lost: What became of a worker that died and was not replaced, or None.
    """

    def __init__(
        self,
        work: Work,
        *,
        count: int,
        max_restarts: int,
        listen: Callable[[int, str, Any], None],
        answer: Callable[[Interruption], None] = lambda ending: None,
        first: int = 0,
    ) -> None:
        self._work = work
        self._numbers = range(first, first + count)
        self._restarts = max_restarts
        self._max_restarts = max_restarts
        self._listen = listen
        self._answer = answer
        self.lost: str | None = None
        self._workers: list[_Worker] = []
        self._error: Exception | None = None
        self._deadline: float | None = None
        self._endings: list[Interruption | None] = []

    def run(self) -> Interruption | None:
        """Start the workers and wait for them.

        Returns:
            What ended them, or None if they came to their end.

        Raises:
            UserError: If a worker was given bad input.
            RunError: If a worker failed.
        """
        signals = Signals(self.end, patience=None, answer=self._answer)
        with signals:
            try:
                for number in self._numbers:
                    self._start(number)
                while self._workers:
                    self._wait()
            finally:
                for worker in self._workers:  # A second Ctrl-C, or what `listen` raised.
                    worker.process.kill()
                    worker.process.join()
        if signals.ending is not None:
            return signals.ending
        if self._error is not None:
            raise self._error
        return "terminated" if set(self._endings) == {"terminated"} else None

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return [worker.process.pid for worker in self._workers if worker.process.pid]

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_begin, args=(self._work, number, theirs), name=f"worker {number}"
        )
        with _deaf_to_interrupts(), _installed_modules_first():
            process.start()
        theirs.close()
        self._workers.append(_Worker(number, process, ours))
        if self._deadline is not None:  # A signal came while it was started.
            process.terminate()

    def _wait(self) -> None:
        """Wait until a worker says something or ends, for a second at most."""
        for worker in list(self._workers):
            if self._deadline is not None and time.monotonic() > self._deadline:
                worker.process.kill()
        waited_for = [m.connection for m in self._workers]
        ready = wait([*waited_for, *(m.process.sentinel for m in self._workers)], timeout=1.0)
        for worker in list(self._workers):
            if worker.connection in ready or worker.process.sentinel in ready:
                self._hear(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            while worker.connection.poll():
                self._take(worker, *worker.connection.recv())
        except (EOFError, ConnectionError):
            worker.process.join(1.0)  # It is about to end.
        if not worker.process.is_alive():
            worker.process.join()
            worker.connection.close()
            self._workers.remove(worker)
            if not worker.has_ended:
                self._lose(worker)

    def _take(self, worker: _Worker, event: str, value: Any) -> None:
        if event == "end":
            worker.has_ended = True
            self._endings.append(value)
        elif event == "error":
            worker.has_ended = True
            self._fail(value)
        elif event == "warning":
            warnings.warn(value, stacklevel=2)
        else:
            self._listen(worker.number, event, value)

    def _lose(self, worker: _Worker) -> None:
        """See to a worker that ended without a word."""
        code = worker.process.exitcode or 0
        if self._deadline is not None:
            return
        if -code in TAKEN_BACK:  # Somebody wanted it to end, before it could say so.
            self._endings.append("terminated")
        elif code >= 0:
            self._fail(RunError(f"worker {worker.number} failed; its error is above"))
        elif self._restarts > 0:
            self._restarts -= 1
            nth = f"{self._max_restarts - self._restarts} of at most {self._max_restarts}"
            warnings.warn(
                f"worker {worker.number} was killed ({_name(-code)}); another takes its place "
                f"({nth})",
                stacklevel=2,
            )
            self._start(worker.number)
        else:
            self.lost = f"worker {worker.number} was killed ({_name(-code)}) and not replaced"
            warnings.warn(f"{self.lost}; no restarts are left", stacklevel=2)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.end()

    def end(self) -> None:
        """Let all workers end, as at SIGTERM."""
        self._deadline = self._deadline or time.monotonic() + WORKER_GRACE
        for worker in self._workers:
            worker.process.terminate()


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


@contextlib.contextmanager
def _deaf_to_interrupts() -> Any:
    """Processes started inside never hear Ctrl-C, which goes to all processes of a terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _installed_modules_first() -> Iterator[None]:
    """Processes started inside import nothing from the current folder in place of Python's own."""
    path, before = list(sys.path), {n: os.environ.get(n) for n in (SAFE_PATH, PATH)}
    if not before[SAFE_PATH]:
        os.environ[SAFE_PATH] = OURS
    if (
        modules := before[PATH]
    ) is not None:  # An empty entry, which a stray colon makes, is that folder.
        os.environ[PATH] = os.pathsep.join(_elsewhere(modules.split(os.pathsep)))
    elsewhere = _elsewhere(path)  # What a process has of it comes last in those it starts.
    sys.path[:] = [*elsewhere, *(entry for entry in path if entry not in elsewhere)]
    try:
        yield
    finally:
        sys.path[:] = path
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _elsewhere(entries: Iterable[str]) -> list[str]:
    """The entries of a path of modules that are not the current folder."""
    here = os.path.realpath(os.getcwd())
    return [entry for entry in entries if os.path.realpath(entry or here) != here]


def _begin(work: Work, number: int, connection: Connection) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.get(SAFE_PATH) == OURS:
        del os.environ[SAFE_PATH]  # What a training starts is not ours to change.
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    turn = threading.Lock()  # What trains is told from a thread of its own.

    def tell(event: str, value: Any) -> None:
        # Without a parent: `_end_with_parent`.
        with turn, contextlib.suppress(ConnectionError):
            connection.send((event, value))

    def warn(message: Warning | str, *_details: Any, **_options: Any) -> None:
        tell("warning", str(message))

    warnings.showwarning = warn
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        ending = work(number, tell)
    except UserError as error:
        tell("error", UserError(str(error)))
        sys.exit(1)
    except RunError as error:
        tell("error", error)
        sys.exit(1)
    tell("end", ending)


def _end_with_parent() -> None:
    """End the work of a process whose parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
