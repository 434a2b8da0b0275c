"""One training on several devices: its processes started, and started again when one dies."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optnas.devices.ranks import FOLDER, started_as
from optnas.errors import RunError, UserError

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

MAX_RESTARTS = 3
"""How often the processes are started again, from the last checkpoint, when one of them dies."""
_ERROR = "error"
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""Processes of one machine need no other network."""


def start_together(count: int, arguments: Sequence[str]) -> None:
    """Run a command of optnas in several processes that train together, by torch's elastic agent.

    Args:
        count: How many there are, a GPU each; without GPUs all are on the CPU.
        arguments: The command, as for one process.

    Raises:
        UserError: If there are not so many GPUs, or as the command.
        RunError: If processes died too often.
        KeyboardInterrupt: At Ctrl-C or SIGTERM; what was trained is kept.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < gpus < count:
        raise UserError(f"--gpus {count}: this machine has {gpus}")
    if not gpus:
        warnings.warn(f"no GPU here: {count} processes train on the CPU", stacklevel=2)
    program = [sys.executable, "-c", "from optnas.cli import main; main()", *arguments]
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="optnas-") as folder:
        os.environ[FOLDER] = folder
        if sys.platform == "linux":
            os.environ |= {name: os.environ.get(name, value) for name, value in _LOOPBACK.items()}
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # As the agent would, but without a word.
        try:
            elastic_launch(_config(LaunchConfig, count, folder), program[0])(*program[1:])
        except ChildFailedError as error:
            said = Path(folder, _ERROR)
            if said.exists():
                raise UserError(said.read_text()) from None
            first = error.get_first_failure()[1]
            raise RunError(
                f"a process died {MAX_RESTARTS + 1} times, the last with exit code "
                f"{first.exitcode}; nothing is lost: the same command goes on"
            ) from None
        except SignalException:
            raise KeyboardInterrupt from None
        finally:
            del os.environ[FOLDER]


def _config(kind: Callable[..., "LaunchConfig"], count: int, folder: str) -> "LaunchConfig":
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    return kind(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="optnas",
        rdzv_backend="c10d",
        rdzv_endpoint=os.path.join(folder, "agent"),
        rdzv_configs={"store_type": "file"},
        local_addr="127.0.0.1",
        max_restarts=MAX_RESTARTS,
        monitor_interval=0.5,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )


def be_one_of_several() -> None:
    """Leave what is said to the first of several processes."""
    folder, ranks = os.environ.get(FOLDER), started_as()
    if folder is not None and Path(folder, _ERROR).exists():
        sys.exit(2)  # One has said already what is wrong.
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if ranks.leads and attempt and folder is not None:
        nth = f"{attempt} of at most {MAX_RESTARTS}"
        message = f"a process died: all go on from the last checkpoint ({nth})"
        print(f"optnas: warning: {message}", file=sys.stderr)
    if not ranks.leads:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end of the process
        if folder is not None:
            sys.stderr = sys.stdout


def tell_starter(error: UserError) -> bool:
    """Leave a message to whoever started this process beside others; whether there is somebody."""
    folder = os.environ.get(FOLDER)
    if folder is None or started_as().count == 1:
        return False
    Path(folder, _ERROR).write_text(str(error))
    return True
