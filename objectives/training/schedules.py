"""The learning rate over the epochs."""

import math

from optnas.config.settings import TrainSettings


def learning_rate(settings: TrainSettings, epoch: int, epochs: int, further: int = 0) -> float:
    """Learning rate of an epoch: a pure function, so that there is no scheduler to save.

    Source: SGDR (Loshchilov and Hutter 2017), equation 5, with cycles of equal length; for steps
    He et al. 2016, section 4.2.

    Args:
        settings: The rate at the start of a cycle, the schedule and its cycles.
        epoch: Number of finished epochs, less than ``epochs + further``.
        epochs: Length of the schedule, a multiple of its cycles; the cosine would reach zero after
            the last epoch of a cycle.
        further: Epochs after the schedule: for ``"cosine"`` they are a cycle of their own; the
            others keep their last rate.
    """
    if settings.schedule == "constant":
        return settings.lr
    if settings.milestones is not None:
        passed = sum(epoch >= milestone for milestone in settings.milestones)
        return settings.lr / 10.0**passed
    if settings.schedule == "step":
        return settings.lr / 10.0 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
    length = epochs // settings.cycles
    if epoch >= epochs:
        epoch, length = epoch - epochs, further
    return settings.lr * (1 + math.cos(math.pi * (epoch % length) / length)) / 2
