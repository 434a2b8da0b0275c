"""A worker on a node of a Ray cluster: a process that trains, and an actor that answers for it.

The actor is detached: it goes on when whoever started it is gone, and Ray starts it again,
somewhere else if need be, when it dies. Ray itself is not imported here but by Ray's workers.
"""

import collections
import dataclasses
import os
import pickle
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Mapping
from typing import Any

from optnas.clusters.versions import check_versions
from optnas.errors import RunError, UserError
from optnas.running.signals import Interruption
from optnas.running.workers import SendEvent, Work, WorkerPool
from optnas.trials.leases import this_host

KEPT = 1000
"""Events that are kept for whoever asks."""
PATIENCE = 2.0
"""Seconds for which a question waits for something to be told."""
LINGER = 30.0
"""Seconds for which a worker that came to its end waits to be asked."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What all workers of a run have in common.

    Args:
        digest: Of the study, its settings and the code: other runs have others.
        versions: What must be installed alike.
        host: The machine of whoever started it, as leases name it.
        storage: The storage's URL.
        artifacts: Where artifacts are.
        max_restarts: How many processes that died an actor replaces.
    """

    digest: str
    versions: Mapping[str, str]
    host: str
    storage: str
    artifacts: str
    max_restarts: int


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a worker is.

    Args:
        life: Another one after every start.
        digest: Of the job that it does.
        node: The node's address.
        host: The machine, as leases name it.
        log: The file on that machine where whatever it prints goes.
    """

    life: str
    digest: str
    node: str
    host: str
    log: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a worker has to tell.

    Args:
        place: Where it is.
        pid: The process that trains; None if there is none.
        events: Names and values, as of `optnas.running.workers.SendEvent`.
        told: How many events there were so far: to be asked with the next time.
        outcome: Once it came to its end ``("end", what ended it)``, ``("error", the error)``, or
            ``("lost", what became of it)`` if its process died too often.
    """

    place: Place
    pid: int | None
    events: list[tuple[str, Any]]
    told: int
    outcome: tuple[str, Any] | None


class Packed:
    """What a worker does, pickled: only the process that does it imports what it needs."""

    def __init__(self, work: Work) -> None:
        self._pickled = pickle.dumps(work)

    def __call__(self, number: int, send: SendEvent) -> Interruption | None:
        work: Work = pickle.loads(self._pickled)
        return work(number, send)


class Worker:
    """The actor.

    Args:
        number: The worker's number.
        work: What it does.
        job: What it has in common with others.
    """

    def __init__(self, number: int, work: Work, job: Job) -> None:
        self._place = Place(uuid.uuid4().hex, job.digest, _node(), this_host(), _log())
        self._number, self._work, self._job = number, work, job
        self._news = threading.Condition()
        self._events: collections.deque[tuple[int, str, Any]] = collections.deque(maxlen=KEPT)
        self._first: dict[str, Any] = {}
        self._told = 0
        self._outcome: tuple[str, Any] | None = None
        self._is_ending = False
        self._pool: WorkerPool | None = None
        # A process that is started would import what this one began with: Ray's own main module.
        vars(sys.modules["__main__"]).pop("__file__", None)
        warnings.showwarning = self._warn
        threading.Thread(target=self._run, daemon=True).start()

    def answer(self, told: int | None) -> Answer:
        """What happened since ``told`` events; None asks for the first time.

        Waits a little if it is nothing.
        """
        with self._news:
            if told is None:
                events, told = [*self._first.items(), *self._since(self._told - 1)], self._told
            else:
                known = told
                self._news.wait_for(lambda: self._told > known or self._outcome, PATIENCE)
                events, told = self._since(known), self._told
            return Answer(self._place, self._pid(), events, told, self._outcome)

    def end(self) -> None:
        """Have what trains handed back, and end."""
        self._is_ending = True
        if self._pool is not None:
            self._pool.end()

    def _since(self, told: int) -> list[tuple[str, Any]]:
        return [(event, value) for index, event, value in self._events if index > told]

    def _pid(self) -> int | None:
        return next(iter(self._pool.pids), None) if self._pool is not None else None

    def _run(self) -> None:
        outcome: tuple[str, Any]
        try:
            outcome = self._search()
        except UserError as error:
            outcome = ("error", UserError(str(error)))
        except RunError as error:
            outcome = ("error", error)
        except BaseException as error:
            outcome = ("error", RunError(f"worker {self._number} failed: {error!r}"))
        if outcome == ("end", "terminated") and not self._is_ending:
            os._exit(1)  # The node is taken back: Ray starts this worker again elsewhere.
        with self._news:
            self._outcome = outcome
            self._news.notify_all()
        if outcome[0] != "end":
            print(f"optnas: {outcome[1]}", file=sys.stderr, flush=True)
        time.sleep(LINGER)
        _leave()

    def _search(self) -> tuple[str, Any]:
        job = self._job
        check_versions(job.versions, self._place.node)
        if self._place.host != job.host:
            from optnas.clusters.reach import check_reach

            check_reach(job.storage, job.artifacts, self._place.node)
        self._pool = pool = WorkerPool(
            self._work,
            count=1,
            first=self._number,
            max_restarts=job.max_restarts,
            listen=lambda _number, event, value: self._listen(event, value),
        )
        if self._is_ending:
            return "end", "terminated"
        ending = pool.run()
        return ("end", ending) if pool.lost is None or ending is not None else ("lost", pool.lost)

    def _listen(self, event: str, value: Any) -> None:
        with self._news:
            self._told += 1
            if event in ("ahead", "start"):
                self._first[event] = value
            self._events.append((self._told, event, value))
            self._news.notify_all()

    def _warn(self, message: Warning | str, *_details: Any, **_options: Any) -> None:
        self._listen("warning", str(message))


def _node() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _log() -> str:
    try:
        return os.readlink("/proc/self/fd/2")
    except OSError:  # Not on Linux.
        return ""


def _leave() -> None:
    """End this actor for good: Ray does not start it again."""
    import ray

    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)
