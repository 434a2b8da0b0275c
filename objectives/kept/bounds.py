"""What a kept network's description may say at most, before anything of it is built.

A kilobyte of JSON can ask for a million layers. A network that was kept has its weights beside
it: no more layers than tensors, and no width beyond their bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch

COUNTS = frozenset({"depth", "modules", "cells", "nodes", "increments", "operations", "kernels"})
"""Fields that say how many layers there are, as a number, numbers, or by their length."""


def check_sizes(architecture: Any, network: Mapping[str, Any], weights: bytes) -> None:
    """Refuse a description that asks for more than its weights can fill.

    Args:
        architecture: The architecture, as JSON values.
        network: The options of the network.
        weights: The file of the weights.

    Raises:
        ValueError: If it does.
        SafetensorError: If the weights are no such file.
    """
    tensors = len(safetensors.torch.load(weights))
    for name, number in (*_numbers(architecture), *_numbers(dict(network))):
        limit = max(tensors, 16) if name in COUNTS else max(len(weights), 1024)
        if number > limit:
            raise ValueError(
                f"`{name}` is {number}, but there are {tensors} tensors of {len(weights)} bytes"
            )


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in JSON values, and the lengths of their lists, with the name of their field."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, str(key))
    elif isinstance(value, list | tuple):
        yield name, len(value)
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float):
        yield name, abs(value)
