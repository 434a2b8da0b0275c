"""Layers one after another as pictures: blocks in rows, as high as the images are large."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from optnas.drawing.shapes import GREY, Box, Curve, Picture, Shape, Text, above, text_width

_LONGEST_ROW = 1100.0
_GAP = 6.0
"""Between two blocks; between two sections it is three times that."""
_HEIGHTS = (112.0, 0.62, 26.0)
"""Height of a block at the full resolution, its factor for every halving, and the least one."""
_WIDTHS = (16.0, 44.0)
"""Width of a block without channels, and what those of the widest add."""
_SMALL = 11.0
"""Height of the texts below the blocks."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A layer.

    Args:
        fill: Its colour, as ``#rrggbb``.
        text: What stands in it: a character or two.
    """

    fill: str
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """Layers of one shape.

    Args:
        blocks: The layers.
        captions: What is written below them, line by line.
        halvings: How often the resolution was halved.
        share: Their channels as a share of those of the widest layers.
    """

    blocks: tuple[Block, ...]
    captions: tuple[str, ...]
    halvings: int
    share: float

    @property
    def block_width(self) -> float:
        """Width of each of its blocks."""
        return _WIDTHS[0] + _WIDTHS[1] * self.share

    @property
    def block_height(self) -> float:
        """Height of each of its blocks."""
        full, factor, least = _HEIGHTS
        return max(least, full * factor**self.halvings)

    @property
    def width(self) -> float:
        """Width of its blocks or of what is written below them."""
        blocks = len(self.blocks) * (self.block_width + _GAP) - _GAP
        return max(blocks, *(text_width(caption, _SMALL) for caption in self.captions))


def in_rows(sections: Sequence[Section]) -> Picture:
    """The picture of layers, in as many rows as they need."""
    return above(*map(_row, _wrapped(sections)), gap=14.0)


def legend(blocks: Mapping[str, Block], width: float) -> Picture:
    """What blocks mean, each as it looks, in as many lines as they need.

    Args:
        blocks: Blocks by what they mean.
        width: Room that there is.
    """
    shapes: list[Shape] = []
    x = y = widest = 0.0
    for meaning, block in blocks.items():
        side = max(16.0, text_width(block.text) + 8)
        length = side + 8 + text_width(meaning)
        if x and x + length > width:
            x, y = 0.0, y + 22
        shapes += [
            Box(x, y + 1, side, 16, block.fill, block.text),
            Text(x + side + 6, y + 9, meaning),
        ]
        x += length + 14
        widest = max(widest, x - 14)
    return Picture(widest, y + 20, tuple(shapes))


def _wrapped(sections: Iterable[Section]) -> Iterator[list[Section]]:
    """Sections by row; those that do not fit into a row are cut."""
    row: list[Section] = []
    x = 0.0
    for section in sections:
        rest, name = section.blocks, section.captions[0]
        while rest:
            room = int((_LONGEST_ROW - x) // (section.block_width + _GAP))
            if room < min(3, len(rest)) and row:
                yield row
                row, x = [], 0.0
                continue
            row.append(dataclasses.replace(section, blocks=rest[: max(1, room)]))
            rest = rest[max(1, room) :]
            x += row[-1].width + 3 * _GAP
            section = dataclasses.replace(section, captions=(f"{name}, continued",))
    yield row


def _row(sections: Sequence[Section]) -> Picture:
    height = max(section.block_height for section in sections)
    lines = max(len(section.captions) for section in sections)
    boxes: list[Shape] = []
    texts: list[Shape] = []
    x = 0.0
    for section in sections:
        top = (height - section.block_height) / 2
        for index, block in enumerate(section.blocks):
            left = x + index * (section.block_width + _GAP)
            size = (section.block_width, section.block_height)
            boxes.append(Box(left, top, *size, block.fill, block.text))
        for index, caption in enumerate(section.captions):
            y = height + 12 + index * (_SMALL + 4)
            texts.append(Text(x, y, caption, _SMALL))
        x += section.width + 3 * _GAP
    last = boxes[-1]
    assert isinstance(last, Box)
    middle = height / 2
    ends = ((0.0, middle), (last.x + last.width, middle))
    line = Curve((ends[0], ends[0], ends[1], ends[1]), GREY, 2.0)
    below = 8 + lines * (_SMALL + 4)
    return Picture(x - 3 * _GAP, height + below, (line, *boxes, *texts))
