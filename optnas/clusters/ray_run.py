"""A study run on a Ray cluster: what is checked before, and how a local one is had."""

import contextlib
import hashlib
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optnas.clusters.own_modules import own_modules
from optnas.clusters.ray_pool import RayPool
from optnas.clusters.ray_worker import Job
from optnas.clusters.reach import check_password, check_reach, is_loopback, own_addresses
from optnas.clusters.versions import versions
from optnas.config.file import StudyFile
from optnas.config.keys import Workers
from optnas.errors import RunError, UserError, first_line
from optnas.running.events import Display, PoolEvents
from optnas.running.runner import Outcome, run_elsewhere
from optnas.running.workers import Work
from optnas.trials.leases import this_host
from optnas.units import plural

CONNECTING = 5.0
"""Seconds for which a cluster may take to answer."""
LOCAL = "local"
"""Stands for a Ray of this run's own, which ends with it."""


def run_on_ray(
    config: StudyFile,
    *,
    address: str,
    workers: Workers,
    display: Display | None = None,
    accept_changed_data: bool = False,
) -> Outcome:
    """Run a study with workers that are actors of a Ray cluster.

    Those that a run before this one left at work, because it was killed, are taken over.

    Args:
        config: The configuration, as `config_to_run` returns it.
        address: ``HOST:PORT`` of a cluster, ``auto`` for that which this machine is of, or
            ``LOCAL``.
        workers: The settings of the workers.
        display: What shows progress; None shows nothing.
        accept_changed_data: Whether to go on with other images than the study has seen, which is
            recorded.

    Raises:
        UserError: If Ray is missing, there is no such cluster, its nodes cannot reach the storage
            or the artifacts, or as `optnas.running.runner.run`. Nothing was created.
        RunError: As `optnas.running.runner.run`.
    """
    if workers.per_device is not None:
        raise UserError(
            "workers.per_device is for the devices of one machine; on Ray give the number by "
            "`--workers`, and `workers: {resources: {gpus: 0.25}}` where several share a GPU"
        )
    shown = display or Display()
    with _connected(address, config):
        needs = _needs(config, workers)
        nodes = _nodes()
        if address != LOCAL:
            check_password(config.storage)
            _check_nodes(config, nodes)
        count = workers.count or max(1, sum(_room(node, needs) for node in nodes))
        device = "cuda" if needs["num_gpus"] else "cpu"
        settings = workers.model_copy(update={"devices": (device,)})
        job = _job(config, workers, accept_changed_data)

        def make_pool(work: Work, events: PoolEvents) -> RayPool:
            for line in _said(workers, count, needs, nodes):
                events.note(line)
            return RayPool(
                work,
                job,
                name=f"{_identity(config)}-",
                count=count,
                options=needs,
                events=events,
                answer=shown.interrupted,
                max_retries=config.max_retries,
            )

        return run_elsewhere(
            config,
            make_pool,
            display=shown,
            workers=settings,
            accept_changed_data=accept_changed_data,
        )


@contextlib.contextmanager
def _connected(address: str, config: StudyFile) -> Iterator[None]:
    """Be connected to a cluster while this is entered."""
    ray = _imported(on_loopback=address == LOCAL or _answers_on_loopback_alone(address))
    modules = [str(path) for path in own_modules(config)]
    options: dict[str, Any] = {"address": address, "namespace": "optnas"}
    if address == LOCAL:
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    if modules:
        options["runtime_env"] = {"py_modules": modules}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray {address}: {first_line(error)}") from None
    try:
        yield
    except ray.exceptions.RayError as error:
        text = f"the cluster does not answer: {first_line(error)}"
        raise RunError(f"{text}; nothing is lost: the same command goes on") from None
    finally:
        ray.shutdown()


