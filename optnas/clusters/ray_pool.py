"""The workers of a run on a Ray cluster, seen from where it was started."""

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

from optnas.clusters.ray_worker import Answer, Job, Packed, Place, Worker
from optnas.errors import RunError
from optnas.running.events import PoolEvents
from optnas.running.signals import Interruption, Signals
from optnas.running.workers import Work
from optnas.trials.failures import fail_those_of
from optnas.units import plural

NAMESPACE = "optnas"
"""That of the actors, in which anybody's driver finds them."""
GRACE = 12.0
"""Seconds that workers have to hand back what they train."""
AGAIN = 1.0
"""Seconds after which a worker that is being started again is asked again."""
WAITING = 10.0
"""Seconds after which it is said that there is no room for workers."""


@dataclasses.dataclass
class _Seen:
    """A worker, and what is known of it."""

    number: int
    actor: Any
    place: Place | None = None
    """Where it is; None before Ray has found a node for it."""
    pid: int | None = None
    told: int | None = None
    ask_at: float = 0.0
    is_over: bool = False


class RayPool:
    """Ray actors that do the same work, until all of them come to their end.

    Those that a run before this one left behind are taken over as they are, unless they do
    something else. Ray places them where there is room, and starts those again that die, or
    whose node is gone. Ctrl-C and SIGTERM end all of them. If this process is killed, they go on.

    Args:
        work: What each does.
        job: What they have in common.
        name: Begins the names of the actors.
        count: How many there are, at most.
        options: Of an actor: what it needs, and what travels with it.
        events: Hear of what they tell, and are noted.
        answer: As of `optnas.running.signals.Signals`.
        max_retries: How often a candidate is tried again whose worker is lost.

    Attributes:
        lost: What became of a worker that died too often, or None.
    """

    def __init__(
        self,
        work: Work,
        job: Job,
        *,
        name: str,
        count: int,
        options: dict[str, Any],
        events: PoolEvents,
        answer: Callable[[Interruption], None],
        max_retries: int,
    ) -> None:
        self._work = Packed(work)
        self._job = job
        self._name = name
        self._count = count
        self._options = options
        self._events = events
        self._answer = answer
        self._max_retries = max_retries
        self.lost: str | None = None
        self._workers: list[_Seen] = []
        self._asked: dict[Any, _Seen] = {}
        self._error: Exception | None = None
        self._endings: list[Interruption | None] = []
        self._is_asked_to_end = False
        self._deadline: float | None = None
        self._began = time.monotonic()
        self._waiting = 0

    def run(self) -> Interruption | None:
        """Start the workers, or take them over, and wait for them.

        Returns:
            What ended them, or None if they came to their end.

        Raises:
            UserError: If a worker was given bad input.
            RunError: If a worker failed, or the cluster is gone.
        """
        signals = Signals(self._ask_to_end, patience=None, answer=self._answer)
        with signals:
            try:
                self._begin()
                while not self._is_over():
                    self._wait()
            finally:
                self._kill(self._workers)
        if signals.ending is not None:
            return signals.ending
        if self._error is not None:
            raise self._error
        return "terminated" if set(self._endings) == {"terminated"} else None

    def _begin(self) -> None:
        import ray

        named = ray.util.list_named_actors(all_namespaces=True)
        ours = {
            each["name"].removeprefix(self._name)
            for each in named
            if each["namespace"] == NAMESPACE and each["name"].startswith(self._name)
        }
        more = sorted(int(number) for number in ours if int(number) >= self._count)
        if ours:
            self._events.note(f"{plural(len(ours), 'worker')} of this study found at work")
        for number in more:  # There were to be more than now.
            self._discard(ray.get_actor(f"{self._name}{number}", namespace=NAMESPACE))
        for number in range(self._count):
            self._workers.append(_Seen(number, self._actor(number)))

    def _actor(self, number: int) -> Any:
        """The actor with a number: a new one, if there is none."""
        import ray

        options = {
            **self._options,
            "name": f"{self._name}{number}",
            "namespace": NAMESPACE,
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_concurrency": 8,
        }
        return ray.remote(Worker).options(**options).remote(number, self._work, self._job)

    def _is_over(self) -> bool:
        """Whether all have ended, or those have that were placed and there is nothing left."""
        left = [worker for worker in self._workers if not worker.is_over]
        if None in self._endings:  # One that finds no work left speaks for those still to come.
            left = [worker for worker in left if worker.place is not None]
        return not left

    def _wait(self) -> None:
        """Wait until a worker tells something, for a second at most."""
        import ray

        self._see_to_end()
        self._say_who_waits()
        asked = {worker.number for worker in self._asked.values()}
        for worker in self._workers:
            is_due = time.monotonic() >= worker.ask_at and worker.number not in asked
            if is_due and not worker.is_over:
                self._asked[worker.actor.answer.remote(worker.told)] = worker
        if not self._asked:
            time.sleep(0.1)
            return
        ray.wait(list(self._asked), num_returns=1, timeout=1.0)
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for reference in ready:
            self._hear(self._asked.pop(reference), reference)

    def _hear(self, worker: _Seen, reference: Any) -> None:
        import ray

        try:
            answer: Answer = ray.get(reference)
        except ray.exceptions.ActorDiedError as error:
            self._bury(worker, error)
        except ray.exceptions.RayActorError:
            self._lose(worker, "Ray starts it again where there is room")
        except ray.exceptions.RayError as error:
            raise RunError(f"the cluster does not answer: {_reason(error)}") from error
        else:
            self._take(worker, answer)

    def _take(self, worker: _Seen, answer: Answer) -> None:
        place = answer.place
        if place.digest != self._job.digest:
            text = "does what this run does not ask for: it hands its trial back and begins anew"
            self._events.note(f"worker {worker.number} {text}")
            self._discard(worker.actor)
            worker.actor, worker.told = self._actor(worker.number), None
            return
        if worker.place is None or worker.place.life != place.life:
            if worker.place is not None:
                self._lose(worker, "it was started again")
            log = f", log {place.log}" if place.log else ""
            self._events.note(f"worker {worker.number} is on {place.node}{log}")
        worker.place, worker.pid, worker.told = place, answer.pid or worker.pid, answer.told
        for event, value in answer.events:
            if event == "warning":
                warnings.warn(value, stacklevel=2)
            else:
                self._events.listen(worker.number, event, value)
        if answer.outcome is not None:
            self._end(worker, *answer.outcome)

    def _end(self, worker: _Seen, how: str, value: Any) -> None:
        worker.is_over = True
        if how == "end":
            self._endings.append(value)
        elif how == "lost":
            self.lost = value
            warnings.warn(f"{value}; no restarts are left", stacklevel=2)
        else:
            self._error = self._error or value
            self._ask_to_end()

    def _lose(self, worker: _Seen, what: str) -> None:
        """Say that a worker is gone, and have its trial gone on with."""
        worker.ask_at = time.monotonic() + AGAIN
        place, pid = worker.place, worker.pid
        worker.place = worker.pid = worker.told = None
        if place is None:
            return
        warnings.warn(f"worker {worker.number} on {place.node} was lost; {what}", stacklevel=2)
        handle = self._events.opened
        if handle is not None and pid is not None:
            trials = handle.study.get_trials(deepcopy=False)
            storage = handle.study._storage
            fail_those_of(storage, trials, self._max_retries, place.host, pid)

    def _bury(self, worker: _Seen, error: Exception) -> None:
        """See to a worker that Ray does not start again."""
        worker.is_over = True
        if "creation task" in str(error) or "runtime" in str(error).lower():
            self._error = self._error or RunError(
                f"worker {worker.number} could not be started: {_reason(error)}"
            )
            self._ask_to_end()
            return
        # Somebody else who watches has ended it: all was done, or it was interrupted there.
        self.lost = self.lost or "another who runs this study has ended its workers"

    def _ask_to_end(self) -> None:
        self._is_asked_to_end = True  # A signal may come anywhere within Ray.

    def _see_to_end(self) -> None:
        """Have all workers end, once that is asked for; kill those that take too long."""
        if not self._is_asked_to_end:
            return
        left = [worker for worker in self._workers if not worker.is_over]
        if self._deadline is None:
            self._deadline = time.monotonic() + GRACE
            for worker in left:
                if worker.place is not None:
                    worker.actor.end.remote()
        late = time.monotonic() > self._deadline
        gone = [worker for worker in left if worker.place is None or late]
        self._kill(gone)
        for worker in gone:
            worker.is_over = True

    def _say_who_waits(self) -> None:
        left = [worker for worker in self._workers if not worker.is_over]
        waiting = sum(worker.place is None for worker in left)
        is_time = time.monotonic() - self._began > WAITING
        if is_time and waiting != self._waiting:
            self._waiting = waiting
            at_work = plural(len(left) - waiting, "worker")
            self._events.note(f"{at_work} at work, {waiting} waiting for room in the cluster")

    def _discard(self, actor: Any) -> None:
        """End a worker that is not wanted any more; what it trains is handed back."""
        import ray

        until = time.monotonic() + GRACE
        try:
            ray.get(actor.end.remote(), timeout=GRACE)
            while time.monotonic() < until:
                answer: Answer = ray.get(actor.answer.remote(None), timeout=GRACE)
                if answer.outcome is not None:
                    break
                time.sleep(0.2)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            pass  # It is gone, or has never been placed.
        ray.kill(actor, no_restart=True)
        _await_end(actor)

    def _kill(self, workers: list[_Seen]) -> None:
        import ray

        for worker in workers:
            try:
                ray.kill(worker.actor, no_restart=True)
            except Exception as error:  # The cluster may be gone, and they with it.
                if not isinstance(error, ray.exceptions.RayError | ValueError | RuntimeError):
                    raise


def _await_end(actor: Any) -> None:
    """Wait until the name of an actor that was killed is free."""
    import ray

    try:
        ray.get(actor.answer.remote(None), timeout=GRACE)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is the error's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
