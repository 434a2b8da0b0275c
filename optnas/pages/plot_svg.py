"""Plots as SVG inside a page, drawn by matplotlib when the page is made.

matplotlib says where everything stands; the page's style says in which colours, light or dark.
The same plot gives the same bytes, whatever taste in plots the machine has.
"""

import io
import itertools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optnas.pages.embedding import FONT_SIZE, INK, RULE, WIDTH, class_of, embedded
from optnas.pages.plots import COLOURS, GREY, Mark, Plot, Series
from optnas.pages.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter, Locator

STEPS = (1, 2, 5, 10)
"""Between the numbers at an axis, times a power of ten."""
SCALE = 10
"""Number of colours of points that have values."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "lines.markersize": 6,
    "legend.frameon": False,
}
_MARKS: dict[Mark, dict[str, Any]] = {
    "": {},
    "point": {"marker": "o", "markeredgewidth": 0},
    "cross": {"marker": "x", "markeredgewidth": 1.5},
    "diamond": {"marker": "D", "markerfacecolor": "none", "markeredgewidth": 1.5},
    "ring": {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.5},
}


def plot_svg(plot: Plot) -> str:
    """A plot as an SVG element, whose colours are classes of the page.

    Args:
        plot: The plot.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, "svg.hashsalt": plot.name}
    del settings["backend"]  # Whoever shows plots on a screen has chosen one.
    written = io.BytesIO()
    labels: dict[str, Sequence[str]] = {}
    with (
        matplotlib.rc_context(settings),
        warnings.catch_warnings(),
    ):
        # Of letters that its font lacks: the browser has them.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure((WIDTH / 72, plot.height / 72), dpi=72, layout="constrained")
        axes = figure.subplots()
        for index, series in enumerate(plot.series):
            labels |= _draw(axes, series, f"points-{index}")
        _label(axes, plot)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return embedded(written.getvalue(), plot, labels)


def legend_svg(series: Series) -> str:
    """The sign of a series in a legend, as an SVG element.

    Args:
        series: The series.
    """
    if series.values:
        parts = [
            f'<rect x="{6 * index}" width="6" height="12" fill="{colour}"/>'
            for index, colour in enumerate(_scale())
        ]
        return _sign(6 * SCALE, parts)
    colour = class_of(_colour(series))
    parts = []
    if series.line:
        dashes = ' stroke-dasharray="2 3"' if series.line == "dotted" else ""
        parts.append(
            f'<path d="M0,6H20" class="stroke-{colour}" stroke-width="{series.thickness:g}"'
            f"{dashes}/>"
        )
    signs = {
        "point": f'<circle cx="10" cy="6" r="4" class="fill-{colour}"/>',
        "cross": f'<path d="M6,2L14,10M14,2L6,10" class="stroke-{colour}" stroke-width="1.5"/>',
        "diamond": f'<path d="M10,1L15,6L10,11L5,6Z" class="fill-none stroke-{colour}"/>',
        "ring": f'<circle cx="10" cy="6" r="5" class="fill-none stroke-{colour}"/>',
    }
    return _sign(20, [*parts, signs.get(series.mark, "")])


def _sign(width: int, parts: Sequence[str]) -> str:
    content = "".join(parts)
    return (
        f'<svg width="{width}" height="12" viewBox="0 0 {width} 12" aria-hidden="true">'
        f"{content}</svg>"
    )


def _colour(series: Series) -> str:
    return GREY if series.colour is None else COLOURS[series.colour % len(COLOURS)]


def _scale() -> list[str]:
    import matplotlib
    from matplotlib.colors import to_hex

    colours = matplotlib.colormaps["viridis"].resampled(SCALE)
    return [to_hex(colours(index)) for index in range(SCALE)]


