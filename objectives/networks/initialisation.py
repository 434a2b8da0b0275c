"""First weights, drawn from a generator of their own, of whatever layers a network has."""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
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


def is_lazy(model: nn.Module) -> bool:
    """Whether a layer waits for its first input to know its size."""
    return any(nn.parameter.is_lazy(tensor) for tensor in _state(model))


class Constructing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what the constructors of somebody's network write into its tensors.

    A layer of torch.nn writes once into each of its own, and `initialise` can do that again. What
    is written more often or never was set by the network's own constructor, and would be lost.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._written: list[Tensor] = []  # Kept, so that no other takes the place of one.

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        first = next(iter(func._schema.arguments), None)
        if args and first is not None and first.alias_info and first.alias_info.is_write:
            self._written.append(args[0])
        return result

    def can_be_repeated(self, model: nn.Module) -> bool:
        """Whether nothing is lost if `initialise` sets the tensors of this network again."""
        if is_lazy(model) or not is_initialised(model):
            return False
        places = [tensor.untyped_storage()._cdata for tensor in _state(model)]
        counts = Counter(tensor.untyped_storage()._cdata for tensor in self._written)
        is_shared = len(set(places)) < len(places)
        others = [value for part in model.modules() for value in vars(part).values()]
        return (
            not is_shared
            and all(counts[place] == 1 for place in places)
            and not any(isinstance(value, Tensor) for value in others)
        )


def blank(tensor: Tensor) -> Tensor:
    """A tensor of the same shape, full of what no initialisation sets."""
    return torch.full(tensor.shape, _blank_of(tensor), dtype=tensor.dtype)


def has_blanks(model: nn.Module) -> bool:
    """Whether something of a network that was blank still is."""
    return any(
        bool((t != t).any() if t.is_floating_point() else (t == _blank_of(t)).any())
        for t in _state(model)
    )


def _blank_of(tensor: Tensor) -> float:
    is_real = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    if is_real or tensor.dtype == torch.bool:
        return math.nan if is_real else 0
    return torch.iinfo(tensor.dtype).min


def _state(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers of all parts, those twice that two parts share."""
    parts = [(*part._parameters.values(), *part._buffers.values()) for part in model.modules()]
    return [tensor for part in parts for tensor in part if tensor is not None]


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
