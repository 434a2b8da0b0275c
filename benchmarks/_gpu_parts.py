"""The parts of `gpu.py`: each measures something on one device and yields what it found."""

import contextlib
import dataclasses
import importlib.util
import json
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import torch
from _harness import about
from epoch import NETWORKS, Network, chain, images_of, part, plain, product, training
from search import SEARCH, network_of

from optnas.config.settings import TrainSettings
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import ChainArchitecture, ChainSpace

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "tests" / "data" / "macro_micro_traces.json"
TRAIN, VALIDATION = 45_000, 5_000
"""Images of an epoch of CIFAR-10."""
KERNELS = ("auto", "torch")
OTHERS = {f"chain ({d}, {w})": (chain(d, w), {}) for d, w in ((20, 64), (26, 46), (26, 48))}
EPOCHS_OF: dict[str, Network] = {
    name: (NETWORKS | OTHERS)[name]
    for name in ("chain (10, 64)", "chain (20, 64)", *list(OTHERS)[1:], "ResNet (6, 6, 6)")
}
WIDTHS = (60, 58, 56, 54, 52, 50, 46, 42, 38, 34)
STREAMS = (1, 2, 4, 8)
TESTS = ("test_gpus.py", "test_cuda_graphs.py", "test_memory.py", "test_gpu_sharing.py")
TESTS += ("test_padding.py", "test_kernels.py", "test_streams.py")
# What kernels do, told from their names; the first that fits.
KINDS = {
    "batch norm": "batch_?norm|bn_",
    "depthwise": "depthwise|dgrad2d_grouped|conv2d_grouped",
    "casts and copies": "copy|cast|memcpy|memset|fill|cat",
    "convolutions and matrices": "gemm|conv|cutlass|xmma|cudnn|mm|dgrad|wgrad",
    "optimiser and clipping": "sgd|adam|multi_tensor|norm",
    "ReLU": "relu|clamp|threshold",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Args:
        part: Of which part.
        what: What was measured.
        value: The figure; a text where it is none.
        unit: Its unit.
        n: How often it was measured.
        note: What else is worth knowing.
    """

    part: str
    what: str
    value: float | str
    unit: str = ""
    n: int = 1
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """What all parts are given.

    Args:
        images: CIFAR-10, or what stands for it, in main memory.
        device: Where to measure.
        quick: Whether a little of everything suffices, to try the command.
        done: Seconds of the evaluations of the published search that are known, by number.
    """

    images: Images
    device: str
    quick: bool
    done: dict[str, float]

    @property
    def few(self) -> Images:
        """Images of a few steps, with a last batch that is smaller."""
        return part(self.images, 64 * (2 if self.quick else 6) + 8, 72)

    def training(self, network: Network, images: Images, **settings: Any) -> Trainer:
        """A training that has not begun."""
        return training(network, images, self.device, 1, "auto", **settings)


Part = Callable[[Task], Iterator[Row]]


def the_images(root: Path | None, *, quick: bool) -> Images:
    """CIFAR-10, or random pixels in its place; repeated where there are too few, for speed.

    Digits where it must be quick.
    """
    if quick:
        return part(images_of("digits", None, whole=True)[0], 160, 72)
    images, _ = images_of("cifar10", root, whole=True)
    train = torch.arange(TRAIN) % len(images.train_images)
    held_out = torch.arange(VALIDATION) % len(images.validation_images)
    return dataclasses.replace(
        images,
        train_images=images.train_images[train],
        train_labels=images.train_labels[train],
        validation_images=images.validation_images[held_out],
        validation_labels=images.validation_labels[held_out],
    )


def seconds(device: str, work: Callable[[], object]) -> float:
    """Seconds of some work, and of what it left to the device."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def forget(device: str) -> None:
    """Free the memory of trainings that are gone."""
    if device != "cpu":
        torch.cuda.empty_cache()


def install(task: Task) -> Iterator[Row]:
    """What is there: versions, the GPU, a product of matrices."""
    for name, value in about(task.device).items():
        yield Row("install", name, str(value))
    has_triton = importlib.util.find_spec("triton") is not None
    yield Row("install", "triton", "there" if has_triton else "missing: no kernels of our own")
    if task.device == "cpu":
        yield Row("install", "gpu", "none: these figures say nothing of one")
        return
    yield Row("install", "capability", str(torch.cuda.get_device_capability()))
    yield Row("install", "context", seconds(task.device, torch.cuda.init), "s")
    square = torch.ones(256, 256, device=task.device)
    yield Row("install", "a product of matrices", float((square @ square)[0, 0]), "(256)")


class Told:
    """A plugin of pytest that tells what failed, and why, as soon as it has."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
        self.failures: list[Row] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = str(report.longrepr if crash is None else crash.message)
            first = " ".join(reason.split())[:300]
            self.failures.append(
                Row("tests", report.nodeid.rpartition("/")[2], "failed", note=first)
            )


def tests(task: Task) -> Iterator[Row]:
    """The tests that know of GPUs, in this one process; ten failures end them."""
    import pytest

    for name in ("psycopg", "pymysql"):  # `conftest.py` imports them; no test here does.
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
    files = [str(ROOT / "tests" / name) for name in TESTS[: 1 if task.quick else None]]
    told = Told()
    options = ["-q", "--tb=short", "--maxfail=10", "-p", "no:cacheprovider", f"--rootdir={ROOT}"]
    with contextlib.redirect_stdout(sys.stderr):
        code = pytest.main([*options, *files], plugins=[told])
    if not any(told.counts.values()):  # Silence would look like success.
        raise RuntimeError(f"pytest ran no tests (exit code {int(code)})")
    yield from told.failures
    for outcome, number in told.counts.items():
        yield Row("tests", outcome, number)
    if code == pytest.ExitCode.INTERRUPTED:  # Pytest ends in order where it is told to.
        raise KeyboardInterrupt


def epochs(task: Task) -> Iterator[Row]:
    """Epochs of networks, and their steps; the first of each has libraries make its kernels."""
    repeats = 1 if task.quick else 2
    for kernels in KERNELS:
        for name in list(EPOCHS_OF)[: 1 if task.quick else None]:
            trainer = task.training(EPOCHS_OF[name], task.images, kernels=kernels)
            first, *times = [seconds(task.device, trainer.train_epoch) for _ in range(1 + repeats)]
            what = f"{name}, kernels: {kernels}"
            note = f"first {first:.2f} s" + (f"; {why}" if (why := trainer.eager_reason) else "")
            yield Row("epochs", f"epoch of {what}", sum(times) / repeats, "s", repeats, note)
            yield from steps(what, stepping(trainer), task)
            del trainer
            forget(task.device)
    others: dict[str, Any] = {"without graphs": {"graphs": False}}
    others["deterministic"] = {"deterministic": True}
    for other, keys in others.items() if not task.quick else ():
        name = "chain (10, 64)"
        epoch = product(EPOCHS_OF[name], task.images, task.device, 1, "auto", **keys)
        epoch()
        yield Row("epochs", f"epoch of {name}, {other}", seconds(task.device, epoch), "s")
    if not task.quick:
        epoch = plain(EPOCHS_OF[name], task.images, task.device, 1)
        yield Row("epochs", f"epoch of {name}, the plain loop", seconds(task.device, epoch), "s")


def first_epochs(task: Task) -> Iterator[Row]:
    """What a width never seen costs before the first epoch is over, by whose depthwise it has."""
    kinds = ["ours"] if task.device == "cpu" else ["ours", "torch's", "cuDNN's"]
    for kind in kinds:
        for width in WIDTHS[: 1 if task.quick else None]:
            kernels = "torch" if kind == "cuDNN's" else "auto"
            trainer = task.training((chain(10, width), {}), task.few, kernels=kernels)
            if kind == "torch's":
                from optnas.objectives.kernels import use_kernels

                use_kernels(trainer.model, trainer.device, depthwise="aten")
            first, second = (seconds(task.device, trainer.train_epoch) for _ in range(2))
            what = f"first epoch of chain (10, {width}) over the second, {kind} depthwise"
            yield Row("first epochs", what, first - second, "s", 1, f"second {second:.3f} s")
            del trainer
            forget(task.device)


def steps(what: str, step: Callable[[], object], task: Task) -> Iterator[Row]:
    """A step replayed, and of the first network what its time goes to on the device."""
    number = 2 if task.quick else 100
    spent = seconds(task.device, lambda: [step() for _ in range(number)])
    yield Row("epochs", f"step of {what}", 1e3 * spent / number, "ms", number)
    if what.startswith("chain (10, 64)"):
        yield from profile(f"step of {what}", step, task.device)


def stepping(trainer: Trainer) -> Callable[[], object]:
    """A step of a training that has done an epoch, from its graph where there is one."""
    graph = None if trainer._staged is None else trainer._staged._graph
    if graph is not None and graph.is_captured:
        return graph._graph.replay  # type: ignore[union-attr]
    inputs, labels = next(iter(trainer._chunks()))
    full = trainer._full
    trainer.model.train()
    return lambda: trainer._train_batch(inputs[:full], labels[:full])


def profile(what: str, step: Callable[[], object], device: str) -> Iterator[Row]:
    """How many kernels a step has, and the share of each kind in their time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    on_gpu = device != "cpu"
    repeats = 20 if on_gpu else 3
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    with profiling(activities=[activity]) as made:
        wall = seconds(device, lambda: [step() for _ in range(repeats)])
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = [(e.key, e.count, getattr(e, field)) for e in made.key_averages()]
    events = [event for event in events if event[2] > 0]
    busy = sum(spent for *_, spent in events)
    kernels = sum(count for _, count, _ in events) / repeats
    yield Row("epochs", f"kernels of a {what}", kernels, "" if on_gpu else "operations", repeats)
    yield Row("epochs", f"busy part of a {what}", busy / 1e4 / wall, "%", repeats)
    shares = dict.fromkeys((*KINDS, "other"), 0.0)
    for key, _, spent in events:
        kind = next((k for k, p in KINDS.items() if re.search(p, key, re.I)), "other")
        shares[kind] += 100 * spent / busy
    for kind, share in shares.items():
        yield Row("epochs", f"{kind} in a {what}", share, "%", repeats)


def streams(task: Task) -> Iterator[Row]:
    """Epochs of trials that one process trains at once, in threads with a stream each."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    depths = (10, 20)[: 1 if task.quick else None]
    images = part(task.images, *((160, 72) if task.quick else (15_000, 1_000)))
    recipe = TrainSettings(epochs=2 if task.quick else 4)
    for depth in depths:
        space = ChainSpace(depth=(depth, depth), width=(64, 64))
        objective = Classification(space, images, train=recipe, device=task.device, seed=0)
        ends_of(objective, chain(depth, 64), 1)  # Kernels are made.
        single = 0.0
        for count in STREAMS[: 2 if task.quick else None]:
            ends = ends_of(objective, chain(depth, 64), count)
            # From when each has trained an epoch until one has trained all.
            first, last = max(min(each) for each in ends), min(max(each) for each in ends)
            done = sum(first < end <= last for each in ends for end in each)
            rate = done / (last - first) if first < last else 0.0
            single = single or rate
            what = f"epochs of {count} trials at once, chain ({depth}, 64)"
            note = f"{rate / single:.2f} of one; {len(images.train_images):,} images"
            yield Row("streams", what, rate, "a second", done, note)
        forget(task.device)


def ends_of(
    objective: Classification, architecture: ChainArchitecture, count: int
) -> list[list[float]]:
    """When the epochs of so many trials ended that threads train at once; a list for each."""
    ends: dict[int, list[float]] = {}

    def on_epoch(_: Any) -> None:
        ends.setdefault(threading.get_ident(), []).append(time.perf_counter())

    def train() -> None:
        study = optuna.create_study(study_name="streams", direction="maximize")
        study.enqueue_trial(objective.space.to_params(architecture))
        study.optimize(objective, n_trials=1)

    objective.on_epoch = on_epoch
    with ThreadPoolExecutor(count) as pool:
        for trained in [pool.submit(train) for _ in range(count)]:
            trained.result()
    return list(ends.values())


def topology(task: Task) -> Iterator[Row]:
    """FTSO's search of a topology: an epoch and an iteration of the skip-only super-network."""
    from ftso import searching

    nobody = {"validation_images": task.images.validation_images[:0]}
    nobody["validation_labels"] = task.images.validation_labels[:0]
    images = dataclasses.replace(task.images, **nobody).to(task.device)
    size = {"cells": 3, "channels": 4} if task.quick else {"cells": 8, "channels": 16}
    for name, iterations in (("iteration", 1), ("epoch", None)):
        trainer = searching("skip", images, iterations, 32 if task.quick else 256, size, epochs=99)
        times = [seconds(task.device, trainer.train_epoch) for _ in range(2)]
        note = f"first {times[0]:.2f} s"
        yield Row("FTSO", f"{name} of the skip-only search", times[1], "s", 1, note)


def search(task: Task) -> Iterator[Row]:
    """The published search, evaluation after evaluation, from where it was left."""
    evaluations = json.loads(TRACE.read_text())[SEARCH]["evaluations"]
    for number, evaluation in enumerate(evaluations[: 1 if task.quick else None]):
        if str(number) in task.done:
            continue
        length = 1 if task.quick else evaluation["epochs"]
        trainer = task.training(network_of(evaluation), task.images, epochs=length)

        def work(trainer: Trainer = trainer) -> None:
            while trainer.epoch < trainer.epochs:
                trainer.train_epoch()

        spent = seconds(task.device, work)
        yield Row("search", str(number), spent, "s", length)
        del trainer, work
        forget(task.device)


PARTS: dict[str, tuple[Part, float]] = {
    "install": (install, 5),
    "tests": (tests, 75),
    "epochs": (epochs, 105),
    "first epochs": (first_epochs, 40),
    "streams": (streams, 20),
    "FTSO": (topology, 15),
    "search": (search, 40),
}
"""What is measured, in this order, and for how many of 300 seconds at most."""
