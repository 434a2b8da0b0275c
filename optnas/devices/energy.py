"""Energy of a training, where the device counts it: NVML on NVIDIA GPUs, RAPL on Linux hosts."""

import functools
import time
from collections.abc import Callable
from operator import sub
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from optnas.devices.gpus import ask_driver, nvml

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows what processors count; readable by root alone on most systems."""

# A package's counter starts again after 262 kJ: what may have gone round twice is not known.
_MOST_WATTS = 300

T = TypeVar("T")
_Counters = tuple[list[tuple[int, int]], float, float, float]
"""Of each package its counter and how far it counts; own, busy and real seconds."""
EnergyMeter = Callable[[], float | None]
"""Joules since its last call; None where they are not known, as at the first call."""


def energy_meter(device: torch.device) -> EnergyMeter:
    """What tells the energy of a device between two calls.

    Of a GPU it is all the energy of the board since, whoever used it. Of the CPU it is this
    process's share of the energy of all packages: its part of the processors' busy time. Neither
    holds main memory, fans and power supply.

    Args:
        device: A torch device.

    Returns:
        Called at any two moments, it returns the joules between them.
    """
    if device.type == "cuda":
        handle = _gpu(str(torch.cuda.get_device_properties(device).uuid))
        return _never if handle is None else _meter(functools.partial(_gpu_joules, handle), sub)
    packages = _packages()
    if not packages or device.type != "cpu":
        return _never
    return _meter(functools.partial(_processor_counters, packages), _processor_joules)


def _never() -> None:
    return None


def _meter(read: Callable[[], T | None], joules: Callable[[T, T], float | None]) -> EnergyMeter:
    """What counters say that are read at every call, and ``joules(later, earlier)`` of them."""
    last = read()

    def meter() -> float | None:
        nonlocal last
        before, last = last, read()
        return None if before is None or last is None else joules(last, before)

    return meter


def _gpu(uuid: str) -> Any:
    """NVML's handle of the GPU that torch knows by ``uuid``; None if that counts no energy.

    NVML's own numbers do not follow ``CUDA_VISIBLE_DEVICES``. Parts of a GPU (MIG) have no
    counter, nor have GPUs older than Volta.
    """
    if nvml() is None:
        return None
    handle = ask_driver(nvml().nvmlDeviceGetHandleByUUID, f"GPU-{uuid}")
    return None if handle is None or _gpu_joules(handle) is None else handle


def _gpu_joules(handle: Any) -> float | None:
    millijoules = ask_driver(nvml().nvmlDeviceGetTotalEnergyConsumption, handle)
    return None if millijoules is None else millijoules / 1000


def _packages() -> list[Path]:
    """The processors whose counter can be read; empty unless all can."""
    try:
        domains = sorted(POWERCAP.glob("intel-rapl:[0-9]*"))  # AMD's have this name too.
        # Their parts, as intel-rapl:0:1, and the whole platform would be counted twice.
        packages = [d for d in domains if (d / "name").read_text().startswith("package")]
        for package in packages:
            _microjoules(package)
    except (OSError, ValueError):
        return []
    return packages


def _microjoules(package: Path) -> tuple[int, int]:
    """The counter of a package, and how far it counts."""
    counter = int((package / "energy_uj").read_text())
    return counter, int((package / "max_energy_range_uj").read_text())


def _processor_counters(packages: list[Path]) -> _Counters | None:
    try:
        counters = [_microjoules(package) for package in packages]
        return counters, time.process_time(), _busy_seconds(), time.monotonic()
    except (OSError, ValueError, TypeError):  # Nothing that a training should end for.
        return None


def _processor_joules(last: _Counters, before: _Counters) -> float | None:
    seconds = last[3] - before[3]
    if any(seconds * _MOST_WATTS > reach / 1e6 for _, reach in before[0]):
        return None
    pairs = zip(before[0], last[0], strict=True)
    joules = sum((after - counter) % reach for (counter, reach), (after, _) in pairs) / 1e6
    own = last[1] - before[1]
    # The machine's clock ticks in hundredths: of short times it may say less.
    busy = max(last[2] - before[2], own)
    return joules * own / busy if busy else 0.0


def _busy_seconds() -> float:
    """Time that all processors together have not been idle."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
