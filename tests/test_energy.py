"""Energy of a training, with counters that are made up: no such device is at hand."""

import os
import types

import psutil
import pynvml
import pytest
import torch

from optnas.devices import energy

CPU = torch.device("cpu")
STAT = "cpu  {user} 0 0 1000 10 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 0 0 0\n"
REACH = 262_143_328_850


class Processor:
    """A machine whose counters and clocks say what a test wants."""

    def __init__(self, folder, monkeypatch, *, packages=2):
        self.powercap, self.stat = folder / "powercap", folder / "stat"
        self.own = self.clock = 0.0
        domains = {f"intel-rapl:{n}": f"package-{n}" for n in range(packages)}
        domains |= {"intel-rapl:0:0": "core", "intel-rapl:9": "psys", "intel-rapl": "top"}
        for domain, name in domains.items():
            path = self.powercap / domain
            path.mkdir(parents=True)
            (path / "name").write_text(name + "\n")
            (path / "energy_uj").write_text("0\n")
            (path / "max_energy_range_uj").write_text(f"{REACH}\n")
        self.set(busy=0.0)
        monkeypatch.setattr(energy, "POWERCAP", self.powercap)
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(folder))
        clocks = types.SimpleNamespace(process_time=lambda: self.own, monotonic=lambda: self.clock)
        monkeypatch.setattr(energy, "time", clocks)

    def set(self, *, busy, own=0.0, clock=0.0, **joules):
        self.own, self.clock = own, clock
        ticks = os.sysconf("SC_CLK_TCK")
        self.stat.write_text(STAT.format(user=round(busy * ticks)))
        for package, value in joules.items():
            path = self.powercap / f"intel-rapl:{package.removeprefix('p')}" / "energy_uj"
            path.write_text(f"{round(value * 1e6)}\n")


def test_a_process_has_its_share_of_all_packages(tmp_path, monkeypatch):
    machine = Processor(tmp_path, monkeypatch)
    lap = energy.energy_meter(CPU)
    machine.set(p0=100.0, p1=20.0, own=3.0, busy=4.0, clock=10)
    assert lap() == pytest.approx(90)
    machine.set(p0=150.0, p1=30.0, own=4.0, busy=6.0, clock=20)
    assert lap() == pytest.approx(30)


def test_a_counter_that_starts_again_goes_on(tmp_path, monkeypatch):
    machine = Processor(tmp_path, monkeypatch, packages=1)
    machine.set(p0=REACH / 1e6 - 10, busy=0)
    lap = energy.energy_meter(CPU)
    machine.set(p0=30, own=5.0, busy=5.0, clock=60)
    assert lap() == pytest.approx(40)


def test_what_may_have_gone_round_twice_is_not_known(tmp_path, monkeypatch):
    machine = Processor(tmp_path, monkeypatch, packages=1)
    lap = energy.energy_meter(CPU)
    machine.set(p0=30, own=5.0, busy=5.0, clock=3600)
    assert lap() is None
    machine.set(p0=40, own=6.0, busy=6.0, clock=3610)
    assert lap() == pytest.approx(10)


def test_a_clock_that_ticks_too_slowly_gives_no_more_than_all(tmp_path, monkeypatch):
    machine = Processor(tmp_path, monkeypatch, packages=1)
    lap = energy.energy_meter(CPU)
    machine.set(p0=2, own=0.005, busy=0.0)
    assert lap() == pytest.approx(2)
    machine.set(p0=3, own=0.005, busy=0.0)
    assert lap() == 0


def test_a_counter_that_can_no_longer_be_read_ends_nothing(tmp_path, monkeypatch):
    machine = Processor(tmp_path, monkeypatch)
    lap = energy.energy_meter(CPU)
    machine.stat.write_text("cpu 1\n")
    assert lap() is None
    machine.stat.unlink()
    assert lap() is None


@pytest.mark.parametrize("content", [None, "not a number", ""])
def test_without_a_readable_counter_nothing_is_known(tmp_path, monkeypatch, content):
    machine = Processor(tmp_path, monkeypatch)
    counter = machine.powercap / "intel-rapl:1" / "energy_uj"
    counter.unlink()
    if content is not None:
        counter.write_text(content)
    assert energy.energy_meter(CPU)() is None
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert energy.energy_meter(CPU)() is None


class Driver:
    """`pynvml` with one GPU."""

    def __init__(self, uuid="GPU-1234", *, counts=True):
        self.uuid, self.counts, self.millijoules = uuid, counts, 0

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != self.uuid:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return 42

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        assert handle == 42
        if not self.counts:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.millijoules


@pytest.fixture
def cuda(monkeypatch):
    properties = types.SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return torch.device("cuda:0")


def test_a_gpu_counts_for_itself(monkeypatch, cuda):
    driver = Driver()
    monkeypatch.setattr(energy, "nvml", lambda: driver)
    lap = energy.energy_meter(cuda)
    driver.millijoules = 2500
    assert lap() == 2.5
    driver.millijoules = 4000
    assert lap() == 1.5
    driver.counts = False
    assert lap() is None


@pytest.mark.parametrize("driver", [None, Driver("GPU-5678"), Driver(counts=False)])
def test_a_gpu_without_a_counter_is_not_measured(monkeypatch, cuda, driver):
    monkeypatch.setattr(energy, "nvml", lambda: driver)
    assert energy.energy_meter(cuda)() is None
