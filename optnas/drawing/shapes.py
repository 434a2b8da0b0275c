"""Pictures of boxes, curves and texts, as SVG.

Lengths are in pixels of a screen, from the upper left corner. The same picture gives the same
bytes: no font of the machine is asked for, and nothing says when it was drawn.
"""

import dataclasses
import html
import itertools
import math
from collections.abc import Iterator
from typing import Literal

INK, PAPER, GREY, DARK = "#212529", "#ffffff", "#5c636a", "#495057"
"""Of texts, of what they stand on, of lines, and of what is not searched: inputs, classifiers."""
MARGIN = 16.0
"""White around a picture."""
SIZE = 13.0
"""Height of a text."""
FONTS = "Helvetica,Arial,sans-serif"

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle with round corners and a text in its middle.

    Args:
        x: Left side.
        y: Upper side.
        width: Width.
        height: Height.
        fill: Its colour, as ``#rrggbb``.
        text: What stands in it.
        radius: Of the corners; half the height makes the sides round.
        dashed: Whether its border is dashed.
    """

    x: float
    y: float
    width: float
    height: float
    fill: str = PAPER
    text: str = ""
    radius: float = 4.0
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Curve:
    """Bezier curves, one after another.

    Args:
        points: The first point, then two control points and a point for every curve.
        colour: As ``#rrggbb``.
        width: Thickness.
        tip: Where an arrowhead ends that begins at the last point; None for no head.
    """

    points: tuple[Point, ...]
    colour: str = GREY
    width: float = 1.5
    tip: Point | None = None


@dataclasses.dataclass(frozen=True)
class Text:
    """A line of text.

    Args:
        x: Its left side, or its middle.
        y: The middle of its height.
        text: What it says.
        size: Height of the letters.
        anchor: What ``x`` is.
        colour: As ``#rrggbb``.
    """

    x: float
    y: float
    text: str
    size: float = SIZE
    anchor: Literal["start", "middle"] = "start"
    colour: str = INK


Shape = Box | Curve | Text


@dataclasses.dataclass(frozen=True)
class Picture:
    """Shapes on white paper, the later ones over the earlier ones.

    Args:
        width: Width of the paper.
        height: Its height.
        shapes: What is drawn.
    """

    width: float
    height: float
    shapes: tuple[Shape, ...]


def text_width(text: str, size: float = SIZE) -> float:
    """Room for a text, in whatever font a browser takes."""
    return 0.62 * size * len(text)


def above(*pictures: Picture, gap: float = 0.0) -> Picture:
    """Pictures one below another."""
    shapes: list[Shape] = []
    y = 0.0
    for picture in pictures:
        shapes += [_moved(shape, 0.0, y) for shape in picture.shapes]
        y += picture.height + gap
    width = max(picture.width for picture in pictures)
    return Picture(width, y - gap, tuple(shapes))


def framed(picture: Picture, title: str) -> Picture:
    """A picture with a title above it and white around it."""
    head = Text(MARGIN, MARGIN + SIZE / 2, title, SIZE + 2)
    top = 2 * MARGIN + SIZE
    shapes = (head, *(_moved(shape, MARGIN, top) for shape in picture.shapes))
    width = max(picture.width, text_width(title, SIZE + 2))
    return Picture(width + 2 * MARGIN, picture.height + top + MARGIN, shapes)


def captioned(picture: Picture, text: str) -> Picture:
    """A picture with a line below it; nothing below it, if the text is empty."""
    if not text:
        return picture
    line = Text(MARGIN, picture.height + SIZE / 2, text)
    width = max(picture.width, text_width(text) + 2 * MARGIN)
    return Picture(width, picture.height + SIZE + MARGIN, (*picture.shapes, line))


def svg(picture: Picture) -> str:
    """A picture as an SVG document."""
    width, height = math.ceil(picture.width), math.ceil(picture.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{FONTS}" role="img">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *itertools.chain.from_iterable(map(_svg_parts, picture.shapes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def readable_on(fill: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    return max((INK, PAPER), key=lambda colour: contrast(colour, fill))


def contrast(colour: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21.

    Source: Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".

    Args:
        colour: As ``#rrggbb``.
        other: Likewise.
    """
    dark, light = sorted((_luminance(colour), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _moved(shape: Shape, x: float, y: float) -> Shape:
    if not isinstance(shape, Curve):
        return dataclasses.replace(shape, x=shape.x + x, y=shape.y + y)
    tip = None if shape.tip is None else (shape.tip[0] + x, shape.tip[1] + y)
    points = tuple((px + x, py + y) for px, py in shape.points)
    return dataclasses.replace(shape, points=points, tip=tip)


def caption(box: Box) -> Text:
    """The text in a box, where it stands."""
    colour = readable_on(box.fill)
    x, y = box.x + box.width / 2, box.y + box.height / 2
    return Text(x, y, box.text, anchor="middle", colour=colour)


def arrowhead(curve: Curve) -> tuple[Point, ...]:
    """The corners of the head: its tip, and half its length to both sides of its beginning."""
    if curve.tip is None:
        return ()
    (x, y), (tip_x, tip_y) = curve.points[-1], curve.tip
    across_x, across_y = 0.4 * (tip_y - y), 0.4 * (x - tip_x)
    return (curve.tip, (x + across_x, y + across_y), (x - across_x, y - across_y))


def _svg_parts(shape: Shape) -> Iterator[str]:
    if isinstance(shape, Box):
        dash = ' stroke-dasharray="4 3"' if shape.dashed else ""
        yield (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
            f'height="{shape.height:.1f}" rx="{shape.radius:.1f}" fill="{shape.fill}" '
            f'stroke="{GREY}"{dash}/>'
        )
        if shape.text:
            yield from _svg_parts(caption(shape))
    elif isinstance(shape, Curve):
        first, *others = (f"{x:.1f},{y:.1f}" for x, y in shape.points)
        yield (
            f'<path d="M{first}C{" ".join(others)}" fill="none" stroke="{shape.colour}" '
            f'stroke-width="{shape.width:g}"/>'
        )
        if shape.tip is not None:
            corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in arrowhead(shape))
            yield f'<polygon points="{corners}" fill="{shape.colour}"/>'
    else:
        # Not `dominant-baseline`, which not everything that shows SVG knows.
        yield (
            f'<text x="{shape.x:.1f}" y="{shape.y + 0.36 * shape.size:.1f}" '
            f'font-size="{shape.size:g}" text-anchor="{shape.anchor}" fill="{shape.colour}">'
            f"{html.escape(shape.text)}</text>"
        )
