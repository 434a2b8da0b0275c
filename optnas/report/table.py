"""The table of the networks, on the page and for programs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from optnas.drawing.architectures import is_drawn, picture
from optnas.drawing.attach import concat_of
from optnas.drawing.shapes import Picture, svg
from optnas.pages.content import Column, Table
from optnas.report.costs import NetworkCosts
from optnas.spaces import Architecture
from optnas.study.networks import StudyNetwork, best_first
from optnas.study.opening import OpenStudy
from optnas.trials.metric import Metric

Format = Callable[[Any], str]

DRAWN = 400_000
"""Bytes of the drawings of a table at most; those of the best networks come first."""
LONGEST = 300
"""Characters of a text in the table at most."""


def whole(value: float) -> str:
    """A number without a fraction."""
    return f"{value:,.0f}"


def digits(value: float) -> str:
    """Three digits at least, and all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spelled(seconds: float) -> str:
    """A time as it is said: ``40 s``, ``12 min``, ``2.5 h``."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{digits(seconds / unit)} {name}"
    return f"{digits(seconds)} s"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.2f}"


COLUMNS: Mapping[str, tuple[str, Format | None]] = {
    "trial": ("trial", str),
    "human_designed": ("human-designed", None),
    "phase": ("phase", None),
    "state": ("state", None),
    "accuracy": ("{metric} (fraction)", "{:.4f}".format),
    "depth": ("depth", whole),
    "params": ("parameters", whole),
    "multiply_adds": ("multiply-adds (one image)", whole),
    "memory_bytes": ("memory (MiB, one image)", _mebibytes),
    "inference_ms": ("inference (ms, one image)", digits),
    "epochs": ("epochs", whole),
    "train_seconds": ("training (s)", "{:,.1f}".format),
    "energy_wh": ("energy (Wh)", digits),
    "energy": ("energy is", None),
    "co2e_g": ("CO2e (g)", digits),
    "parent": ("parent", str),
    "increments": ("increments", whole),
    "inherited_tensors": ("inherited tensors", whole),
    "reason": ("reason", None),
}
"""Columns of the table of networks: heading, and how a number is written; None for text.

``{metric}`` stands for what the study maximises.

A column in which no network has anything is left out.
"""


def networks_table(
    handle: OpenStudy,
    networks: Sequence[StudyNetwork],
    costs: NetworkCosts,
    metric: Metric,
    rows: int,
) -> Table:
    """The networks, the best first, with drawings of the best ones.

    Args:
        handle: The study.
        networks: Its networks.
        costs: What is shown beyond what the trials say.
        metric: What the study maximises.
        rows: How many are shown at most.
    """
    space = handle.config.search_space
    shown = best_first([*networks, *costs.baselines])[:rows]
    table = costs.rows(networks, space)[:rows]  # In the same order.
    used = {
        field: column
        for field, column in COLUMNS.items()
        if any(row[field] not in (None, "") for row in table)
    }
    columns = [
        Column(heading.replace("{metric}", metric.name), text=write is None)
        for heading, write in used.values()
    ]
    cells = [[_written(row[field], write) for field, (_, write) in used.items()] for row in table]
    # Of a person's network the first column says nothing.
    own = [None if network.name else space.named_by(network.trial) for network in shown]
    title = f"Networks, the best {metric.name} first"
    drawings = list(_drawings(handle, own))
    return Table(title, columns, cells, sortable=True, drawings=drawings)


def _drawings(
    handle: OpenStudy, architectures: Sequence[Architecture | None]
) -> Iterator[Picture | None]:
    drawn: dict[Architecture, Picture] = {}
    used = 0
    for architecture in architectures:
        if architecture is None or used > DRAWN or not is_drawn(architecture):
            yield None
            continue
        if architecture not in drawn:
            drawn[architecture] = picture(architecture, concat_of(handle))
        size = len(svg(drawn[architecture]))
        used += size
        yield drawn[architecture] if used <= DRAWN else None


def _written(value: Any, write: Format | None) -> str:
    if write is None:
        text = str(value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
    return "" if value is None else write(value)
