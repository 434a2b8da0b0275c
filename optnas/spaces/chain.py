"""Chains of convolutions: one width, doubled at two reductions, an operation per layer."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import BaseTrial

from optnas.spaces.base import Architecture, ParamValue, Space, proposal

OPERATIONS = ("separable", "conv")
KERNELS = (3, 5, 7)

T = TypeVar("T")

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
        self._normalise("operations", self.operations, OPERATIONS)
        self._normalise("kernels", self.kernels, KERNELS)

    def _normalise(self, name: str, values: Sequence[Any], choices: Sequence[Any]) -> None:
        values = tuple(values) or (choices[0],) * self.depth
        if len(values) != self.depth or not set(values) <= set(choices):
            raise ValueError(
                f"`{name}` must hold {self.depth} values (the depth), each one of {choices}: "
                f"{values}."
            )
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
            taps = kernel * kernel
            weights = (
                before * (taps + after) if operation == "separable" else before * after * taps
            )
            total += weights + 2 * after
        return total + channels[-1] * classes + classes


class ChainSpace(Space[ChainArchitecture]):
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
    operation: ClassVar[str] = OPERATIONS[0]
    """What a search begins with in every layer."""
    depth_step: ClassVar[int] = 1
    """Layers that are added at a time."""
    micro: ClassVar[bool] = True
    """Whether operations and kernels are searched for unless it is said otherwise."""

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
        if preset not in self.PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(self.PRESETS)}: {preset!r}.")
        self.depth = _checked_range(
            "depth", self.PRESETS[preset]["depth"] if depth is None else depth
        )
        self.width = _checked_range(
            "width", self.PRESETS[preset]["width"] if width is None else width
        )
        self.kernels = checked_choices("kernels", kernels, KERNELS)
        self.operations = checked_choices("operations", operations, OPERATIONS)
        self.width_step = checked_step("width_step", width_step)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(depth={self.depth}, width={self.width}, "
            f"kernels={self.kernels}, width_step={self.width_step}, operations={self.operations})"
        )

    @property
    def widths(self) -> range:
        """The widths that are drawn, ascending: steps down from the greatest."""
        return steps_down(self.width, self.width_step)

    def uniform(self, depth: int, width: int, operation: str, kernel: int) -> ChainArchitecture:
        """A chain with the same operation and kernel in every layer."""
        return self.architecture_class.uniform(depth, width, operation, kernel)

    def extremes(self) -> tuple[ChainArchitecture, ChainArchitecture]:
        (shallow, deep), (narrow, wide) = self.depth, self.width
        # `OPERATIONS` is in the order of what they cost.
        first, *_, last = sorted(self.operations * 2, key=OPERATIONS.index)
        least = self.uniform(shallow, narrow, first, min(self.kernels))
        return least, self.uniform(deep, wide, last, max(self.kernels))

    def suggest(self, trial: BaseTrial) -> ChainArchitecture:
        widths = self.widths
        proposed = proposal(trial).get("width", widths[0])
        if proposed not in widths:
            widths = range(max(1, min(self.width[0], proposed)), self.width[1] + 1)
        depth = trial.suggest_int("depth", *self.depth)
        width = trial.suggest_int("width", widths[0], widths[-1], step=widths.step)
        params: dict[str, Any] = {"depth": depth, "width": width}
        for name, choices in self._layer_choices(depth):
            params[name] = trial.suggest_categorical(name, choices)
        return self.from_params(params)

    def to_params(self, architecture: ChainArchitecture) -> dict[str, ParamValue]:
        params: dict[str, ParamValue] = {
            "depth": architecture.depth,
            "width": architecture.width,
        }
        params.update((f"op_{i}", value) for i, value in enumerate(architecture.operations))
        params.update((f"kernel_{i}", value) for i, value in enumerate(architecture.kernels))
        return params

    def from_params(self, params: Mapping[str, Any]) -> ChainArchitecture:
        try:
            depth = params["depth"]
            return self.architecture_class(
                depth=depth,
                width=params["width"],
                operations=tuple(params[f"op_{i}"] for i in range(depth)),
                kernels=tuple(params[f"kernel_{i}"] for i in range(depth)),
            )
        except KeyError as error:
            raise ValueError(f"No chain without the parameter {error}: {dict(params)}.") from None

    def distributions(self) -> dict[str, BaseDistribution]:
        result: dict[str, BaseDistribution] = {
            "depth": IntDistribution(*self.depth),
            # From 1, one by one: what a micro candidate's width may be.
            "width": IntDistribution(1, self.width[1]),
        }
        for name, choices in self._layer_choices(self.depth[1]):
            result[name] = _categorical(choices)
        return result

    def random(self, rng: np.random.Generator) -> ChainArchitecture:
        depth = int(rng.integers(*self.depth, endpoint=True))
        params: dict[str, Any] = {
            "depth": depth,
            "width": self.widths[int(rng.integers(len(self.widths)))],
        }
        for name, choices in self._layer_choices(depth):
            params[name] = choices[int(rng.integers(len(choices)))]
        return self.from_params(params)

    def _layer_choices(self, depth: int) -> list[tuple[str, tuple[Any, ...]]]:
        operations = [(f"op_{i}", self.operations) for i in range(depth)]
        return [*operations, *((f"kernel_{i}", self.kernels) for i in range(depth))]


def _checked_range(name: str, bounds: tuple[int, int]) -> tuple[int, int]:
    integers = all(isinstance(bound, int) for bound in bounds)
    if len(bounds) != 2 or not integers or not 1 <= bounds[0] <= bounds[1] <= LARGEST:
        raise ValueError(
            f"`{name}` must be two integers, the least and the greatest, from 1 to {LARGEST:,}: "
            f"{tuple(bounds)}."
        )
    return (bounds[0], bounds[1])


def checked_step(name: str, given: int) -> int:
    """An option that is a step.

    Raises:
        ValueError: If it is none.
    """
    if type(given) is not int or given < 1:
        raise ValueError(f"`{name}` must be an integer, 1 or more: {given!r}.")
    return given


def steps_down(bounds: tuple[int, int], step: int) -> range:
    """The numbers of a range that lie whole steps below the greatest, ascending."""
    low, high = bounds
    return range(low + (high - low) % step, high + 1, step)


def checked_choices(name: str, given: Sequence[T], known: Sequence[T]) -> tuple[T, ...]:
    """An option that holds some of what is known, each once.

    Raises:
        ValueError: If it does not.
    """
    chosen = tuple(given)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
        raise ValueError(f"`{name}` must be some of {tuple(known)}, each once: {chosen}.")
    return chosen


@functools.lru_cache(maxsize=64)
def _categorical(choices: tuple[Any, ...]) -> CategoricalDistribution:
    return CategoricalDistribution(choices)
