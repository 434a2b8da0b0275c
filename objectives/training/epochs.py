"""Epochs of a training: what one brought, and one that was left in its middle."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor

from optnas.objectives.data.batches import batch_bounds


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What one epoch brought.

    Args:
        train_loss: Mean cross entropy over the training images, in nats.
        train_accuracy: Fraction of the augmented training images that were classified correctly
            while they were trained on.
        validation_accuracy: Fraction of the validation images after the epoch; None without any.
        seconds: Wall-clock time, evaluation included; two results may differ in it and be equal.
        joules: Energy that the device took meanwhile; None where it does not count it.
        validation_value: The trainer's metric on the validation images, if that is not accuracy.
    """

    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    seconds: float = dataclasses.field(compare=False)
    joules: float | None = dataclasses.field(default=None, compare=False)
    validation_value: float | None = None

    @property
    def objective_value(self) -> float:
        """What the search maximises; 0 without validation images."""
        value = self.validation_value
        return (self.validation_accuracy or 0.0) if value is None else value


@dataclasses.dataclass
class BegunEpoch:
    """An epoch on its way: what is needed to go on with it after its last finished batch.

    All that is random about the images of a pass is drawn when it begins, so the generator's
    state of then draws it again. What the network draws itself, in drop-path say, comes later.

    Args:
        start: State of the generator before the epoch.
        sums: Loss and correct answers of the finished pieces, float64 (2,).
        now: State of the generator after the last finished batch, where the epoch was left; None
            otherwise.
        batches: Finished batches.
        images: Images of the finished pieces.
        logits: Outputs on the finished batches of the piece that runs.
        seconds: Time it took so far.
        joules: Energy it took so far; None where the device does not count it.
    """

    start: Tensor
    sums: Tensor
    now: Tensor | None = None
    batches: int = 0
    images: int = 0
    logits: list[Tensor] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    joules: float | None = 0.0

    @classmethod
    def of(cls, generator: torch.Generator, device: torch.device) -> Self:
        """An epoch that begins now."""
        return cls(generator.get_state(), torch.zeros(2, dtype=torch.float64, device=device))

    def left(
        self,
        chunks: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        size: int,
        generator: torch.Generator,
        pass_over: Callable[[int], None],
    ) -> Iterator[tuple[Tensor, Tensor, list[tuple[int, int]]]]:
        """The pieces that are not done, and where their batches begin and end that are not.

        Args:
            chunks: Draws the epoch: its pieces, inputs and labels.
            size: Images of a batch.
            generator: What draws.
            pass_over: Draws what so many batches drew that are done.
        """
        done, number = self.batches - len(self.logits), 0  # Those in whole pieces.
        generator.set_state(self.start)
        for inputs, labels in chunks():
            bounds = batch_bounds(len(inputs), size)
            if number + len(bounds) <= done:
                pass_over(len(bounds))
            else:
                pass_over(len(self.logits))
                self._go_on(generator)  # All of the pass is drawn.
                yield inputs, labels, bounds[len(self.logits) :]
            number += len(bounds)
        self._go_on(generator)  # It was left while it was judged.

    def _go_on(self, generator: torch.Generator) -> None:
        if self.now is not None:
            generator.set_state(self.now)
            self.now = None

    def took(self, seconds: float, joules: float | None) -> None:
        """Count what it took since it began, or was gone on with."""
        self.seconds += seconds
        known = self.joules is not None and joules is not None
        self.joules = (self.joules or 0.0) + (joules or 0.0) if known else None

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and containers that `from_state` reads; of an epoch that was left."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Self:
        """The epoch that a state was taken of."""
        moved = {
            "sums": state["sums"].to(device),
            "logits": [each.to(device) for each in state["logits"]],
            "start": state["start"].cpu(),
            "now": state["now"].cpu(),
        }
        return cls(**{**state, **moved})
