"""What a kept network's description may say at most, before anything of it is built.

A kilobyte of JSON can ask for a million layers. A network that was kept has its weights beside
it: no more layers than tensors, and no width beyond their bytes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import safetensors.torch
from torch import Tensor

if TYPE_CHECKING:
    from optnas.objectives.kept.descriptions import Description

COUNTS = frozenset({"depth", "modules", "cells", "nodes", "increments", "operations", "kernels"})
"""Fields that say how many layers there are, as a number, numbers, or by their length."""

SAMPLES = 2**26
"""In one image: 4,700 x 4,700 pixels in colour."""


def check_images_of(description: "Description") -> None:
    """Refuse what no images of a training can have been.

    Raises:
        ValueError: If something is.
    """
    shape, reads = description.input_shape, description.preprocessing
    if min(shape) < 1 or math.prod(shape) > SAMPLES:
        raise ValueError(f"`input_shape` must be of 1 to {SAMPLES:,} samples: {shape}")
    for name, values in (("mean", description.mean), ("std", description.std)):
        sound = all(math.isfinite(value) and abs(value) < 1e6 for value in values)
        if len(values) != shape[0] or not sound or (name == "std" and min(values) <= 0):
            kind = "a positive number" if name == "std" else "a number"
            raise ValueError(
                f"`{name}` must hold {kind} for each of {shape[0]} channels: {values}"
            )
    if reads is None:
        return
    if not (0 < reads.fraction <= 1 and min(reads.integers, reads.floats) > 0):
        raise ValueError(f"`preprocessing` has a number out of range: {reads}")
    if not (math.isfinite(reads.integers + reads.floats) and _is_colour(reads.background)):
        raise ValueError(f"`preprocessing` has a number out of range: {reads}")


def _is_colour(values: tuple[int, ...]) -> bool:
    return all(0 <= value <= 255 for value in values)


def check_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights that no training kept: of another type, or no numbers.

    Args:
        weights: What was read.
        wanted: The state of the network that they are for.

    Raises:
        ValueError: If some are.
    """
    for name, tensor in weights.items():
        if name in wanted and tensor.dtype != wanted[name].dtype:
            raise ValueError(f"{name} is {tensor.dtype}, not {wanted[name].dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


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
