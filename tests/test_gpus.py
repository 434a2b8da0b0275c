"""What the driver tells of GPUs, and whether MPS runs: with stand-ins for both."""

import contextlib
import dataclasses
import socket
import types
from typing import Any

import pynvml
import pytest

from optnas.devices import gpus as module
from optnas.devices.gpus import Gpu, gpus, mps_runs


def refuses(*_: Any) -> None:
    """Answers as a driver that is older than the question."""
    raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)


class Driver:
    """`pynvml` with some GPUs: those in ``hidden`` are not for this user.

    What is in ``silent`` is not answered.
    """

    def __init__(
        self, *present: Gpu, hidden: tuple[int, ...] = (), silent: tuple[str, ...] = ()
    ) -> None:
        self.present, self.hidden = present, hidden
        for question in silent:
            setattr(self, question, refuses)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.present)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        if index in self.hidden:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return self.present[index]

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> Any:
        return types.SimpleNamespace(total=handle.total, free=handle.free)

    def nvmlDeviceGetComputeMode(self, handle: Gpu) -> int:
        return {name: mode for mode, name in module.COMPUTE_MODES.items()}[handle.mode]

    def nvmlDeviceGetUUID(self, handle: Gpu) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Gpu) -> str:
        return handle.name


SHARED = Gpu("GPU-1", "NVIDIA H200", 150_000_000_000, 149_400_000_000, "default")
EXCLUSIVE = Gpu("GPU-2", "NVIDIA T4", 16_000_000_000, 15_500_000_000, "exclusive process")


def test_gpus_are_as_the_driver_says(monkeypatch):
    monkeypatch.setattr(module, "nvml", lambda: Driver(SHARED, EXCLUSIVE))
    assert gpus() == [SHARED, EXCLUSIVE]
    assert [gpu.is_exclusive for gpu in gpus()] == [False, True]
    monkeypatch.setattr(module, "nvml", lambda: Driver(SHARED, EXCLUSIVE, hidden=(0,)))
    assert gpus() == [EXCLUSIVE]


def test_what_the_driver_does_not_tell_is_left_empty(monkeypatch):
    def driver(*silent: str) -> Driver:
        return Driver(EXCLUSIVE, silent=silent)

    monkeypatch.setattr(module, "nvml", lambda: driver("nvmlDeviceGetMemoryInfo"))
    assert gpus() == [dataclasses.replace(EXCLUSIVE, total=0, free=0)]
    monkeypatch.setattr(module, "nvml", lambda: driver("nvmlDeviceGetComputeMode"))
    assert gpus() == [dataclasses.replace(EXCLUSIVE, mode="default")]
    monkeypatch.setattr(module, "nvml", lambda: driver("nvmlDeviceGetName", "nvmlDeviceGetUUID"))
    assert gpus() == [dataclasses.replace(EXCLUSIVE, name="", uuid="")]
    monkeypatch.setattr(module, "nvml", lambda: driver("nvmlDeviceGetCount"))
    assert gpus() == []


def test_without_a_driver_there_are_none(monkeypatch):
    monkeypatch.setattr(module, "nvml", lambda: None)
    assert gpus() == []


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, 9, 18])
def test_a_driver_that_cannot_be_asked_is_none(monkeypatch, code):
    def fails() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    assert module.nvml.__wrapped__() is None
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    assert module.nvml.__wrapped__() is pynvml


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
