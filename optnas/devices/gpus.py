"""What NVIDIA's driver tells of this machine's GPUs; asking takes no place on any of them."""

import dataclasses
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""NVML's ``nvmlComputeMode_t``: how many processes a GPU lets in."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU, whether or not ``CUDA_VISIBLE_DEVICES`` shows it.

    Args:
        uuid: Its identity, ``GPU-...``.
        name: Its name.
        total: Its memory in bytes.
        free: What is left of that by whoever uses it, and by the driver, which keeps some.
        mode: Its compute mode, one of ``COMPUTE_MODES``.
    """

    uuid: str
    name: str
    total: int
    free: int
    mode: str

    @property
    def is_exclusive(self) -> bool:
        """Whether it lets a single process in; with MPS that process is MPS's server."""
        return self.mode.startswith("exclusive")


@functools.cache
def nvml() -> Any:
    """`pynvml`, ready to ask NVIDIA's driver; None without one."""
    import pynvml  # Here, because a command that only prints its help has no use for it.

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def ask_driver(ask: Callable[..., Any], *about: Any) -> Any:
    """What a function of `nvml` returns; None where the driver does not tell."""
    from pynvml import NVMLError

    try:
        return ask(*about)
    except (NVMLError, UnicodeDecodeError):
        return None


def gpus() -> list[Gpu]:
    """The GPUs of this machine; none without NVIDIA's driver."""
    return [] if nvml() is None else list(_gpus())


def _gpus() -> Iterator[Gpu]:
    driver = nvml()
    for index in range(ask_driver(driver.nvmlDeviceGetCount) or 0):
        handle = ask_driver(driver.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            continue  # Not for this user, or fallen off the bus.
        memory = ask_driver(driver.nvmlDeviceGetMemoryInfo, handle)
        mode = ask_driver(driver.nvmlDeviceGetComputeMode, handle) or 0
        yield Gpu(
            uuid=ask_driver(driver.nvmlDeviceGetUUID, handle) or "",
            name=ask_driver(driver.nvmlDeviceGetName, handle) or "",
            total=memory.total if memory else 0,
            free=memory.free if memory else 0,
            mode=COMPUTE_MODES.get(mode, str(mode)),
        )


def mps_runs() -> bool:
    """Whether processes that use a GPU from here on do so through NVIDIA's MPS.

    They do if the driver can connect to the control daemon, as is tried here: to the socket
    ``control`` in ``CUDA_MPS_PIPE_DIRECTORY``, by default ``/tmp/nvidia-mps``. A daemon that was
    killed leaves the file behind.
    """
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"
    if not hasattr(socket, "AF_UNIX"):  # On Windows, where there is no MPS either.
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(1.0)
            connection.connect(str(Path(folder) / "control"))
    except OSError as error:
        # Somebody listens there, though in another way than today's drivers do.
        return error.errno == errno.EPROTOTYPE
    return True


@dataclasses.dataclass(frozen=True)
class Use:
    """How busy a GPU is.

    Args:
        index: Its number for NVIDIA's driver.
        percent: Part of the last moment in which it computed, in per cent.
        used: Bytes of its memory that are taken, by whomever.
        total: Bytes of its memory.
    """

    index: int
    percent: int
    used: int
    total: int


def use_of(identities: Iterable[str]) -> list[Use]:
    """How busy these GPUs are; those of which the driver does not tell are left out.

    Args:
        identities: As `Gpu.uuid`.
    """
    wanted = list(identities)
    driver = nvml() if wanted else None  # Who trains elsewhere need not load it.
    if driver is None:
        return []
    found = []
    for identity in wanted:
        handle = ask_driver(driver.nvmlDeviceGetHandleByUUID, identity)
        if handle is None:
            continue
        rates = ask_driver(driver.nvmlDeviceGetUtilizationRates, handle)
        memory = ask_driver(driver.nvmlDeviceGetMemoryInfo, handle)
        index = ask_driver(driver.nvmlDeviceGetIndex, handle)
        if rates and memory and index is not None:
            found.append(Use(index, rates.gpu, memory.used, memory.total))
    return found
