"""What a plot shows, whoever draws it: pages as SVG, the dashboard with plotly."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
"""Okabe and Ito's colours, which most colour-blind readers tell apart."""
GREY = "#757575"
"""Of text and lines: 4.5:1 and more on white and on black."""
HEIGHT = 320
"""Pixels of a plot whose height nothing asks to be another."""

Line = Literal["", "solid", "dotted", "steps"]
Mark = Literal["", "point", "cross", "diamond", "ring"]


@dataclasses.dataclass(frozen=True)
class Series:
    """What is drawn in one way.

    Args:
        x: The points' positions, shape (n,); None interrupts a line.
        y: The same upwards, shape (n,).
        name: Its name in the legend; empty for none.
        colour: Which of ``COLOURS``, round and round; None for grey.
        line: How the points are joined; empty for not at all. Steps keep a value until the next.
        mark: What stands at a point; empty for nothing.
        thickness: Of the line, in pixels.
        low: Lower ends of a confidence band, or of bars where no line is; empty for none.
        high: Upper ends.
        labels: A text of some lines for every point, shown under the pointer; empty for none.
        beside: A text that stands beside every point; empty for none.
        values: What gives every point its colour, from dark to light; empty for ``colour``.
        values_label: What these values are.
    """

    x: Sequence[float | None]
    y: Sequence[float | None]
    name: str = ""
    colour: int | None = None
    line: Line = ""
    mark: Mark = ""
    thickness: float = 2.0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    labels: Sequence[str] = ()
    beside: Sequence[str] = ()
    values: Sequence[float] = ()
    values_label: str = ""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Series on two axes.

    Args:
        name: What it is called on its page; stays the same.
        title: Its heading.
        x_label: What the horizontal axis shows, with its unit.
        y_label: What the vertical axis shows; empty where its values mean nothing.
        series: What is drawn; those without points are left out.
        note: A remark below the heading.
        log_x: Whether the horizontal axis is logarithmic; its values are above 0 then.
        whole_x: Whether the horizontal axis counts.
        height: In pixels.
        says: What a reader sees in it, in a sentence; empty where nobody says it.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""
    log_x: bool = False
    whole_x: bool = False
    height: int = HEIGHT
    says: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", tuple(series for series in self.series if series.x))

    @property
    def named(self) -> list[Series]:
        """What the legend holds."""
        return [series for series in self.series if series.name]

    @property
    def description(self) -> str:
        """The plot in words, for those who do not see it."""
        axes = f"{self.y_label} against {self.x_label}" if self.y_label else f"by {self.x_label}"
        parts = [f"{series.name or 'points'}: {self._extent(series)}" for series in self.series]
        return f"{self.title}: {axes}. {'; '.join(parts)}."

    def _extent(self, series: Series) -> str:
        known = [y for y in series.y if y is not None]
        count = f"{len(known)} point{'' if len(known) == 1 else 's'}"
        ranged = self.y_label and known
        return f"{count} from {min(known):.4g} to {max(known):.4g}" if ranged else count