def _answers_on_loopback_alone(address: str) -> bool:
    """Whether a cluster is reached by loopback addresses, and by no other of this machine.

    Raises:
        UserError: If nobody answers there.
    """
    host, colon, port = address.rpartition(":")
    if address == "auto" or "://" in address:
        return False
    if not (colon and port.isdigit()):
        raise UserError(f"--ray {address}: expected HOST:PORT, `auto`, or no address")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECTING).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there ({error})") from None
    if not is_loopback(host):
        return False
    own = (other for other in own_addresses() if "." in other and not is_loopback(other))
    return not any(_answers(other, int(port)) for other in own)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECTING).close()
    except OSError:
        return False
    return True


def _imported(*, on_loopback: bool) -> Any:
    """Ray, which tells nobody of its use, and writes nothing into what is shown.

    Raises:
        UserError: If it is missing.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    if on_loopback:  # As it does on other systems than Linux: it takes another address otherwise.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise UserError("--ray: Ray is missing; pip install 'optnas[ray]'") from None
    # Its nodes' messages would go to stdout, whatever is asked for.
    ray._private.worker.print_to_stdstream = lambda *_details, **_options: None
    return ray


def _needs(config: StudyFile, workers: Workers) -> dict[str, Any]:
    """What an actor asks of its node."""
    import ray

    given = workers.resources
    gpus = given.gpus
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    needs: dict[str, Any] = {"num_cpus": given.cpus or config.train.threads, "num_gpus": gpus}
    if given.memory_bytes is not None:
        needs["memory"] = given.memory_bytes
    return needs


def _nodes() -> list[Mapping[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _check_nodes(config: StudyFile, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what nodes on other machines cannot reach.

    Raises:
        UserError: With what would do.
    """
    here = own_addresses()
    for node in nodes:
        if node["NodeManagerAddress"] not in here:
            check_reach(config.storage, config.artifacts, node["NodeManagerAddress"])


def _room(node: Mapping[str, Any], needs: Mapping[str, Any]) -> int:
    """How many workers a node has room for, when nothing else is there."""
    has, names = node["Resources"], {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    each: list[float] = [has.get(names[key], 0.0) / need for key, need in needs.items() if need]
    return math.floor(min(each) + 1e-9)


def _said(
    workers: Workers, count: int, needs: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """What is said of the cluster before anything starts."""
    if workers.devices:
        yield "workers.devices is for one machine: on Ray a worker has the GPU that it is given"
    room = sum(_room(node, needs) for node in nodes)
    memory = f", {needs['memory'] / 1e9:.3g} GB of memory" if "memory" in needs else ""
    each = f"{needs['num_cpus']} CPU, {needs['num_gpus']:g} GPU{memory} each"
    at_once = f" of {workers.streams} trials at once" if workers.streams > 1 else ""
    yield (
        f"Ray: {plural(count, 'worker')} at most{at_once}, {each}; room for {room} on "
        f"{plural(len(nodes), 'node')}"
    )


def _identity(config: StudyFile) -> str:
    """What tells a study from all others whose workers are on the cluster."""
    where = json.dumps([config.storage, config.study])
    return f"optnas-{hashlib.sha256(where.encode()).hexdigest()[:16]}"


def _job(config: StudyFile, workers: Workers, accept_changed_data: bool) -> Job:
    contents = [path for root in own_modules(config) for path in _files(root)]
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in contents]
    # How many there are changes nothing in what each does.
    settings = workers.model_dump(mode="json", exclude={"count"})
    said = {**config.resolved(), "workers": settings}
    del said["folder"]  # Another driver's may be elsewhere.
    what = json.dumps([said, code, accept_changed_data], sort_keys=True)
    return Job(
        digest=hashlib.sha256(what.encode()).hexdigest(),
        versions=versions(),
        host=this_host(),
        storage=config.storage,
        artifacts=config.artifacts,
        max_restarts=workers.max_restarts,
    )


def _files(root: Any) -> list[Any]:
    return [root] if root.is_file() else sorted(root.rglob("*.py"))
