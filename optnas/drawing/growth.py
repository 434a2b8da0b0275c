"""Networks that grew, as pictures: the cells downwards, beside each what was added to it."""

import collections
from collections.abc import Iterator, Mapping

from optnas.drawing.shapes import DARK, GREY, Box, Curve, Picture, Shape, text_width
from optnas.spaces import GrowthArchitecture
from optnas.spaces.growth_architecture import INPUTS
from optnas.spaces.words import layer_name, operation_words

_CELL = 164.0
"""Width of a cell."""
_ROW, _BOX = 36.0, 26.0
"""Height of an increment with what separates it from the next, and of what stands in it."""
_BETWEEN = 16.0
"""From a cell to the next."""
_BESIDE = 44.0
"""From the cells to the increments."""
_NUMBER = 34.0
"""Width of an increment's number."""
_APART = 8.0
_HEAD = 7.0
"""Length of an arrowhead."""


class MacroPicture:
    """Draws a network of mode ``"macro"``.

    An increment stands beside the cell that it is added to, with its three operations, each with
    the layer that it takes: what a line would say that crosses the whole picture, in words.

    Args:
        architecture: The network.
        colours: The colour of every operation, as ``#rrggbb``.
        cell: The colour of a cell.
        reduction: The colour of a reduction cell.
    """

    def __init__(
        self,
        architecture: GrowthArchitecture,
        colours: Mapping[str, str],
        *,
        cell: str,
        reduction: str,
    ) -> None:
        self._architecture = architecture
        self._colours = colours
        self._fills = {True: reduction, False: cell}
        self._added: dict[int, list[int]] = collections.defaultdict(list)
        for index, increment in enumerate(architecture.increments):
            self._added[increment.target].append(index)
        said = [
            self._chip(n, slot) for n in range(len(architecture.increments)) for slot in (0, 1, 2)
        ]
        self._chip_width = max((text_width(text) + 14 for text in said), default=0.0)

    def picture(self) -> Picture:
        """The picture."""
        shapes: list[Shape] = []
        y = 0.0
        for layer in range(self._architecture.depth + 2):
            added = self._added[layer]
            height = max(_BOX, len(added) * _ROW - (_ROW - _BOX)) + (8.0 if added else 0.0)
            if layer:
                x = _CELL / 2
                line = ((x, y - _BETWEEN), (x, y - _HEAD))
                shapes.append(Curve((line[0], line[0], line[1], line[1]), GREY, tip=(x, y)))
            shapes.append(self._layer(layer, y, height))
            for place, index in enumerate(added):
                shapes += self._increment(index, y + 4.0 + place * _ROW)
            y += height + _BETWEEN
        width = _CELL
        if self._architecture.increments:
            width += _BESIDE + _NUMBER + INPUTS * (self._chip_width + _APART)
        return Picture(width, y - _BETWEEN, tuple(shapes))

    def _layer(self, layer: int, y: float, height: float) -> Box:
        network = self._architecture
        if layer > network.depth:
            return Box(0.0, y, _CELL, height, DARK, "classifier")
        channels = network.layer_channels(layer)
        if layer == 0:
            return Box(0.0, y, _CELL, height, DARK, f"stem, {channels} ch.")
        is_reduction = layer in network.reductions
        text = f"cell {layer}, {channels} ch.{', /2' if is_reduction else ''}"
        return Box(0.0, y, _CELL, height, self._fills[is_reduction], text)

    def _increment(self, index: int, y: float) -> Iterator[Shape]:
        """A row: an arrow to the cell, the number, and what the increment takes."""
        middle, x = y + _BOX / 2, _CELL + _BESIDE
        line = ((x, middle), (_CELL + _HEAD, middle))
        yield Curve((line[0], line[0], line[1], line[1]), GREY, tip=(_CELL, middle))
        yield Box(x, y, _NUMBER, _BOX, text=f"+{index + 1}", radius=_BOX / 2)
        x += _NUMBER + _APART
        for slot, operation in enumerate(self._architecture.increments[index].operations):
            yield Box(
                x,
                y,
                self._chip_width,
                _BOX,
                self._colours[operation],
                self._chip(index, slot),
                radius=radius_of(operation),
                dashed=operation == "identity",
            )
            x += self._chip_width + _APART

    def _chip(self, index: int, slot: int) -> str:
        increment = self._architecture.increments[index]
        source = layer_name(self._architecture, increment.target, increment.inputs[slot])
        return f"{operation_words(increment.operations[slot])} of {source}"


def radius_of(operation: str) -> float:
    """The corners of an operation's box: sharp where it has weights, round where it pools."""
    return _BOX / 2 if "pool" in operation else 4.0 if is_plain(operation) else 0.0


def is_plain(operation: str) -> bool:
    """Whether an operation changes nothing."""
    return operation in ("identity", "skip_connect", "none")
