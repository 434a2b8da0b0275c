"""Workers on a Ray cluster of loopback: nodes go and come, and so does whoever watches."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import killing
import optuna
import psutil
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from optnas.running.runner import run
from optnas.storage.opening import open_storage

OPTNAS = str(Path(sys.executable).with_name("optnas"))
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PATIENCE = 120.0
"""Seconds after which something that does not happen is stuck."""


class RayCluster:
    """Ray nodes of this machine, which listen on loopback alone."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Names of sockets are short: not below pytest's folder.
        self._folder = tempfile.mkdtemp(prefix="ray-")
        # Where Ray notes the cluster for everybody; no other one's note is overwritten.
        Path(self._folder, "ray").mkdir()
        os.environ["RAY_TMPDIR"] = self._folder
        self._cluster = Cluster()
        self.add(temp_dir=self._folder)  # The head, which stays.

    def add(self, **options: Any) -> Any:
        """Add a node with two processors."""
        return self._cluster.add_node(
            num_cpus=2, node_ip_address="127.0.0.1", include_dashboard=False, **options
        )

    def remove(self, node: Any) -> None:
        """Have a node be gone at once."""
        self._cluster.remove_node(node, allow_graceful=False)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def end(self) -> None:
        """End all processes, also those that do not want to."""
        started = children()
        self._cluster.shutdown()
        _, left = psutil.wait_procs(started, timeout=5)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._folder)


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    # Nobody is told, nothing is started that is not asked for, and no other cluster is meant.
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_worker_prestart": "0"}
    before = {name: os.environ.get(name) for name in (*settings, "RAY_ADDRESS", "RAY_TMPDIR")}
    os.environ |= settings
    os.environ.pop("RAY_ADDRESS", None)
    made = RayCluster()
    yield made
    made.end()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


class Search:
    """`optnas run` of a study file on a cluster, in a process of its own."""

    def __init__(self, file: Path, address: str | None) -> None:
        self.file, self._address = file, address
        self._study: optuna.Study | None = None
        self.driver: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> None:
        ray = ["--ray", *([] if self._address is None else [self._address])]
        command = [OPTNAS, "run", str(self.file), *ray, "--json", *arguments]
        pipe = subprocess.PIPE
        with self._stderr.open("w") as stderr:
            self.driver = subprocess.Popen(command, stdout=pipe, stderr=stderr, text=True)

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Exit code, events and stderr of a driver that ends by itself."""
        assert self.driver is not None
        out, _ = self.driver.communicate(timeout=PATIENCE)
        events = [json.loads(line) for line in out.splitlines()]
        return self.driver.returncode, events, self.stderr

    def kill(self) -> None:
        """Kill the driver."""
        assert self.driver is not None
        self.driver.kill()
        self.driver.communicate()
        self.driver = None

    @property
    def stderr(self) -> str:
        """What the last driver wrote there so far."""
        return self._stderr.read_text()

    @property
    def _stderr(self) -> Path:
        return self.file.with_name("stderr")

    def wait_for(self, condition: Callable[[list[FrozenTrial]], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not condition(self.trials):
            assert time.monotonic() < until, self.trials
            if self.driver is not None and self.driver.poll() is not None:
                raise AssertionError(self.stderr)
            time.sleep(0.05)

    @property
    def trials(self) -> list[FrozenTrial]:
        if self._study is None and self.file.with_name(f"{self.name}.db").exists():
            storage = open_storage(f"sqlite:///{self.file.with_name(f'{self.name}.db')}")
            with contextlib.suppress(KeyError):
                self._study = optuna.load_study(study_name=self.name, storage=storage)
        return [] if self._study is None else self._study.get_trials(deepcopy=False)

    @property
    def name(self) -> str:
        return str(yaml.safe_load(self.file.read_text())["study"])


def write_modules(folder: Path) -> None:
    """The modules beside a study, one of which imports another."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "pause.py").write_text("SECONDS = 0.5\n")
    shutil.copy(BENCHMARKS / "napping.py", folder)


def notes(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "note"]


@pytest.fixture
def search_of(tmp_path) -> Iterator[Callable[..., Search]]:
    begun: list[Search] = []

    def begin(text: str, address: str | None) -> Search:
        file = tmp_path / "study.yaml"
        file.write_text(text)
        begun.append(Search(file, address))
        return begun[-1]

    yield begin
    for search in begun:
        if search.driver is not None and search.driver.poll() is None:
            search.kill()


def training(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state == TrialState.RUNNING and t.intermediate_values]


def finished(trials: list[FrozenTrial]) -> int:
    return sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)


