"""What NVIDIA's driver tells of this machine's GPUs; asking takes no place on any of them."""

import ctypes
import dataclasses
import errno
import functools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
"""NVML's ``nvmlComputeMode_t``: how many processes a GPU lets in."""

_LONGEST_TEXT = 96


class _Memory(ctypes.Structure):
    """NVML's ``nvmlMemory_t``: bytes."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


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
    """The library that comes with NVIDIA's driver, ready to be asked; None without one."""
    try:
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        return library if library.nvmlInit_v2() == 0 else None
    except (OSError, AttributeError):
        return None


def gpus() -> list[Gpu]:
    """The GPUs of this machine; none without NVIDIA's driver."""
    return [] if nvml() is None else list(_gpus())


def _gpus() -> Iterator[Gpu]:
    library, count = nvml(), ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return
    for index in range(count.value):
        handle, memory, mode = ctypes.c_void_p(), _Memory(), ctypes.c_int()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            continue  # Not for this user, or fallen off the bus.
        # What fails leaves zeros.
        library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        library.nvmlDeviceGetComputeMode(handle, ctypes.byref(mode))
        yield Gpu(
            uuid=_text(library.nvmlDeviceGetUUID, handle),
            name=_text(library.nvmlDeviceGetName, handle),
            total=memory.total,
            free=memory.free,
            mode=COMPUTE_MODES.get(mode.value, str(mode.value)),
        )


def _text(ask: Any, handle: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(_LONGEST_TEXT)
    ask(handle, buffer, _LONGEST_TEXT)
    return buffer.value.decode(errors="replace")


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
