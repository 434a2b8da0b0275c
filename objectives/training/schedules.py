"""The learning rate over the epochs."""

import math

from optnas.config.settings import TrainSettings


def learning_rate(settings: TrainSettings, epoch: int, epochs: int, further: int = 0) -> float:
    """Learning rate of an epoch: a pure function, so that there is no scheduler to save.

    A warm-up of n epochs rises from ``lr / (n + 1)`` in equal steps, and the schedule begins with
    ``lr`` after it; milestones count all epochs.

    Source: SGDR (Loshchilov and Hutter 2017), equation 5, with cycles of equal length; for steps
    He et al. 2016, section 4.2; for the warm-up Goyal et al. 2017, section 2.2.

    Args:
        settings: The rate at the start of a cycle, the schedule and its cycles.
        epoch: Number of finished epochs, less than ``epochs + further``.
        epochs: Length of the warm-up and the schedule, which is a multiple of its cycles; the
            cosine would reach its end after the last epoch of a cycle.
        further: Epochs after the schedule: for ``"cosine"`` they are a cycle of their own; the
            others keep their last rate.
    """
    warmup = settings.warmup_epochs
    if epoch < warmup:
        return settings.lr * (epoch + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return settings.lr
    if settings.milestones is not None:
        passed = sum(epoch >= milestone for milestone in settings.milestones)
        return settings.lr / 10.0**passed
    epoch, epochs = epoch - warmup, epochs - warmup
    if settings.schedule == "step":
        return settings.lr / 10.0 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
    return settings.final_lr + (settings.lr - settings.final_lr) * _share(
        settings, epoch, epochs, further
    )


def _share(settings: TrainSettings, epoch: int, epochs: int, further: int) -> float:
    """How much of the way from the end to the start is left."""
    if settings.schedule == "cosine":
        length = epochs // settings.cycles
        if epoch >= epochs:
            epoch, length = epoch - epochs, further
        return (1 + math.cos(math.pi * (epoch % length) / length)) / 2
    power = 1.0 if settings.schedule == "linear" else settings.power
    return float((1 - min(epoch, epochs - 1) / epochs) ** power)
