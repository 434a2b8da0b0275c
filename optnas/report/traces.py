"""What the figures of a search are made of: plotly's traces, in one look.

Texts from the study are escaped: plotly shows some tags and entities in its texts. Only lists are
given to plotly, since the older plotly.js of the dashboard cannot read the arrays it makes of
NumPy's.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from optnas.report.charts import COLOURS
from optnas.study.networks import Network, lines

GREY = "#808080"
"""Of text and lines: readable on white and on black."""

_PALETTE = [colour for colour in COLOURS if colour != "#000000"]
_LONGEST = 60
"""Characters of a text from the study."""


def line(x: Iterable[Any], y: Iterable[Any], *, name: str = "", **options: Any) -> go.Scatter:
    """A trace of joined points; one without a name is not in the legend.

    Args:
        x: Positions, shape (n,); None interrupts the line.
        y: The same upwards, shape (n,).
        name: Its name in the legend.
        **options: Of ``plotly.graph_objects.Scatter``.
    """
    options = {"mode": "lines", "showlegend": bool(name), "name": escaped(name), **options}
    return go.Scatter(x=list(x), y=list(y), **options)


def points(
    networks: Sequence[Network],
    x: Callable[[Network], Any],
    y: Callable[[Network], Any],
    name: str,
    marker: dict[str, Any],
    **options: Any,
) -> go.Scatter:
    """A trace of networks, each of which tells of itself under the pointer.

    Args:
        networks: The networks.
        x: Where a network stands.
        y: The same upwards.
        name: Its name in the legend; empty for none.
        marker: How the points look.
        **options: Of ``plotly.graph_objects.Scatter``.
    """
    options = {"mode": "markers", "hovertemplate": "%{text}<extra></extra>", **options}
    return line(
        [x(network) for network in networks],
        [y(network) for network in networks],
        name=name,
        marker={"size": 8, **marker},
        text=["<br>".join(map(escaped, lines(network))) for network in networks],
        **options,
    )


def figure(
    title: str, x_title: str, y_title: str, traces: Sequence[go.Scatter], *, note: str = ""
) -> go.Figure:
    """A figure whose colours suit a light and a dark page.

    Args:
        title: Its heading.
        x_title: What the horizontal axis shows, with its unit.
        y_title: What the vertical axis shows, with its unit.
        traces: What is drawn; empty traces are left out.
        note: A remark below the heading.
    """
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "linecolor": GREY}
    layout = {
        "template": "none",
        "title": {"text": f"{title}<br><sup>{note}</sup>" if note else title},
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
        "font": {"color": GREY},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
    }
    return go.Figure([trace for trace in traces if trace.x], layout)


def colour(index: int) -> str:
    """The colour of the series ``index``."""
    return _PALETTE[index % len(_PALETTE)]


def escaped(text: str) -> str:
    """A text from the study, as text and not too long."""
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return html.escape(short, quote=False)
