"""What the driver tells of GPUs, and whether MPS runs: with stand-ins for both."""

import contextlib
import ctypes
import socket
from typing import Any

import pytest

from optnas.devices import gpus as module
from optnas.devices.gpus import Gpu, gpus, mps_runs


class Driver:
    """NVML with some GPUs, of which those in ``hidden`` are not for this user."""

    def __init__(self, *present: Gpu, hidden: tuple[int, ...] = ()) -> None:
        self.present, self.hidden = present, hidden

    def nvmlDeviceGetCount_v2(self, result: Any) -> int:
        result._obj.value = len(self.present)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, result: Any) -> int:
        result._obj.value = index + 1
        return 4 if index in self.hidden else 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, result: Any) -> int:
        gpu = self._of(handle)
        result._obj.total, result._obj.free = gpu.total, gpu.free
        return 0

    def nvmlDeviceGetComputeMode(self, handle: ctypes.c_void_p, result: Any) -> int:
        modes = {name: mode for mode, name in module.COMPUTE_MODES.items()}
        result._obj.value = modes[self._of(handle).mode]
        return 0

    def nvmlDeviceGetUUID(self, handle: ctypes.c_void_p, buffer: Any, size: int) -> int:
        buffer.value = self._of(handle).uuid.encode()[: size - 1]
        return 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, buffer: Any, size: int) -> int:
        buffer.value = self._of(handle).name.encode()[: size - 1]
        return 0

    def _of(self, handle: ctypes.c_void_p) -> Gpu:
        assert handle.value is not None
        return self.present[handle.value - 1]


SHARED = Gpu("GPU-1", "NVIDIA H200", 150_000_000_000, 149_400_000_000, "default")
EXCLUSIVE = Gpu("GPU-2", "NVIDIA T4", 16_000_000_000, 15_500_000_000, "exclusive process")


def test_gpus_are_as_the_driver_says(monkeypatch):
    monkeypatch.setattr(module, "nvml", lambda: Driver(SHARED, EXCLUSIVE))
    assert gpus() == [SHARED, EXCLUSIVE]
    assert [gpu.is_exclusive for gpu in gpus()] == [False, True]
    monkeypatch.setattr(module, "nvml", lambda: Driver(SHARED, EXCLUSIVE, hidden=(0,)))
    assert gpus() == [EXCLUSIVE]


def test_without_a_driver_there_are_none(monkeypatch):
    monkeypatch.setattr(module, "nvml", lambda: None)
    assert gpus() == []


@pytest.mark.parametrize(
    ("kind", "listens", "expected"),
    [
        ("SOCK_SEQPACKET", True, True),
        ("SOCK_SEQPACKET", False, False),  # What a daemon that was killed leaves.
        ("SOCK_STREAM", True, True),  # Reached in another way by other drivers, perhaps.
        (None, False, False),
    ],
)
def test_mps_runs_if_its_daemon_can_be_reached(tmp_path, monkeypatch, kind, listens, expected):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    with contextlib.ExitStack() as stack:
        if kind is not None:
            daemon = stack.enter_context(socket.socket(socket.AF_UNIX, getattr(socket, kind)))
            daemon.bind(str(tmp_path / "control"))
            if listens:
                daemon.listen()
        assert mps_runs() == expected
    assert not mps_runs()


def test_mps_does_not_run_where_no_socket_can_be(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / ("x" * 120)))
    assert not mps_runs()
