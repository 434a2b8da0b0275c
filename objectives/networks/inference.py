"""How long a network takes for one image, on the CPU of this machine."""

import contextlib
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from optnas.config.proxy import Proxy
from optnas.config.settings import NetworkSettings, TrainSettings
from optnas.objectives.networks.build import build_model
from optnas.objectives.networks.sizes import candidate_network
from optnas.spaces import Architecture

WARM_UP, LEAST, MOST = 3, 11, 101
"""Numbers of images: before the clock counts, and timed, at least and at most."""
SECONDS = 0.5
"""After this no more images are timed than the least number."""


# The time of the thread itself, without that of others on a busy machine: with one thread it is
# what a clock on the wall shows on an idle one. Windows counts it in sixtieths of a second.
_precise = time.get_clock_info("thread_time").resolution < 1e-4
_clock = time.thread_time if _precise else time.perf_counter


def inference_times(
    shapes: Mapping[Architecture, tuple[int, int, int]],
    classes: int,
    *,
    network: NetworkSettings,
    train: TrainSettings,
    proxy: Proxy | None,
) -> tuple[dict[Architecture, float], str]:
    """Milliseconds of networks as a search builds them, and the processor that took them.

    Those that are too large for this machine are left out.

    Args:
        shapes: Channels, height and width of the image, by architecture.
        classes: Number of classes.
        network: The size of the networks.
        train: How they were trained.
        proxy: The reduced setting in which they were judged; None is the full one.
    """
    options, times = network.model_dump(exclude_none=True), {}
    for architecture, shape in shapes.items():
        try:
            sized, taken = candidate_network(architecture, options, train, proxy)
            model = build_model(sized, shape, classes, **taken)
            times[architecture] = inference_milliseconds(model, shape)
        except (TypeError, ValueError, RuntimeError, MemoryError):
            continue
    return times, processor()


def inference_milliseconds(model: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """The median time of one image: a batch of one, float32, in evaluation mode, one thread.

    Args:
        model: A network on the CPU; its statistics of normalisation are set anew.
        input_shape: Channels, height and width of the image.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            images = torch.rand(4, *input_shape, generator=torch.Generator().manual_seed(0))
            _settle(model, images)
            return _median(model.eval(), images[:1])
    finally:
        torch.set_num_threads(before)


def processor() -> str:
    """The name of this machine's CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _settle(model: nn.Module, images: torch.Tensor) -> None:
    """Have normalisation fit fresh weights: CPUs are slow with the tiny numbers of long chains."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    model.train()(images)


def _median(model: nn.Module, image: torch.Tensor) -> float:
    for _ in range(WARM_UP):
        model(image)
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and sum(times) < SECONDS):
        start = _clock()
        model(image)
        times.append(_clock() - start)
    return 1000 * statistics.median(times)