NAPS = """\
study: killed
space: cell
sampler: random
objective: {name: "napping:Nap", seconds: 0.2, epochs: 1000}
workers: {count: 2}
"""
SEARCHES = {
    "digits": killing.STUDIES["macro-micro"],
    "naps": """\
study: killed
space: {depth: [2, 4], width: [4, 8]}
sampler: {name: macro_micro, epochs: 3, micro_epochs: 2, patience: 5}
""",
}
FOUR = {
    "digits": "objective: slow:Slow\nworkers: {count: 4}\n",
    "naps": 'objective: {name: "napping:Nap", seconds: 0.5, epochs: 3}\nworkers: {count: 4}\n',
}
QUICK = {"digits": "", "naps": 'objective: {name: "napping:Nap", seconds: 0, epochs: 3}\n'}
WITH_TIME = pytest.mark.skipif("CLUSTERS" not in os.environ, reason="minutes: make stress")
SLOW = """\
import time

from optnas.objectives.classification import Classification
from pause import SECONDS
from optnas.objectives.training.trainer import Trainer


class SlowTrainer(Trainer):
    def train_epoch(self):
        time.sleep(SECONDS)
        return super().train_epoch()


class Slow(Classification):
    def _trainer(self, model, images, settings, **options):
        return SlowTrainer(model, images, settings, **options)
"""


@pytest.mark.parametrize("name", ["naps", pytest.param("digits", marks=WITH_TIME)])
def test_a_search_whose_nodes_and_driver_go_and_come(cluster, search_of, tmp_path, name):
    write_modules(tmp_path)
    node = cluster.add()
    search = search_of(SEARCHES[name] + FOUR[name], cluster.address)
    search.start()
    # More than there is room for on the head.
    search.wait_for(lambda trials: finished(trials) >= 1 and len(training(trials)) > 2)
    cluster.remove(node)
    node = cluster.add()
    search.wait_for(lambda _: "was lost" in search.stderr)
    search.kill()
    before = finished(search.trials)
    search.wait_for(lambda trials: finished(trials) > before)  # Nobody watches.
    search.start()
    code, events, err = search.end()
    cluster.remove(node)
    assert (code, events[-1]["ending"]) == (0, "finished"), err
    assert any("found at work" in note for note in notes(events))
    check_undisturbed(search, name, tmp_path)


def check_undisturbed(search: Search, name: str, tmp_path: Path) -> None:
    """It came to what one does that nobody disturbs."""
    ended = killing.ended(search.file, 0.0)  # Nothing trained twice, nothing left running.
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(BENCHMARKS / "napping.py", alone)
    (alone / "study.yaml").write_text(SEARCHES[name] + QUICK[name])
    run(alone / "study.yaml")
    undisturbed = killing.ended(alone / "study.yaml", 0.0)
    assert killing.differences(ended, undisturbed, workers=4) is None


@WITH_TIME
@pytest.mark.parametrize("name", SEARCHES)
def test_workers_that_train_several_trials_at_once(cluster, search_of, tmp_path, name):
    """One of them and the driver are killed; each trial of the worker is gone on with."""
    write_modules(tmp_path)
    workers = FOUR[name].replace("count: 4", "count: 1, streams: 3")
    search = search_of(SEARCHES[name] + workers, cluster.address)
    search.start()
    search.wait_for(lambda trials: finished(trials) >= 1 and len(training(trials)) == 3)
    leases = [trial.system_attrs["optnas:lease"] for trial in training(search.trials)]
    (pid,) = {lease["pid"] for lease in leases}
    assert len({lease["thread"] for lease in leases}) == 3
    os.kill(pid, signal.SIGKILL)
    search.wait_for(lambda trials: sum(t.user_attrs.get("failure") == "lost" for t in trials) == 3)
    search.wait_for(lambda trials: len(training(trials)) >= 2)
    search.kill()
    search.start()
    code, events, err = search.end()
    assert (code, events[-1]["ending"]) == (0, "finished"), err
    assert any("3 trials at once" in note for note in notes(events))
    check_undisturbed(search, name, tmp_path)


def test_a_ray_of_the_runs_own_is_on_loopback_and_ends_with_it(search_of, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        check_local_run(search_of(NAPS, None), tmp_path)


def check_local_run(search: Search, tmp_path: Path) -> None:
    shutil.copy(BENCHMARKS / "napping.py", tmp_path)
    search.start()
    search.wait_for(lambda trials: len(training(trials)) == 2)
    assert search.driver is not None
    processes = psutil.Process(search.driver.pid).children(recursive=True)
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    search.driver.send_signal(signal.SIGINT)
    code, events, err = search.end()
    assert (code, events[-1]["ending"]) == (130, "interrupted"), err
    assert [trial.state for trial in search.trials] == [TrialState.FAIL] * 2
    assert {trial.user_attrs["failure_reason"] for trial in search.trials} == {"interrupted"}
    _, left = psutil.wait_procs(processes, timeout=20)
    assert not left


@WITH_TIME
def test_a_population_whose_nodes_go_and_come(cluster, search_of, tmp_path):
    write_modules(tmp_path)
    node = cluster.add()
    search = search_of(killing.STUDIES["econas"] + FOUR["digits"], cluster.address)
    search.start()
    search.wait_for(lambda trials: len(training(trials)) >= 3)  # One is on either node.
    cluster.remove(node)
    node = cluster.add()
    code, events, err = search.end()
    cluster.remove(node)
    assert (code, events[-1]["ending"]) == (0, "finished"), err
    assert "was lost" in err
    assert killing.ended(search.file, 0.0).results
