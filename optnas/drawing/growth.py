"""Networks that grew, as pictures: the cells in a row, what was added to each above it."""

import collections
from collections.abc import Iterable, Mapping

from optnas.drawing.shapes import GREY, PAPER, Box, Curve, Picture, Point, Shape, Text
from optnas.spaces import GrowthArchitecture

_STEP = 66.0
"""From one cell to the next."""
_WIDTH, _HEIGHT = 38.0, 30.0
"""Of a cell."""
_RISE = 42.0
"""From one increment of a cell to the next."""
_LEVELS = 3
"""So many cells have their increments at different heights, for the lines that pass by."""
_RADIUS = 9.0
_BESIDE = 9.0
"""From the middle of a cell to where increments are added on its left, and taken on its right."""
_ABOVE = 40.0
"""From the top of a cell to the middle of its first increment."""
_HEAD = 7.0
"""Length of an arrowhead."""


class MacroPicture:
    """Draws a network of mode ``"macro"``.

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
        self._cells = range(architecture.depth + 1)
        added = collections.Counter(each.target for each in architecture.increments)
        rows = max(added.values(), default=0)
        self._ground = _ABOVE + rows * _RISE if rows else 0.0
        """Where the cells' upper sides are."""
        self._dots: dict[int, Point] = {}
        below: collections.Counter[int] = collections.Counter()
        for layer, each in enumerate(architecture.increments, start=len(self._cells)):
            rise = below[each.target] + each.target % _LEVELS / _LEVELS
            y = self._ground - _ABOVE - rise * _RISE
            self._dots[layer] = (self._middle(each.target) - _BESIDE, y)
            below[each.target] += 1

    def picture(self) -> Picture:
        """The picture."""
        shapes: list[Shape] = [*map(self._box, self._cells), *map(self._after, self._cells[1:])]
        for layer, increment in enumerate(self._architecture.increments, len(self._cells)):
            for slot, source in enumerate(increment.inputs):
                colour = self._colours[increment.operations[slot]]
                shapes.append(self._taken(source, layer, slot, colour))
        for top in self._tops():
            x, end = top[0], (top[0], self._ground - _HEAD)
            shapes.append(Curve((top, top, end, end), GREY, tip=(x, self._ground)))
        for layer, (x, y) in self._dots.items():
            size = 2 * _RADIUS
            shapes.append(Box(x - _RADIUS, y - _RADIUS, size, size, PAPER, radius=_RADIUS))
            number = str(layer - len(self._cells) + 1)
            shapes.append(Text(x, y, number, size=9.0, anchor="middle"))
        width = self._middle(self._cells[-1]) + _WIDTH / 2
        return Picture(width, self._ground + _HEIGHT, tuple(shapes))

    def _middle(self, cell: int) -> float:
        return _WIDTH / 2 + cell * _STEP

    def _box(self, cell: int) -> Box:
        fill = self._fills[cell in self._architecture.reductions] if cell else PAPER
        x, text = self._middle(cell) - _WIDTH / 2, str(cell) if cell else "stem"
        return Box(x, self._ground, _WIDTH, _HEIGHT, fill, text)

    def _after(self, cell: int) -> Curve:
        """The line to a cell from the one before it."""
        y, end = self._ground + _HEIGHT / 2, self._middle(cell) - _WIDTH / 2
        a, b = (self._middle(cell - 1) + _WIDTH / 2, y), (end - _HEAD, y)
        return Curve((a, a, b, b), GREY, tip=(end, y))

    def _tops(self) -> Iterable[Point]:
        """The last increment of every cell that has some."""
        tops = {
            increment.target: self._dots[layer]
            for layer, increment in enumerate(self._architecture.increments, len(self._cells))
        }
        return tops.values()

    def _taken(self, source: int, layer: int, slot: int, colour: str) -> Curve:
        """The line on which an increment takes a layer, as its first, second or third input."""
        x, y = self._dots[layer]
        end = (x - _RADIUS, y + 4.0 * (1 - slot))
        if source in self._dots:
            start = self._dots[source]
            if start[0] == x:  # Of the same cell: around what lies between them.
                start = (start[0] - _RADIUS, start[1])
                aside = x - _RADIUS - 0.35 * _STEP
                return Curve((start, (aside, start[1]), (aside, end[1]), end), colour, 2.0)
            start = (start[0] + _RADIUS, start[1])
            half = (start[0] + end[0]) / 2
            return Curve((start, (half, start[1]), (half, end[1]), end), colour, 2.0)
        start = (self._middle(source) + _BESIDE + 3.0 * (1 - slot), self._ground)
        reach = 0.4 * (end[0] - start[0])
        return Curve((start, (start[0], end[1]), (end[0] - reach, end[1]), end), colour, 2.0)
