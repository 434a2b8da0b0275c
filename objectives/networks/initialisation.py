"""First weights, drawn from a generator of their own, of whatever layers a network has."""

import math
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from optnas.objectives.networks.mixtures import ArchitectureWeights

_DRAWN_HERE = (nn.Conv2d, nn.Linear)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Set all weights and statistics as PyTorch's constructors do, drawn from ``generator``.

    Args:
        module: Changed in place; its submodules are visited in the order of their construction.
            If it has a method ``draw_weights(layer, generator)``, that draws the weights of its
            convolutions and linear layers.
        generator: The source of the weights. Default: torch's global generator.

    Raises:
        TypeError: If a module with parameters or buffers of its own has no ``reset_parameters``.
    """
    draw_weights = getattr(module, "draw_weights", _draw_weights)
    for name, part in module.named_modules():
        if isinstance(part, _DRAWN_HERE):
            draw_weights(part, generator)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_parameters()  # constants: nothing is drawn
        elif isinstance(part, ArchitectureWeights):
            part.reset_parameters(generator)
        elif _has_state(part):
            if not _can_reset(part):
                raise TypeError(f"Cannot initialise `{name}` of type {type(part).__name__}.")
            with drawn_from(generator):
                part.reset_parameters()


def _draw_weights(part: nn.Conv2d | nn.Linear, generator: torch.Generator | None) -> None:
    nn.init.kaiming_uniform_(part.weight, a=math.sqrt(5), generator=generator)
    if part.bias is not None:
        bound = 1 / math.sqrt(part.weight[0].numel())
        nn.init.uniform_(part.bias, -bound, bound, generator=generator)


def is_initialised(model: nn.Module) -> bool:
    """Whether `initialise` sets everything that the constructors of a network set."""
    return all(_can_reset(part) for part in model.modules() if _has_state(part))


def drawn_from(generator: torch.Generator | None) -> "_Drawing":
    """Have everything that is drawn inside, by this thread alone, come from ``generator``."""
    return _Drawing(generator)


class _Drawing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names the generator in operations that would take the global one."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # To skip torch's compiler it would have to be imported.

    def __init__(self, generator: torch.Generator | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = generator

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        options: dict[str, Any] = dict(kwargs or {})
        if self._generator is not None:
            if not _takes_generator(func) and "generator" in func._overloadpacket.overloads():
                func = func._overloadpacket.generator  # of `rand` and its like
            if _takes_generator(func):
                options.setdefault("generator", None)
                options["generator"] = options["generator"] or self._generator
        return func(*args, **options)


def _takes_generator(func: Any) -> bool:
    return any(argument.name == "generator" for argument in func._schema.arguments)


def _can_reset(part: nn.Module) -> bool:
    return isinstance(part, _DRAWN_HERE) or callable(getattr(part, "reset_parameters", None))


def _has_state(part: nn.Module) -> bool:
    return any(True for _ in part.parameters(recurse=False)) or any(
        True for _ in part.buffers(recurse=False)
    )
