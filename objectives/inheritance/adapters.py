"""Starting a network from the weights of another, across shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optnas.objectives.inheritance.chains import adapt_chain
from optnas.spaces import Architecture, ChainArchitecture

State = Mapping[str, Tensor]

ADAPTERS: dict[type[Architecture], Callable[[Any, Any, State], dict[str, Tensor]]] = {
    ChainArchitecture: adapt_chain,
}
"""Per kind of architecture, what gives a parent's tensors the names and shapes of the child's,
called with (parent, child, state). Where there is none, names and shapes are as they are."""


@torch.no_grad()
def inherit(
    model: nn.Module,
    state: State,
    parent: Architecture | None = None,
    child: Architecture | None = None,
) -> int:
    """Copy every tensor that has the name and the shape of one in ``model``; others stay.

    Args:
        model: The network of ``child``, changed in place.
        state: Parameters and statistics of the network of ``parent``, by name.
        parent: Architecture of the trained network; None: no names or shapes are adapted.
        child: Architecture of the network that starts from it.

    Returns:
        The number of tensors copied.
    """
    adapt = ADAPTERS.get(type(child)) if child is not None else None
    if adapt is not None and type(parent) is type(child):
        state = adapt(parent, child, state)
    copied = 0
    for name, tensor in model.state_dict().items():
        source = state.get(name)
        if source is not None and source.shape == tensor.shape:
            tensor.copy_(source)
            copied += 1
    return copied
