"""The figures of a search for the dashboard, as plotly shows them.

Texts from the study are escaped: plotly shows some tags and entities in its texts. Only lists are
given to plotly, since the older plotly.js of the dashboard cannot read the arrays it makes of
NumPy's.
"""

import html
from typing import Any

import plotly.graph_objects as go

from optnas.drawing.shapes import INK, PAPER
from optnas.pages.plots import COLOURS, GREY, Line, Mark, Plot, Series

_LONGEST = 60
"""Characters of a text from the study."""

_LINES: dict[Line, dict[str, Any]] = {
    "": {},
    "solid": {"dash": "solid"},
    "dotted": {"dash": "dot"},
    "steps": {"shape": "hv"},
}
_MARKERS: dict[Mark, dict[str, Any]] = {
    "": {},
    "point": {"size": 8},
    "cross": {"size": 8, "symbol": "x"},
    "diamond": {"size": 10, "symbol": "diamond-open"},
    "ring": {"size": 14, "symbol": "circle-open", "line": {"width": 2}},
}


def plotly_figure(plot: Plot) -> go.Figure:
    """A plot as a figure on white paper, as drawings are, on a light and on a dark page.

    The dashboard shows figures as they are: no grey is easy to read on both of its pages.

    Args:
        plot: The plot; bands and bars are left out, since no search has them.
    """
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "linecolor": GREY}
    ticks = {"dtick": 1} if plot.whole_x and not plot.y_label else {}
    layout = {
        "template": "none",
        "title": {"text": f"{plot.title}<br><sup>{plot.note}</sup>" if plot.note else plot.title},
        "xaxis": {**axis, "title": {"text": plot.x_label}, **ticks},
        "yaxis": {**axis, "title": {"text": plot.y_label}, "visible": bool(plot.y_label)},
        "font": {"color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "hoverlabel": {"align": "left"},
    }
    return go.Figure([_trace(series) for series in plot.series], layout)


def _trace(series: Series) -> go.Scatter:
    colour = GREY if series.colour is None else COLOURS[series.colour % len(COLOURS)]
    parts = {"lines": series.line, "markers": series.mark, "text": series.beside}
    options: dict[str, Any] = {"hoverinfo": "skip"}
    if series.labels:
        labels = ["<br>".join(map(escaped, label.split("\n"))) for label in series.labels]
        options = {"text": labels, "hovertemplate": "%{text}<extra></extra>"}
    if series.beside:
        options |= {"text": list(map(escaped, series.beside)), "textposition": "bottom left"}
    if series.line:
        options["line"] = {"color": colour, "width": series.thickness, **_LINES[series.line]}
    if series.mark:
        options["marker"] = {"color": colour, **_MARKERS[series.mark], **_scale(series)}
    return go.Scatter(
        x=list(series.x),
        y=list(series.y),
        name=escaped(series.name),
        showlegend=bool(series.name),
        mode="+".join(name for name, drawn in parts.items() if drawn),
        **options,
    )


def _scale(series: Series) -> dict[str, Any]:
    if not series.values:
        return {}
    return {
        "color": list(series.values),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": series.values_label, "side": "right"}},
        "line": {"width": 1, "color": GREY},
    }


def escaped(text: str) -> str:
    """A text from the study, as text and not too long."""
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return html.escape(short, quote=False)
