"""The workers of a study as an array of jobs of Slurm, by submitit."""

import contextlib
import dataclasses
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from optnas.clusters.reach import check_reach
from optnas.config.file import StudyFile
from optnas.config.keys import Workers
from optnas.errors import RunError, UserError

GRACE = 60
"""Seconds before the end of its time at which a job is told of it."""
STARTS = 1000
"""How often a job whose time is up is queued again."""
_QUIETLY: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": 60}
_HANDED_BACK = 20.0
"""Seconds in which a worker has handed back what it trains."""


@dataclasses.dataclass(frozen=True)
class Order:
    """What is asked of Slurm.

    Args:
        file: The study file.
        config: The study.
        workers: The workers: how many, and what each is given.
        minutes: How long a job may take; it is queued again afterwards.
        options: Other options of `sbatch`, without their dashes.
    """

    file: Path
    config: StudyFile
    workers: Workers
    minutes: int
    options: Mapping[str, str]

    @property
    def count(self) -> int:
        """The number of workers."""
        return self.workers.count or 1

    @property
    def needs(self) -> dict[str, int | str]:
        """What each is given, as options of `sbatch`."""
        given = self.workers.resources
        needs: dict[str, int | str] = {"cpus-per-task": given.cpus or self.config.train.threads}
        if given.gpus:
            needs["gpus-per-task"] = 1
        if given.memory_bytes is not None:
            needs["mem"] = f"{given.memory_bytes // 10**6}M"
        return needs

    @property
    def command(self) -> list[str]:
        """What a job does."""
        streams = ["--streams", str(self.workers.streams)] if self.workers.streams > 1 else []
        return ["run", str(self.file.resolve()), "--workers", "1", *streams, "--json"]

    @property
    def name(self) -> str:
        """The jobs' name."""
        return "optnas-" + re.sub(r"[^\w.-]", "_", self.config.study)


def check_order(order: Order) -> None:
    """Refuse what jobs on other nodes could not reach, or Slurm could not give.

    Raises:
        UserError: With what would do.
    """
    if order.workers.per_device is not None:
        raise UserError(
            "workers.per_device is for the devices of one machine; on Slurm give the number of "
            "jobs by `--workers`"
        )
    if order.workers.resources.gpus not in (None, 0, 1):
        raise UserError("workers.resources.gpus: Slurm gives a job whole GPUs; say 1, or use Ray")
    other = _other_node()
    if other is not None:
        check_reach(order.config.storage, order.config.artifacts, other)


def _other_node() -> str | None:
    """A node of the cluster that is not this machine; None if there is none."""
    try:
        told = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%N"], **_QUIETLY)
    except (OSError, subprocess.SubprocessError):
        return "of a job"  # Wherever that may be.
    here = platform.node()
    others = (name for name in told.stdout.split() if name not in (here, here.partition(".")[0]))
    return next(others, None)


def script(order: Order, folder: Path) -> str:
    """A script for `sbatch` that does the same without submitit.

    Args:
        order: What is asked for.
        folder: Where the jobs' logs go.
    """
    options: dict[str, Any] = {
        "job-name": order.name,
        "array": f"0-{order.count - 1}",
        "ntasks": 1,
        **order.needs,
        "time": order.minutes,
        "signal": f"USR1@{GRACE}",
        "requeue": None,
        "open-mode": "append",
        "output": folder / "%A_%a.log",
        **order.options,
    }
    lines = [f"#SBATCH --{k}" + ("" if v is None else f"={v}") for k, v in options.items()]
    optnas = shlex.join(["optnas", *order.command])
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            f"log={shlex.quote(str(folder))}/worker-$SLURM_ARRAY_TASK_ID.jsonl",
            f'srun {optnas} >> "$log"',
            """if tail -n 1 "$log" | grep -q '"ending": "terminated"'; then""",
            '    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"',
            "fi",
            "",
        ]
    )


def submit(order: Order, folder: Path, *, cluster: str = "slurm") -> list[str]:
    """Queue the workers.

    Args:
        order: What is asked for.
        folder: Where submitit keeps its files, and the jobs' logs go; every node sees it.
        cluster: As submitit names it: ``slurm``, or ``local`` for processes of this machine.

    Returns:
        The jobs' numbers.

    Raises:
        UserError: If submitit is missing, or Slurm refuses.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--slurm: submitit is missing; pip install 'optnas[slurm]'") from None
    how = {"slurm_max_num_timeout": STARTS} if cluster == "slurm" else {}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **how)
        executor.update_parameters(name=order.name, timeout_min=order.minutes)
        if cluster == "slurm":
            executor.update_parameters(
                slurm_array_parallelism=order.count,
                slurm_signal_delay_s=GRACE,
                slurm_additional_parameters={**order.needs, "requeue": True, **order.options},
            )
        jobs = executor.map_array(WorkerJob(order.command), range(order.count))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"--slurm: {_last_line(error)}") from None
    return [str(job.job_id) for job in jobs]


class WorkerJob:
    """What a job does: a worker of the study, in a process of its own.

    Args:
        command: The command of optnas.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, number: int) -> int:
        """Be a worker to its end.

        Raises:
            RunError: If it ends with an error, which its log says.
        """
        program = [sys.executable, "-c", "from optnas.cli import main; main()"]
        self._process = subprocess.Popen([*program, *self._command])
        # Not in `Popen.wait`, which the checkpoint, called within it, could not wait in too.
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
        if code:
            raise RunError(f"worker {number} ended with exit code {code}; its log says why")
        return code

    def checkpoint(self, number: int) -> Any:
        """Hand back what trains, and say what is to be done when the job is started again.

        submitit calls it when the job is preempted, or its time is nearly up.
        """
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            with contextlib.suppress(
                psutil.Error
            ):  # It may be gone; or hang, and then it is lost.
                process = psutil.Process(self._process.pid)
                process.terminate()
                process.wait(_HANDED_BACK)
        return DelayedSubmission(WorkerJob(self._command), number)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def log_folder(config: StudyFile) -> Path:
    """Where the logs of a study's jobs go, beside the study file."""
    return Path(os.path.join(config.folder, f"{config.study}.slurm"))
