"""How long an epoch of a training takes, from a few steps of it."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from optnas.objectives.data.batches import batch_bounds
from optnas.objectives.training.trainer import Trainer

LEAST_IMAGES = 2
"""Batch normalisation needs two."""


def timed_epoch(
    trainer: Trainer, number: int, images: int | None = None, *, seconds: float
) -> float:
    """Seconds that an epoch takes on a free machine, the judgement included.

    On the CPU that is the processor time of a thread, as others may be at work; not with images in
    files, whose reading is waited for.

    The network learns from what is timed: throw it away. The first step is not timed, as it
    takes memory and compiles what others find made.

    Args:
        trainer: The training, not begun.
        number: Images that an epoch trains on.
        images: Images to try at once, fewer than a batch where memory or time is short; the time
            of a batch is then as many times longer. Default: a batch.
        seconds: For how long steps are repeated, and answers; one of each is timed anyway.

    Raises:
        RuntimeError: If memory does not suffice.
    """
    size = trainer.settings.batch_size
    at_once = size if images is None else max(LEAST_IMAGES, min(images, size))
    clock = _clock(trainer)
    trainer.model.train()
    start = clock()
    inputs, labels = next(iter(trainer._chunks()))
    drawn = clock() - start
    batches = [slice(*bounds) for bounds in batch_bounds(len(inputs), at_once)]
    batches = [b for b in batches if b.stop - b.start == at_once] or batches[:1]

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        trainer._step(inputs[batch], labels[batch])

    @torch.inference_mode()
    def answer(_: int) -> None:
        with trainer._precision():
            trainer.model(inputs[batches[0]])

    size = batches[0].stop - batches[0].start
    taught = _repeated(step, clock, seconds) / size
    trainer.model.eval()
    judged = _repeated(answer, clock, seconds) / size
    held_out = len(trainer.images.validation_images)
    return number * (taught + drawn / len(inputs)) + held_out * judged


def _clock(trainer: Trainer) -> Callable[[], float]:
    """What tells the seconds of a training, once the device has done what it was given."""
    device, threads = trainer.device, trainer.settings.threads
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised
    if isinstance(trainer.images.train_images, Tensor):
        return lambda: time.process_time() / threads
    return time.perf_counter


def _repeated(work: Callable[[int], None], clock: Callable[[], float], seconds: float) -> float:
    """Seconds of a piece of work, the middle one of some."""
    work(0)
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = clock()
        work(len(times))
        times.append(clock() - start)
    return sorted(times)[len(times) // 2]
