"""Trainings to be compared: what their tests do with them."""

import torch

from optnas.objectives.training.trainer import Trainer


def train(subject: Trainer, epochs: int) -> Trainer:
    """Train for so many epochs."""
    for _ in range(epochs):
        subject.train_epoch()
    return subject


def same(a: Trainer, b: Trainer) -> bool:
    """Whether two trainings have come to the same, bit for bit."""
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in weights) and a.history == b.history
