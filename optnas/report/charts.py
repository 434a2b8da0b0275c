"""Charts as inline SVG, and a page of them that needs no other file."""

import dataclasses
import html
import math
from collections.abc import Sequence

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's colours, which most colour-blind readers tell apart."""

WIDTH, HEIGHT = 560, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 48
TICKS = 5

STYLE = """body{font-family:sans-serif;margin:2em auto;max-width:75em;padding:0 1em}
figure{display:inline-block;margin:1em} figcaption{max-width:36em}
svg text{font-size:12px;font-family:sans-serif} pre{overflow-x:auto}"""


@dataclasses.dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Args:
        name: Its name in the legend; empty for none.
        x: The points' positions, shape (n,).
        y: The same upwards, shape (n,).
        low: Lower ends of the confidence band or bars, shape (n,); empty for none.
        high: Upper ends, shape (n,).
        line: Whether the points are joined (with a band), or stand alone (with bars).
        labels: A text for every point, shown by the browser under the pointer; or empty.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    line: bool = True
    labels: Sequence[str] = ()


class _Axis:
    """From values to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool) -> None:
        self._log = log
        low, high = (self._scaled(value) for value in (min(values), max(values)))
        margin = 0.04 * (high - low) or 0.5
        self._low, self._high = low - margin, high + margin
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Round values inside the axis, a few."""
        if self._log:
            exponents = range(math.ceil(self._low), math.floor(self._high) + 1)
            decades = [10.0**exponent for exponent in exponents]
            if len(decades) > 1:
                return decades
        low, high = self._value(self._low), self._value(self._high)
        rough = (high - low) / TICKS
        unit = 10 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
        first = math.ceil(low / step)
        ticks = [index * step for index in range(first, math.floor(high / step) + 1)]
        return [tick for tick in ticks if tick > 0 or not self._log]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value

    def _value(self, scaled: float) -> float:
        return 10**scaled if self._log else scaled


def chart(
    series: Sequence[Series], x_label: str, y_label: str, *, caption: str, log_x: bool = False
) -> str:
    """A figure with its caption, as HTML. Series without points are left out.

    Args:
        series: What is drawn.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.
        caption: What the figure shows.
        log_x: Whether the horizontal axis is logarithmic; its values are above 0 then.
    """
    series = [one for one in series if len(one.x)]
    if not series:
        return ""
    xs = [x for one in series for x in one.x]
    ys = [y for one in series for y in (*one.y, *one.low, *one.high)]
    x_axis = _Axis(xs, LEFT, WIDTH - RIGHT, log=log_x)
    y_axis = _Axis(ys, HEIGHT - BOTTOM, TOP, log=False)
    parts = [*_frame(x_axis, y_axis, x_label, y_label)]
    for index, one in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        parts += _drawn(one, x_axis, y_axis, colour)
        if one.name:
            y = TOP + 14 + 16 * index
            parts.append(f'<rect x="{LEFT + 8}" y="{y - 9}" width="10" height="10" ')
            parts[-1] += f'fill="{colour}"/>'
            parts.append(_text(LEFT + 24, y, one.name, "start"))
    drawing = "\n".join(parts)
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{html.escape(caption)}">\n{drawing}\n</svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def page(title: str, text: str, figures: Sequence[str]) -> str:
    """A page of figures above a text in fixed width."""
    title = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(figures)
        + f"\n<pre>{html.escape(text)}</pre></body></html>"
    )


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<path d="M{LEFT},{TOP}V{bottom}H{right}" fill="none" stroke="#333"/>',
        _text((LEFT + right) / 2, HEIGHT - 8, x_label, "middle"),
        f'<g transform="translate(14,{(TOP + bottom) / 2}) rotate(-90)">'
        f"{_text(0, 0, y_label, 'middle')}</g>",
    ]
    for tick in x_axis.ticks():
        x = x_axis(tick)
        parts.append(f'<path d="M{x},{TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    for tick in y_axis.ticks():
        y = y_axis(tick)
        parts.append(f'<path d="M{LEFT},{y}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:.4g}", "end"))
    return parts


def _drawn(one: Series, x_axis: _Axis, y_axis: _Axis, colour: str) -> list[str]:
    xs, ys = [x_axis(x) for x in one.x], [y_axis(y) for y in one.y]
    ends = list(zip(map(y_axis, one.low), map(y_axis, one.high), strict=True))
    if one.line:
        parts = []
        if ends:
            upper = " ".join(f"{x},{high}" for x, (_, high) in zip(xs, ends, strict=True))
            lower = " ".join(
                f"{x},{low}" for x, (low, _) in reversed([*zip(xs, ends, strict=True)])
            )
            parts.append(f'<polygon points="{upper} {lower}" fill="{colour}" opacity="0.15"/>')
        points = " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))
        line = f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        return [*parts, line]
    bars = [
        f'<path d="M{x},{low}V{high}" stroke="{colour}" opacity="0.5"/>'
        for x, (low, high) in zip(xs, ends, strict=False)
    ]
    labels = one.labels or [""] * len(xs)
    return bars + [
        f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{html.escape(label)}</title>'
        "</circle>"
        for x, y, label in zip(xs, ys, labels, strict=True)
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{html.escape(text)}</text>'
