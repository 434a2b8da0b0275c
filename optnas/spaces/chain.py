"""Chains of convolutions: one width, doubled at two reductions, an operation per layer."""

import dataclasses
from typing import ClassVar

from optnas.spaces.base import Architecture, ParamValue
from optnas.spaces.layered import (
    KERNELS,
    LayeredSpace,
    checked_choices,
    checked_positive,
    layer_params,
    per_layer,
    weights,
)

OPERATIONS = ("separable", "conv")

LARGEST = 10_000
"""The greatest depth and width of a range: what is beyond takes minutes to describe."""


@dataclasses.dataclass(frozen=True)
class ChainArchitecture(Architecture):
    """A stem, ``depth`` layers and a linear classifier on globally pooled features.

    The stem and the first third of the layers have ``2 * width`` and ``width`` channels; the
    layers at the indices ``depth // 3`` and ``2 * depth // 3`` halve the resolution and double
    the channels (Efficient Global NAS, section 3.1).

    Args:
        depth: Number of layers, at least 1.
        width: Channels of the first layers, at least 1.
        operations: One of ``"separable"`` and ``"conv"`` per layer; empty means all separable.
        kernels: One of 3, 5 and 7 per layer; empty means all 3.

    Raises:
        ValueError: If a value is out of range or a sequence does not have ``depth`` entries.
    """

    depth: int
    width: int
    operations: tuple[str, ...] = ()
    kernels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(size, int) and size >= 1 for size in (self.depth, self.width)):
            raise ValueError(
                "`depth` and `width` must be integers, 1 or more: "
                f"depth={self.depth}, width={self.width}."
            )
        for name, choices in (("operations", OPERATIONS), ("kernels", KERNELS)):
            values = per_layer(name, getattr(self, name), choices, self.depth, "the depth")
            object.__setattr__(self, name, values)

    @classmethod
    def uniform(
        cls, depth: int, width: int, operation: str = "separable", kernel: int = 3
    ) -> "ChainArchitecture":
        """A chain with the same operation and kernel in every layer."""
        return cls(depth, width, (operation,) * depth, (kernel,) * depth)

    @property
    def reductions(self) -> tuple[int, ...]:
        """Indices of the layers with stride 2 (one layer, once, if the two coincide)."""
        return tuple(sorted({self.depth // 3, 2 * self.depth // 3}))

    def channels(self) -> tuple[int, ...]:
        """Channels after the stem and after every layer: ``depth + 1`` values."""
        current = self.width
        result = [2 * self.width]
        for index in range(self.depth):
            if index in self.reductions:
                current *= 2
            result.append(current)
        return tuple(result)

    def num_params(self, in_channels: int, classes: int) -> int:
        """Number of trainable parameters of the network, in closed form.

        Args:
            in_channels: Channels of the images.
            classes: Number of classes.
        """
        channels = self.channels()
        total = 9 * in_channels * channels[0] + 2 * channels[0]
        for index, (operation, kernel) in enumerate(
            zip(self.operations, self.kernels, strict=True)
        ):
            before, after = channels[index], channels[index + 1]
            total += weights(operation, before, after, kernel) + 2 * after
        return total + channels[-1] * classes + classes


class ChainSpace(LayeredSpace[ChainArchitecture]):
    """The macro-micro search space: depth, width, and per layer an operation and a kernel.

    A trial's parameters are ``depth``, ``width``, ``op_{i}`` and ``kernel_{i}`` for every layer
    ``i < depth``. A proposed width may lie below the range or between its steps (a micro
    candidate is narrowed until its size fits); samplers that draw from the range never do that.

    Source: Efficient Global NAS, sections 3.1 and 4.1.

    Args:
        depth: Least and greatest number of layers.
        width: Least and greatest number of channels of the first layers.
        preset: ``"tiny"`` or ``"mobile"``, the two settings of the paper (section 4.1); a range
            given beside it wins.
        kernels: The kernel sizes of a layer, some of 3, 5 and 7.
        width_step: Channels between two widths, counted from the greatest.
        operations: The operations of a layer: ``"separable"``, ``"conv"`` or both.

    Raises:
        ValueError: If a range is empty or begins below 1, a layer has nothing to choose from, or
            a choice or the preset is unknown.
    """

    architecture_class: ClassVar[type[ChainArchitecture]] = ChainArchitecture
    kind = "chain"
    operation = OPERATIONS[0]
    depth_step = 1
    micro = True

    PRESETS: ClassVar[dict[str, dict[str, tuple[int, int]]]] = {
        "tiny": {"depth": (10, 100), "width": (16, 64)},
        "mobile": {"depth": (10, 100), "width": (16, 128)},
    }

    def __init__(
        self,
        depth: tuple[int, int] | None = None,
        width: tuple[int, int] | None = None,
        *,
        preset: str = "tiny",
        kernels: tuple[int, ...] = (3, 5),
        width_step: int = 2,
        operations: tuple[str, ...] = OPERATIONS,
    ) -> None:
        ranges = self._ranges(preset)
        self.depth = _checked_range("depth", ranges["depth"] if depth is None else depth)
        self.width = _checked_range("width", ranges["width"] if width is None else width)
        self.kernels = checked_choices("kernels", kernels, KERNELS)
        self.operations = checked_choices("operations", operations, OPERATIONS)
        self.width_step = checked_positive("width_step", width_step)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(depth={self.depth}, width={self.width}, "
            f"kernels={self.kernels}, width_step={self.width_step}, operations={self.operations})"
        )

    def uniform(self, depth: int, width: int, operation: str, kernel: int) -> ChainArchitecture:
        """A chain with the same operation and kernel in every layer."""
        return self.architecture_class.uniform(depth, width, operation, kernel)

    def extremes(self) -> tuple[ChainArchitecture, ChainArchitecture]:
        (shallow, deep), (narrow, wide) = self.depth, self.width
        # `OPERATIONS` is in the order of what they cost.
        first, *_, last = sorted(self.operations * 2, key=OPERATIONS.index)
        least = self.uniform(shallow, narrow, first, min(self.kernels))
        return least, self.uniform(deep, wide, last, max(self.kernels))

    def choosing(self, depth: int) -> int:
        return depth

    def to_params(self, architecture: ChainArchitecture) -> dict[str, ParamValue]:
        inside = (architecture.operations, architecture.kernels)
        return layer_params(architecture.depth, architecture.width, *inside)

    def _network(
        self, depth: int, width: int, operations: tuple[str, ...], kernels: tuple[int, ...]
    ) -> ChainArchitecture:
        return self.architecture_class(depth, width, operations, kernels)


def _checked_range(name: str, bounds: tuple[int, int]) -> tuple[int, int]:
    integers = all(isinstance(bound, int) for bound in bounds)
    if len(bounds) != 2 or not integers or not 1 <= bounds[0] <= bounds[1] <= LARGEST:
        raise ValueError(
            f"`{name}` must be two integers, the least and the greatest, from 1 to {LARGEST:,}: "
            f"{tuple(bounds)}."
        )
    return (bounds[0], bounds[1])
