"""Parameters that lie side by side: what is done to each of them in a step is done to all at once.

A step of a small network has hundreds of kernels, and on a GPU each costs some microseconds,
however little it does. Casting, gathering, clipping and moving are a few for all parameters here.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optnas.objectives.training.alignment import Shape, aligned

SPACING = 64
"""Numbers that every parameter begins at a multiple of: no kernel reads across two of them."""

_CAST = (nn.Conv2d, nn.Linear)
_STATISTICS = ("running_mean", "running_var")


@dataclasses.dataclass(frozen=True, eq=False)
class _Place:
    """Where a parameter lies, and in which shape it is computed with."""

    parameter: nn.Parameter
    shape: Shape
    start: int

    @property
    def stop(self) -> int:
        return self.start + -(-torch.Size(self.shape).numel() // SPACING) * SPACING

    def computed(self, buffer: Tensor) -> Tensor:
        """Its part of a buffer, in the shape in which it is computed with, channels last."""
        layout = torch.empty(self.shape, device="meta")
        if layout.ndim == 4:
            layout = layout.contiguous(memory_format=torch.channels_last)
        return buffer.as_strided(self.shape, layout.stride(), self.start)

    def own(self, buffer: Tensor) -> Tensor:
        """The same in its own shape."""
        return self.computed(buffer)[tuple(slice(size) for size in self.parameter.shape)]


class FlatParameters:
    """The parameters of a training by SGD in one buffer, as are their gradients and momentum.

    They stay the modules' and the optimiser's own, with their names, shapes and states, as parts
    of the buffers. While they are lent, modules compute with others in their place: in the type
    of autocasting, copied at once, and in larger shapes where these are asked for. What fills
    such a shape up stays zero: its gradient is.

    The norm of all gradients is summed up in another order than by torch; the rest is computed
    number by number as by torch's fused SGD.

    Args:
        model: The network, on its device, channels last.
        optimizer: Its optimiser, of torch's SGD; it may train other parameters too.
        dtype: What convolutions and linear layers compute with; None for float32.
        shapes: The larger shapes of parameters; see `alignment`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        dtype: torch.dtype | None,
        shapes: Mapping[nn.Parameter, Shape],
    ) -> None:
        self._optimizer = optimizer
        self._groups: list[list[_Place]] = []
        end = 0
        for group in optimizer.param_groups:
            self._groups.append([])
            for parameter in group["params"]:
                place = _Place(parameter, shapes.get(parameter, tuple(parameter.shape)), end)
                self._groups[-1].append(place)
                end = place.stop
        self._places = [place for places in self._groups for place in places]
        device = self._places[0].parameter.device
        # In memory of their own: whoever saves a part of one saves all of it.
        self._values = torch.zeros(end, device=device)
        self._gradients = torch.zeros_like(self._values)
        self._momentum = torch.zeros_like(self._values)
        self._copies = None if dtype is None else torch.zeros(end, dtype=dtype, device=device)
        for place in self._places:
            place.own(self._values).copy_(place.parameter.detach())
            place.parameter.data = place.own(self._values)
        self._targets = [place.computed(self._gradients) for place in self._places]
        # Where something is looked up, what is there while it is lent, and else.
        self._lent: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._leaves: list[Tensor] = self._leaves_of(model)
        self._enlarge(model, shapes)
        self._present: list[bool] = []
        self._moving: Any = None  # An optimiser, once there are gradients.
        self.adopt()

    def _leaves_of(self, model: nn.Module) -> list[Tensor]:
        """What gradients come to, place by place; modules that compute with it are noted."""
        # Somebody else's network may compute a part of itself without autocasting.
        casts = type(model).__module__.startswith("optnas.")
        owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for part in model.modules():
            for name, parameter in part.named_parameters(recurse=False):
                owners.setdefault(parameter, []).append((part, name))
        leaves: list[Tensor] = []
        for place in self._places:
            parts = owners.get(place.parameter, [])
            buffer = self._values
            is_cast = casts and parts and all(type(part) in _CAST for part, _ in parts)
            if self._copies is not None and is_cast:
                buffer = self._copies
            leaf: Tensor = place.parameter
            if buffer is self._copies or place.shape != tuple(place.parameter.shape):
                leaf = place.computed(buffer).detach().requires_grad_()
                for part, name in parts:
                    self._lent.append((part._parameters, name, leaf, place.parameter))
            leaves.append(leaf)
        return leaves

    def _enlarge(self, model: nn.Module, shapes: Mapping[nn.Parameter, Shape]) -> None:
        """Give statistics and groups of channels the sizes of the larger shapes."""
        for part in model.modules():
            weight = next(part.parameters(recurse=False), None)
            if weight is None or weight not in shapes:
                continue
            if isinstance(part, nn.Conv2d) and part.groups > 1:
                self._lent.append((vars(part), "groups", shapes[weight][0], part.groups))
            elif isinstance(part, nn.BatchNorm2d):
                for name in _STATISTICS:
                    statistic = part._buffers[name]
                    assert statistic is not None
                    larger = statistic.new_zeros(aligned(len(statistic)))
                    part._buffers[name] = larger[: len(statistic)].copy_(statistic)
                    self._lent.append((part._buffers, name, larger, part._buffers[name]))

    def adopt(self) -> None:
        """Take over what the optimiser keeps, once that has become other tensors."""
        for group, places in zip(self._optimizer.param_groups, self._groups, strict=True):
            for place in places if group["momentum"] else ():
                state = self._optimizer.state[place.parameter]
                kept, own = state.get("momentum_buffer"), place.own(self._momentum)
                own.zero_() if kept is None else own.copy_(kept)
                state["momentum_buffer"] = own

    def dissolve(self) -> None:
        """Give parameters, what the optimiser keeps and statistics memory of their own again."""
        for place in self._places:
            place.parameter.data = place.parameter.detach().clone()
            state = self._optimizer.state[place.parameter]
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"] = state["momentum_buffer"].clone()
        for space, name, _, own in self._lent:
            if name in _STATISTICS:
                space[name] = own.clone()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Have the network's modules compute with what is lent, as of now."""
        if self._copies is not None:
            with torch.no_grad():
                self._copies.copy_(self._values)
        for space, name, lent, _ in self._lent:
            space[name] = lent
        try:
            yield
        finally:
            for space, name, _, own in self._lent:
                space[name] = own

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        for leaf in self._leaves:
            leaf.grad = None

    @torch.no_grad()
    def step(self, clip: float | None) -> None:
        """Move all parameters that have a gradient.

        Args:
            clip: Greatest norm of all gradients; None for any.
        """
        found = [leaf.grad for leaf in self._leaves]
        present = [gradient is not None for gradient in found]
        if present != self._present:
            self._present = present
            self._moving = self._over(present)
        pairs = [(t, g) for t, g in zip(self._targets, found, strict=True) if g is not None]
        for dtype in dict.fromkeys(gradient.dtype for _, gradient in pairs):
            alike = [pair for pair in pairs if pair[1].dtype == dtype]  # One kernel takes these.
            torch._foreach_copy_([target for target, _ in alike], [found for _, found in alike])
        if clip is not None:
            norm = torch.linalg.vector_norm(self._gradients)
            # The optimiser divides gradients by it while it reads them.
            self._moving.grad_scale = (norm / clip).clamp_(min=1.0)
        for group, own in zip(
            self._moving.param_groups, self._optimizer.param_groups, strict=True
        ):
            group["lr"] = own["lr"]
        self._moving.step()

    def _over(self, present: list[bool]) -> torch.optim.Optimizer:
        """An optimiser of the stretches of the buffers whose parameters have gradients."""
        self._gradients.zero_()
        has_gradient = dict(zip(self._places, present, strict=True))
        groups = []
        for group, places in zip(self._optimizer.param_groups, self._groups, strict=True):
            bounds: list[tuple[int, int]] = []
            for place in (place for place in places if has_gradient[place]):
                start = place.start
                if bounds and bounds[-1][1] == start:
                    start = bounds.pop()[0]
                bounds.append((start, place.stop))
            stretches = [nn.Parameter(self._values[slice(*b)]) for b in bounds]
            groups.append({**group, "params": stretches})
            for stretch, b in zip(stretches, bounds, strict=True):
                stretch.grad = self._gradients[slice(*b)]
        kind: Any = type(self._optimizer)
        moving: torch.optim.Optimizer = kind(groups)
        for group in moving.param_groups:
            for stretch in group["params"] if group["momentum"] else ():
                start = stretch.storage_offset()
                momentum = self._momentum[start : start + len(stretch)]
                moving.state[stretch]["momentum_buffer"] = momentum
        return moving


def separated(state: Any) -> Any:
    """A state, in dictionaries, whose tensors have memory of their own."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {name: separated(value) for name, value in state.items()}
    return state
