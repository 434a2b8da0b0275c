"""torch's fused optimisers, without what every one of their methods does for torch.compile.

That begins with an import of ``torch._dynamo``, which takes a second (docs/performance.md), and
nobody compiles the steps of a search.
"""

import inspect
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
