"""The worker processes that a run starts with, and whether this machine can have them."""

import dataclasses

from optnas.config.keys import Workers
from optnas.devices.gpus import gpus, mps_runs
from optnas.errors import UserError


@dataclasses.dataclass(frozen=True)
class WorkerPlan:
    """The workers that a run has.

    Args:
        workers: The settings; with ``per_device`` the devices are named.
        count: Number of processes.
    """

    workers: Workers
    count: int

    @property
    def shares_gpus(self) -> bool:
        """Whether several processes are on one GPU."""
        devices = self.workers.devices
        if not devices and self.count > 1 and gpus():  # Else there is no need to load torch.
            devices = (_default_device(),)
        return self.count > len(devices) and any(map(is_gpu, devices))


def plan_workers(workers: Workers) -> WorkerPlan:
    """The workers that settings ask for on this machine."""
    number = workers.per_device
    if number is None:
        return WorkerPlan(workers, workers.count or 1)
    devices = workers.devices or (_default_device(),)
    workers = workers.model_copy(update={"devices": devices})
    return WorkerPlan(workers, number * len(devices))


def streams_notice(device: str | None) -> str | None:
    """What there is to say of several trainings in one process on a device, or None."""
    if is_gpu(device or _default_device()):
        return None
    return (
        "workers.streams: elsewhere than on CUDA these are threads that share one Python "
        "interpreter; processes, `workers: {count: N}`, make more of the cores"
    )


def check_gpus(plan: WorkerPlan) -> None:
    """Refuse several processes on GPUs that let a single one in.

    Raises:
        UserError: With what to do.
    """
    present = gpus()
    closed = bool(present) and all(gpu.is_exclusive for gpu in present) and not mps_runs()
    if closed and plan.count > len(plan.workers.devices) and plan.shares_gpus:
        raise UserError(f"several workers on one GPU, but {EXCLUSIVE}")


EXCLUSIVE = (
    "its compute mode lets a single process in and MPS is not running: start it with "
    "`nvidia-cuda-mps-control -d`, or have root set `nvidia-smi --compute-mode=DEFAULT`"
)


def gpu_sharing_notice() -> str:
    """In what way the processes on one GPU use it."""
    if mps_runs():
        return "MPS is running: workers of one GPU use it at the same time"
    return (
        "MPS is not running: workers of one GPU take turns; "
        "`nvidia-cuda-mps-control -d` before the run lets them use it at the same time"
    )


def is_gpu(device: str) -> bool:
    """Whether torch's name of a device is that of a CUDA one."""
    return device.partition(":")[0] == "cuda"


def _default_device() -> str:
    """Where an objective trains that is not told where."""
    import torch  # Takes seconds, and commands that need no training do without.

    return "cuda" if torch.cuda.is_available() else "cpu"
