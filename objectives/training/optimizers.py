"""torch's fused optimisers, without what every one of their methods does for torch.compile.

That begins with an import of ``torch._dynamo``, which takes a second (docs/performance.md), and
nobody compiles the steps of a search.
"""

import inspect
import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from optnas.config.settings import TrainSettings

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")


def make_optimizer(
    parameters: list[nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """The optimiser of a recipe.

    Args:
        parameters: What it trains.
        settings: The recipe.
    """
    if settings.optimizer == "adamw":
        return _AdamW(parameters, settings.lr, weight_decay=settings.weight_decay, fused=True)
    return _SGD(
        parameters,
        settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Give all parameters one learning rate.

    Args:
        optimizer: One of `make_optimizer`.
        rate: The rate. As a tensor, float32 () on the device of the parameters, it may be filled
            anew later: a step that was captured as a CUDA graph reads it whenever it is replayed.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "capturable" in group:  # AdamW's; SGD is without asking.
            group["capturable"] = isinstance(rate, Tensor)


def without_compiling(kind: type[Optimizer]) -> type[Optimizer]:
    """A kind of optimiser with the same methods as they were before they were wrapped."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    # The wrapper of this one also switches gradients off.
    methods["step"] = torch.no_grad()(methods["step"])
    return type(kind.__name__, (kind,), methods)


_SGD = without_compiling(torch.optim.SGD)
_AdamW = without_compiling(torch.optim.AdamW)


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
    if settings.schedule == "step":
        return settings.lr / 10.0 ** ((2 * epoch >= epochs) + (4 * epoch >= 3 * epochs))
    length = epochs // settings.cycles
    if epoch >= epochs:
        epoch, length = epoch - epochs, further
    return settings.lr * (1 + math.cos(math.pi * (epoch % length) / length)) / 2
