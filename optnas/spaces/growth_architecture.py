"""Architectures that grow: an initial network of residual cells, and increments added to it."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, Literal, get_args

from optnas.spaces.base import Architecture

OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "max_pool_3x3", "avg_pool_3x3", "identity")
INPUTS = 3
"""Of every increment, each with its operation."""

Mode = Literal["macro", "cell"]
MODES: tuple[str, ...] = get_args(Mode)

_STEM_FACTOR = 3  # The stem has three times the channels of the first cells.


@dataclasses.dataclass(frozen=True)
class Increment:
    """Three operations on earlier layers, joined, projected and added to a layer.

    Source: RandGrow (Macro Neural Architecture Search Revisited), section 2.

    Args:
        target: Where the result is added.
        inputs: The layers that the operations take, the target's predecessor first.
        operations: What is done with each; see ``OPERATIONS``.

    Raises:
        ValueError: If there are not three integers and three known operations.
    """

    target: int
    inputs: tuple[int, int, int]
    operations: tuple[str, str, str]

    def __post_init__(self) -> None:
        sequences = all(isinstance(v, list | tuple) for v in (self.inputs, self.operations))
        inputs, operations = (
            (tuple(self.inputs), tuple(self.operations)) if sequences else ((), ())
        )
        if (
            len(inputs) != INPUTS
            or len(operations) != INPUTS
            or any(type(number) is not int for number in (self.target, *inputs))
            or any(name not in OPERATIONS for name in operations)
        ):
            raise ValueError(
                "An increment must have an integer `target`, three integers as `inputs` and three "
                f"`operations`, each one of {OPERATIONS}: target={self.target!r}, "
                f"inputs={self.inputs!r}, operations={self.operations!r}."
            )
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "operations", operations)


@dataclasses.dataclass(frozen=True)
class GrowthArchitecture(Architecture):
    """Three blocks of ``cells`` residual cells, a reduction cell between them, and increments.

    Mode ``"macro"``: an increment belongs to one cell. Layer 0 is the stem, layers 1 to
    ``3 * cells + 2`` are the outputs of the cells, layer ``3 * cells + 3 + k`` is the result of
    increment k. A target is a cell; an input is the stem, a cell before the target, or an
    increment listed earlier whose target is not after this one's.

    Mode ``"cell"``: an increment belongs to every cell of a kind. Target 0 are the normal cells,
    1 the reduction cells; input 0 is the output of the second-last cell, 1 that of the last cell
    (both the stem where there is none), ``2 + j`` the result of the cell's increment j.

    Either way the graph has no cycle, and the first input is the output of the cell before.

    Source: RandGrow, section 2.

    Args:
        cells: Normal cells of each of the three blocks, at least 1.
        channels: Channels of the first block, at least 1; doubled by every reduction cell.
        mode: ``"macro"`` or ``"cell"``.
        increments: In the order in which they were added; mappings become increments.

    Raises:
        ValueError: If a value is out of range, or an increment takes what is not before it.
    """

    cells: int = 6
    channels: int = 32
    mode: Mode = "macro"
    increments: tuple[Increment, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cells", "channels"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` must be an integer, 1 or more: {value!r}.")
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}: {self.mode!r}.")
        object.__setattr__(self, "increments", _increments(self.increments))
        for index, increment in enumerate(self.increments):
            self._check(index, increment)

    def _check(self, index: int, increment: Increment) -> None:
        """Raise ValueError unless everything that the increment at ``index`` takes is there."""
        targets, target = self.targets, increment.target
        if target not in targets:
            raise ValueError(
                f"The target of an increment must be from {targets[0]} to {targets[-1]}: "
                f"{increment}."
            )
        first, *others = increment.inputs
        if first != self.predecessor(target):
            raise ValueError(
                "The first input of an increment must be the layer before its target, "
                f"{self.predecessor(target)}: {increment}."
            )
        if not all(self._is_before(layer, target, index) for layer in others):
            raise ValueError(
                "The inputs of an increment must be layers before its target, or increments "
                f"before it: increment {index}, {increment}."
            )

    def _is_before(self, layer: int, target: int, index: int) -> bool:
        """Whether the increment at ``index``, added to ``target``, may take ``layer``."""
        if self.mode == "cell":
            before = self.increments[:index]
            return 0 <= layer < 2 + sum(other.target == target for other in before)
        first = self.depth + 1
        if first <= layer < first + index:
            return self.increments[layer - first].target <= target
        return 0 <= layer < target

    @property
    def depth(self) -> int:
        """Number of cells."""
        return 3 * self.cells + 2

    @property
    def reductions(self) -> tuple[int, int]:
        """The reduction cells, as layers of a macro architecture."""
        return (self.cells + 1, 2 * self.cells + 2)

    @property
    def targets(self) -> range:
        """What an increment can be added to."""
        return range(2) if self.mode == "cell" else range(1, self.depth + 1)

    def predecessor(self, target: int) -> int:
        """The input that every increment of ``target`` has."""
        return 1 if self.mode == "cell" else target - 1

    def layers_before(self, target: int) -> tuple[int, ...]:
        """What another increment of ``target`` may take."""
        if self.mode == "cell":
            return tuple(range(2 + sum(i.target == target for i in self.increments)))
        grown = (
            layer
            for layer, increment in enumerate(self.increments, start=self.depth + 1)
            if increment.target <= target
        )
        return (*range(target), *grown)

    def unrolled(self) -> "GrowthArchitecture":
        """The macro architecture of the same network: an increment for every cell of the kind."""
        if self.mode == "macro":
            return self
        increments: list[Increment] = []
        for cell in range(1, self.depth + 1):
            first = self.depth + 1 + len(increments)
            for increment in self.increments:
                if increment.target == (cell in self.reductions):
                    a, b, c = (
                        max(cell - 2 + source, 0) if source < 2 else first + source - 2
                        for source in increment.inputs
                    )
                    increments.append(Increment(cell, (a, b, c), increment.operations))
        return dataclasses.replace(self, mode="macro", increments=tuple(increments))

    def halvings(self, layer: int) -> int:
        """How often the resolution was halved before a layer of a macro architecture."""
        cell = layer if layer <= self.depth else self.increments[layer - self.depth - 1].target
        return sum(cell >= reduction for reduction in self.reductions)

    def layer_channels(self, layer: int) -> int:
        """Channels of a layer of a macro architecture."""
        return self.channels * (2 ** self.halvings(layer) if layer else _STEM_FACTOR)

    def num_params(self, in_channels: int, classes: int) -> int:
        """Number of trainable parameters of the network without gates, in closed form.

        Args:
            in_channels: Channels of the images.
            classes: Number of classes.
        """
        stem, first, last = _STEM_FACTOR * self.channels, self.channels, 4 * self.channels
        total = (9 * in_channels + 2) * stem + _projection(stem, first)
        total += 2 * last + (last + 1) * classes
        for block, width in enumerate((first, 2 * first, last)):
            total += self.cells * _weights("sep_conv_3x3", width)
            if block:
                total += _projection(width // 2, width) + _projection(width, width)
                total += _weights("sep_conv_3x3", width)
        macro = self.unrolled()
        for increment in macro.increments:
            width = macro.layer_channels(increment.target)
            total += _projection(INPUTS * width, width)
            total += sum(_weights(operation, width) for operation in increment.operations)
            total += sum(
                _projection(before, after)
                for layer in increment.inputs
                for before, after in macro.adapters(layer, increment.target)
            )
        return total

    def adapters(self, layer: int, target: int) -> list[tuple[int, int]]:
        """What brings a layer to the shape of a later one, in a macro architecture.

        Returns:
            The channels before and after every step. Each step halves the resolution; but the
            only step between layers of one resolution changes the number of channels alone.
        """
        before, halvings = self.layer_channels(layer), self.halvings(layer)
        steps = range(halvings + 1, self.halvings(target) + 1)
        if not steps:
            after = self.layer_channels(target)
            return [] if before == after else [(before, after)]
        channels = [before, *(self.channels * 2**step for step in steps)]
        return list(itertools.pairwise(channels))


def _increments(values: Any) -> tuple[Increment, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"`increments` must be a sequence of increments: {values!r}.")
    result = []
    for value in values:
        if isinstance(value, Mapping):
            try:
                value = Increment(**value)
            except TypeError as error:
                raise ValueError(f"Not an increment: {error}.") from None
        if not isinstance(value, Increment):
            raise ValueError(f"Every one of `increments` must be an increment: {value!r}.")
        result.append(value)
    return tuple(result)


def _weights(operation: str, channels: int) -> int:
    """Parameters of an operation: a separable one is applied twice, others have none."""
    taps = {"sep_conv_3x3": 9, "sep_conv_5x5": 25}.get(operation)
    return 0 if taps is None else 2 * (taps + channels + 2) * channels


def _projection(before: int, after: int) -> int:
    """Parameters of a 1x1 convolution, in one piece or two, and its normalisation."""
    return (before + 2) * after
