"""Trainings to be compared: what their tests train on, and do with them."""

import dataclasses
import weakref
from typing import Any

import torch

from optnas.objectives.data import Images
from optnas.objectives.training.trainer import Trainer


def some(images: Images, train: int, validation: int | None = None, **changes: Any) -> Images:
    """The first images of a data set, for what is not about learning."""
    return dataclasses.replace(
        images,
        train_images=images.train_images[:train],
        train_labels=images.train_labels[:train],
        validation_images=images.validation_images[:validation],
        validation_labels=images.validation_labels[:validation],
        **changes,
    )


def train(subject: Trainer, epochs: int) -> Trainer:
    """Train for so many epochs."""
    for _ in range(epochs):
        subject.train_epoch()
    return subject


def same(a: Trainer, b: Trainer) -> bool:
    """Whether two trainings have come to the same, bit for bit."""
    return not difference(a, b)


def difference(a: Trainer, b: Trainer) -> str:
    """In what two trainings differ first; nothing if they have come to the same, bit for bit."""
    for epoch, (own, other) in enumerate(zip(a.history, b.history, strict=False), start=1):
        if own != other:
            return f"epoch {epoch}: {own} and {other}"
    weights = b.model.state_dict()
    for name, own in a.model.state_dict().items():
        if not torch.equal(own, weights[name]):
            most = (own.double() - weights[name].double()).abs().max().item()
            return f"{name} of shape {tuple(own.shape)}: by {most} at most"
    trained = (len(a.history), len(b.history))
    return "" if len(set(trained)) == 1 else f"{trained[0]} and {trained[1]} epochs"


class StandIn:
    """Does on the CPU what `graphs.StepGraph` does: capturing executes nothing, replaying does."""

    def __init__(self, device: torch.device, beside: "StandIn | None" = None) -> None:
        self.is_captured = False
        self.beside = beside
        self.calls: list[str] = []
        graph_of.append(self)

    def fits(self) -> bool:
        return True

    def warm_up(self, step, *batch):
        self.calls.append("warm up")
        return step(*batch)

    def capture(self, step, *batch):
        self.calls.append("capture")
        # Weak, as a graph of CUDA knows nothing of the trainer.
        self._step = weakref.WeakMethod(step)
        self._buffers = tuple(tensor.clone() for tensor in batch)
        self._addresses = addresses(step.__self__)
        self.is_captured = True

    def replay(self, *batch):
        self.calls.append("replay")
        for buffer, given in zip(self._buffers, batch, strict=True):
            assert buffer.stride() == given.stride()
            buffer.copy_(given)
        assert addresses(self._step().__self__) == self._addresses
        return [logits.clone() for logits in self._step()(*self._buffers)]


def addresses(subject: Trainer) -> list[int]:
    """Of what a step reads and changes: a graph would go on with the tensors of its capture."""
    optimizer = subject._optimizer
    states = [optimizer.state[parameter] for parameter in subject._parameters]
    kept = [value for state in states for value in state.values() if value is not None]
    rates = [group["lr"] for group in optimizer.param_groups]
    return [t.data_ptr() for t in (*subject.model.state_dict().values(), *kept, *rates)]


graph_of: list[StandIn] = []
"""The stand-ins of a test, in the order of their making."""