def _draw(axes: "Axes", series: Series, group: str) -> dict[str, Sequence[str]]:
    """Draw a series; returns the labels of its points by the group that they are drawn in."""
    x = [float("nan") if value is None else value for value in series.x]
    y = [float("nan") if value is None else value for value in series.y]
    colour = _colour(series)
    if len(series.low) and series.line:
        axes.fill_between(x, series.low, series.high, color=colour, alpha=0.2, lw=0, gid="band")
    elif len(series.low):
        lengths = [
            [value - low for value, low in zip(y, series.low, strict=True)],
            [high - value for value, high in zip(y, series.high, strict=True)],
        ]
        axes.errorbar(x, y, lengths, fmt="none", ecolor=GREY, elinewidth=1)
    if series.line:
        style = {"dotted": ":", "solid": "-", "steps": "-"}[series.line]
        steps = "steps-post" if series.line == "steps" else "default"
        axes.plot(x, y, style, drawstyle=steps, color=colour, lw=series.thickness, gid="line")
    for text, at_x, at_y in zip(series.beside, x, y, strict=bool(series.beside)):
        offset: dict[str, Any] = {
            "xytext": (-6, -6),
            "textcoords": "offset points",
            "ha": "right",
            "va": "top",
        }
        axes.annotate(_on_a_line(text), (at_x, at_y), **offset)
    if not series.mark:
        return {}
    if series.values:
        return _draw_values(axes, series, x, y, group)
    axes.plot(x, y, ls="none", color=colour, gid=group, **_MARKS[series.mark])
    drawn = [at is not None for at in series.y]  # matplotlib leaves the others out.
    return {group: list(itertools.compress(series.labels, drawn))}


def _draw_values(
    axes: "Axes", series: Series, x: Sequence[float], y: Sequence[float], group: str
) -> dict[str, Sequence[str]]:
    """Points in the colours of their values, a group for every colour."""
    low, high = min(series.values), max(series.values)
    steps = [
        min(int(SCALE * (value - low) / (high - low)), SCALE - 1) if high > low else SCALE - 1
        for value in series.values
    ]
    labels: dict[str, Sequence[str]] = {}
    for step, colour in enumerate(_scale()):
        chosen = [index for index, own in enumerate(steps) if own == step]
        if chosen:
            at_x, at_y = [x[index] for index in chosen], [y[index] for index in chosen]
            look = _MARKS[series.mark] | {"markeredgecolor": GREY, "markeredgewidth": 0.75}
            axes.plot(at_x, at_y, ls="none", color=colour, gid=f"{group}-{step}", **look)
            labels[f"{group}-{step}"] = [series.labels[i] for i in chosen if series.labels]
    return labels


def _label(axes: "Axes", plot: Plot) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(_on_a_line(plot.x_label))
    low, high = axes.get_xlim()
    if plot.whole_x and high - low < 1:  # A single whole number, and no fractions beside it.
        axes.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)
    if plot.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_log_locator(plot))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS, integer=plot.whole_x))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.minorticks_off()
    if any(series.beside for series in plot.series):  # Room for the texts.
        axes.margins(0.12, 0.1)
    axes.xaxis.set_major_formatter(_formatter(axes.get_xlim(), log=plot.log_x))
    axes.yaxis.set_major_formatter(_formatter(axes.get_ylim()))
    if plot.y_label:
        axes.set_ylabel(_on_a_line(plot.y_label))
    else:
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)


def _on_a_line(text: str) -> str:
    return " ".join(printable(text).split())


def _formatter(limits: tuple[float, float], *, log: bool = False) -> "Formatter":
    """Large numbers with a unit, small ones with as many digits as one another."""
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    if log or max(map(abs, limits)) >= 1000:
        return FuncFormatter(lambda value, _: _amount(value))
    return ScalarFormatter()


def _log_locator(plot: Plot) -> "Locator":
    """Decades where there are several, else round numbers between them too."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    xs = [x for series in plot.series for x in series.x if x is not None]
    span = max(xs, default=1) / min(xs, default=1)
    if span < 10:
        return MaxNLocator(5, steps=STEPS)
    return LogLocator(subs=(1.0,) if span > 1e3 else (1.0, 2.0, 5.0))


def _amount(value: float) -> str:
    """A number at an axis: ``1.5M``."""
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:g}{unit}"
    return f"{value:g}"
