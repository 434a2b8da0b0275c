"""torch's fused optimisers, without what every one of their methods does for torch.compile.

That begins with an import of ``torch._dynamo``, which takes a second
(docs/measurements/speed.md), and nobody compiles the steps of a search.
"""

import inspect
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from optnas.config.settings import TrainSettings

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")


def make_optimizer(
    parameters: list[nn.Parameter], settings: TrainSettings, model: nn.Module | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a recipe.

    Args:
        parameters: What it trains.
        settings: The recipe.
        model: The network, whose normalisations and biases may be spared the weight decay.
    """
    groups: list[Any] = list(parameters)
    spared = set() if model is None else _spared(settings, model)
    if spared:
        groups = [
            {"params": [p for p in parameters if id(p) not in spared]},
            {"params": [p for p in parameters if id(p) in spared], "weight_decay": 0.0},
        ]
    if settings.optimizer == "adamw":
        return _AdamW(groups, settings.lr, weight_decay=settings.weight_decay, fused=True)
    return _SGD(
        groups,
        settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _spared(settings: TrainSettings, model: nn.Module) -> set[int]:
    """What has no weight decay, by identity."""
    spared: set[int] = set()
    for part in model.modules():
        if not settings.decay_norms and isinstance(part, _NORMS):
            spared.update(map(id, part.parameters(recurse=False)))
        if not settings.decay_biases and isinstance(getattr(part, "bias", None), nn.Parameter):
            spared.add(id(part.bias))
    return spared


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
