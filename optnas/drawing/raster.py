"""Pictures as PNG, drawn by Pillow in the font that comes with it."""

import functools
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from optnas.drawing.shapes import (
    GREY,
    PAPER,
    Box,
    Curve,
    Picture,
    Point,
    Shape,
    arrowhead,
    caption,
)

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_SCALE = 1.5
"""Pixels of a PNG per pixel of the picture, so that it stays sharp when it is enlarged."""
_FINE = 2
"""Pixels of the canvas per pixel of a PNG, so that edges are smooth."""
_MOST_PIXELS = 8e6
"""Of a PNG; larger pictures are scaled down."""
_PIECE = 8
"""Length of the straight pieces that a PNG's curves are made of, about."""


def png(picture: Picture) -> bytes:
    """A picture as a PNG file."""
    from PIL import Image, ImageDraw

    fitting = math.sqrt(_MOST_PIXELS / (picture.width * picture.height))
    scale = _FINE * min(_SCALE, fitting)
    size = (math.ceil(picture.width * scale), math.ceil(picture.height * scale))
    image = Image.new("RGB", size, PAPER)
    canvas = _Canvas(ImageDraw.Draw(image), scale)
    for shape in picture.shapes:
        canvas.draw(shape)
    file = io.BytesIO()
    # A few colours: their shades take a quarter of the bytes in a palette.
    palette = image.reduce(_FINE).quantize(128, Image.Quantize.FASTOCTREE)
    palette.save(file, "PNG")
    return file.getvalue()


class _Canvas:
    """Draws shapes, enlarged.

    Args:
        draw: What draws.
        scale: Pixels per pixel of the picture.
    """

    def __init__(self, draw: "ImageDraw.ImageDraw", scale: float) -> None:
        self._draw = draw
        self._scale = scale

    def draw(self, shape: Shape) -> None:
        """Draw a shape over what is there."""
        if isinstance(shape, Box):
            self._box(shape)
        elif isinstance(shape, Curve):
            self._curve(shape)
        else:
            anchor = "lm" if shape.anchor == "start" else "mm"
            place, font = self._at((shape.x, shape.y)), _font(shape.size * self._scale)
            self._draw.text(place, shape.text, fill=shape.colour, font=font, anchor=anchor)

    def _box(self, box: Box) -> None:
        corners = [self._at((box.x, box.y)), self._at((box.x + box.width, box.y + box.height))]
        radius = min(box.radius, box.height / 2, box.width / 2) * self._scale
        thick = round(self._scale)
        self._draw.rounded_rectangle(corners, radius, box.fill, GREY, thick)
        if box.dashed:
            x, y, right, below = box.x, box.y, box.x + box.width, box.y + box.height
            for start in range(4, int(box.width), 7):
                for side in (y, below):
                    ends = ((x + start, side), (min(x + start + 3, right), side))
                    self._line(ends, PAPER, 3)
        if box.text:
            self.draw(caption(box))

    def _curve(self, curve: Curve) -> None:
        self._line(_flattened(curve.points), curve.colour, curve.width)
        if curve.tip is not None:
            self._draw.polygon([self._at(corner) for corner in arrowhead(curve)], curve.colour)

    def _line(self, points: Iterable[Point], colour: str, width: float) -> None:
        thick = max(1, round(width * self._scale))
        self._draw.line([self._at(point) for point in points], colour, thick, joint="curve")

    def _at(self, point: Point) -> tuple[int, int]:
        # Rounded, because Pillow cuts off: a straight line would have steps.
        return (round(point[0] * self._scale), round(point[1] * self._scale))


@functools.lru_cache
def _font(size: float) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)  # It comes with Pillow.


def _flattened(points: Sequence[Point]) -> Iterator[Point]:
    """Points on Bezier curves, close enough to be joined by straight lines."""
    yield points[0]
    for first in range(0, len(points) - 1, 3):
        a, b, c, d = points[first : first + 4]
        steps = 2 + int(math.dist(a, b) + math.dist(b, c) + math.dist(c, d)) // _PIECE
        for step in range(1, steps + 1):
            t = step / steps
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            corners = list(zip(weights, (a, b, c, d), strict=True))
            yield (sum(w * p[0] for w, p in corners), sum(w * p[1] for w, p in corners))
