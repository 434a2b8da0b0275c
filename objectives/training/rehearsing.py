"""How long an epoch of a training takes, from a few steps of it."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from optnas.objectives.data.batches import batch_bounds
from optnas.objectives.training.trainer import Trainer

TIMED = 0.25
"""Seconds for which steps are repeated; one is timed anyway."""
LEAST_IMAGES = 2
"""Batch normalisation needs two."""


def timed_epoch(trainer: Trainer, number: int, images: int | None = None) -> float:
    """Seconds that an epoch takes, the judgement on validation images included.

    The network learns from what is timed: throw it away. The first step is not timed, as it
    takes memory and compiles what others find made.

    Args:
        trainer: The training, not begun.
        number: Images that an epoch trains on.
        images: Images to try at once, fewer than a batch where memory or time is short; the time
            of a batch is then as many times longer. Default: a batch.

    Raises:
        RuntimeError: If memory does not suffice.
    """
    size = trainer.settings.batch_size
    at_once = size if images is None else max(LEAST_IMAGES, min(images, size))
    trainer.model.train()
    drawn, inputs, labels = _timed_chunk(trainer)
    batches = [slice(*bounds) for bounds in batch_bounds(len(inputs), at_once)]
    batches = [b for b in batches if b.stop - b.start == at_once] or batches[:1]

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        trainer._step(inputs[batch], labels[batch])

    taught = _repeated(step, trainer.device) / (batches[0].stop - batches[0].start)
    judged = _timed_judgement(trainer, inputs[batches[0]])
    held_out = len(trainer.images.validation_images)
    return number * (taught + drawn / len(inputs)) + held_out * judged


def _timed_chunk(trainer: Trainer) -> tuple[float, Tensor, Tensor]:
    """A piece of what an epoch trains on, and the seconds of making it."""
    start = time.perf_counter()
    inputs, labels = next(iter(trainer._chunks()))
    _wait(trainer.device)
    return time.perf_counter() - start, inputs, labels


def _timed_judgement(trainer: Trainer, inputs: Tensor) -> float:
    """Seconds in which the network answers an image."""
    trainer.model.eval()

    @torch.inference_mode()
    def answer(number: int) -> None:
        with trainer._precision():
            trainer.model(inputs)

    return _repeated(answer, trainer.device) / len(inputs)


def _repeated(work: Callable[[int], None], device: torch.device) -> float:
    """Seconds of a piece of work, the middle one of some."""
    work(0)
    _wait(device)
    times: list[float] = []
    while not times or sum(times) < TIMED:
        start = time.perf_counter()
        work(len(times))
        _wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
