"""Workers as jobs of Slurm: a real one on loopback where it is installed, else submitit's own."""

import contextlib
import functools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState
from servers import free_port

from optnas.cli.console import requested_workers
from optnas.clusters.slurm import Order, check_order, script, submit
from optnas.config.file import StudyFile, load_study_file
from optnas.errors import UserError
from optnas.storage.opening import open_storage

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PATIENCE = 120.0
NAPS = """\
study: naps
space: cell
sampler: random
objective: {name: "napping:Nap", seconds: 0.3, epochs: 10}
budget: {trials: 6}
workers: {count: 2}
"""


class Slurm:
    """A Slurm of one node, this machine, which listens on loopback alone.

    Raises:
        FileNotFoundError: If Slurm or munge is not installed.
    """

    def __init__(self, folder: Path) -> None:
        programs = {name: _program(name) for name in ("munged", "slurmctld", "slurmd")}
        self._folder = folder
        self.config = folder / "slurm.conf"
        self.config.write_text(self._settings())
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        os.environ["SLURM_CONF"] = str(self.config)
        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        munge |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{name}={folder / file}" for name, file in munge.items()]
        self._processes = [
            subprocess.Popen([programs["munged"], "--force", "--foreground", *options]),
            *(
                subprocess.Popen([programs[name], "-D", "-f", self.config], stderr=-3)
                for name in ("slurmctld", "slurmd")
            ),
        ]
        wait_for(lambda: "idle" in self.ask("sinfo", "--noheader"))

    def _settings(self) -> str:
        folder, host = self._folder, os.uname().nodename.partition(".")[0]
        settings = {
            "ClusterName": "loopback",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": "root",
            "SlurmctldPort": free_port(),
            "SlurmdPort": free_port(),
            "AuthInfo": f"socket={folder / 'munge.socket'}",
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd.pid",
            "SlurmctldLogFile": folder / "slurmctld.log",
            "SlurmdLogFile": folder / "slurmd.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SlurmctldParameters": "preempt_send_user_signal",
            "SlurmdParameters": "config_overrides",
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
            "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=1000",
            "PartitionName": "all Nodes=ALL Default=YES State=UP",
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands says."""
        return subprocess.run(command, capture_output=True, text=True).stdout

    def end(self) -> None:
        """End everything."""
        self.ask("scancel", "--full", "--user=root")
        wait_for(lambda: not self.ask("squeue", "--noheader", "--states=R,CG"))
        for process in self._processes[::-1]:
            process.terminate()
            process.wait()
        del os.environ["SLURM_CONF"]


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None or os.getuid() != 0:
        raise FileNotFoundError(f"{name} is not installed, or may not be run")
    return found


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.fixture
def slurm(tmp_path) -> Iterator[Slurm]:
    pytest.importorskip("submitit")
    try:
        made = Slurm(tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield made
    made.end()


@pytest.fixture
def study(tmp_path) -> StudyFile:
    shutil.copy(BENCHMARKS / "napping.py", tmp_path)
    (tmp_path / "naps.yaml").write_text(NAPS)
    return load_study_file(tmp_path / "naps.yaml")


def order_of(study: StudyFile, **options: str) -> Order:
    return Order(study.folder / "naps.yaml", study, study.workers, 60, options)


def trials_of(study: StudyFile) -> list[FrozenTrial]:
    if not (study.folder / "naps.db").exists():
        return []
    with contextlib.suppress(KeyError):
        return _opened(study.storage).get_trials(deepcopy=False)
    return []


@functools.cache
def _opened(storage: str) -> optuna.Study:
    return optuna.load_study(study_name="naps", storage=open_storage(storage))


def finished(study: StudyFile) -> int:
    return sum(trial.state == TrialState.COMPLETE for trial in trials_of(study))


def training(study: StudyFile) -> int:
    running = [trial for trial in trials_of(study) if trial.state == TrialState.RUNNING]
    return sum(bool(trial.intermediate_values) for trial in running)


def test_a_preempted_job_hands_back_and_is_queued_again(slurm, study, tmp_path):
    order = order_of(study)
    check_order(order)  # The only node is this machine, which reaches the file.
    jobs = submit(order, tmp_path / "logs")
    assert len(jobs) == 2
    wait_for(lambda: training(study) == 2)
    slurm.ask("scancel", "--signal=USR2", jobs[0])
    wait_for(lambda: slurm.ask("squeue", "--noheader", "--states=PD", "--array").strip())
    lost = [trial for trial in trials_of(study) if trial.state == TrialState.FAIL]
    assert [trial.user_attrs["failure_reason"] for trial in lost] == ["interrupted"]
    wait_for(lambda: finished(study) == 6)
    running = [trial for trial in trials_of(study) if trial.state == TrialState.RUNNING]
    assert not running
    assert any("continues" in trial.user_attrs for trial in trials_of(study))


def test_the_script_is_one_of_slurms(slurm, study, tmp_path, monkeypatch):
    """It says what it is to be given, and Slurm takes it."""
    path = tmp_path / "job.sh"
    path.write_text(script(order_of(study, nice="10"), tmp_path))
    told = subprocess.run(["sbatch", "--test-only", path], capture_output=True, text=True)
    assert "to start at" in told.stderr, told.stderr
    assert "#SBATCH --nice=10\n" in path.read_text()


def test_jobs_are_workers_of_the_study(study, tmp_path):
    """With submitit's own processes in the place of Slurm's."""
    pytest.importorskip("submitit")
    before = set(living())
    (tmp_path / "naps.yaml").write_text(NAPS.replace("seconds: 0.3", "seconds: 0.05"))
    submit(order_of(load_study_file(tmp_path / "naps.yaml")), tmp_path / "logs", cluster="local")
    wait_for(lambda: finished(study) == 6)
    logs = [path.read_text() for path in (tmp_path / "logs").rglob("*.out")]
    wait_for(lambda: not set(living()) - before)
    assert len(logs) == 2
    assert any('"event": "trial"' in text for text in logs)


def living() -> Iterator[int]:
    """The processes that this one has started, a server of other tests, say."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid


def test_a_job_trains_as_many_trials_at_once_as_the_study_or_the_command_says(study):
    for streams, words in ((1, []), (4, ["--streams", "4"])):
        workers = requested_workers(study, 2, streams=streams)
        order = Order(study.folder / "naps.yaml", study, workers, 60, {})
        assert order.count == 2
        assert order.command[2:] == ["--workers", "1", *words, "--json"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"per_device": 2}, "give the number of jobs by `--workers`"),
        ({"count": 2, "resources": {"gpus": 0.5}}, "Slurm gives a job whole GPUs"),
        ({"count": 2}, "cannot reach the file"),
    ],
)
def test_what_slurm_cannot_do_is_refused(study, monkeypatch, keys, message):
    monkeypatch.setenv("PATH", "")  # Nobody can say what nodes there are.
    workers = type(study.workers).model_validate(keys)
    order = Order(study.folder / "naps.yaml", study, workers, 60, {})
    with pytest.raises(UserError, match=message):
        check_order(order)
