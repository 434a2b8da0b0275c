"""The page of `optnas report`: what was found, the figures, the networks, how and where it ran."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from optnas.drawing.attach import best_picture
from optnas.errors import UserError
from optnas.pages.content import (
    Block,
    Column,
    Drawing,
    Page,
    Paragraph,
    Plots,
    Preformatted,
    Section,
    Table,
)
from optnas.pages.frame import render
from optnas.report.costs import NO_COSTS, NetworkCosts
from optnas.report.figures import figures, parents_of
from optnas.report.text import best_text, status_text
from optnas.storage.urls import hide_password
from optnas.study.folders import page_marks
from optnas.study.networks import StudyNetwork, networks_of
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD, metric_of
from optnas.trials.metric import Metric

Format = Callable[[Any], str]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.2f}"


def _digits(value: float) -> str:
    """Three digits at least, and all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


COLUMNS: Mapping[str, tuple[str, Format | None]] = {
    "trial": ("trial", str),
    "human_designed": ("human-designed", None),
    "phase": ("phase", None),
    "state": ("state", None),
    "accuracy": ("{metric} (fraction)", "{:.4f}".format),
    "depth": ("depth", _whole),
    "params": ("parameters", _whole),
    "multiply_adds": ("multiply-adds (one image)", _whole),
    "memory_bytes": ("memory (MiB, one image)", _mebibytes),
    "inference_ms": ("inference (ms, one image)", _digits),
    "epochs": ("epochs", _whole),
    "train_seconds": ("training (s)", "{:,.1f}".format),
    "energy_wh": ("energy (Wh)", _digits),
    "energy": ("energy is", None),
    "co2e_g": ("CO2e (g)", _digits),
    "parent": ("parent", str),
    "increments": ("increments", _whole),
    "inherited_tensors": ("inherited tensors", _whole),
    "reason": ("reason", None),
}
"""Columns of the table of networks: heading, and how a number is written; None for text.

``{metric}`` stands for what the study maximises.

A column in which no network has anything is left out.
"""


def report_rows(handle: OpenStudy, costs: NetworkCosts = NO_COSTS) -> list[dict[str, Any]]:
    """The table of the networks: a row of JSON values for each.

    Args:
        handle: The study.
        costs: What it shows beyond what the trials say.

    Raises:
        UserError: If no trial is finished.
    """
    return costs.rows(_finished_networks(handle), handle.config.search_space)


def report_page(handle: OpenStudy, target: str, costs: NetworkCosts = NO_COSTS) -> str:
    """A study as an HTML page.

    Args:
        handle: The study.
        target: How commands name this study.
        costs: What it shows beyond what the trials say.

    Raises:
        UserError: If no trial is finished.
    """
    networks = _finished_networks(handle)
    table = costs.rows(networks, handle.config.search_space)
    notes = [Paragraph(note) for note in costs.notes(metric_of(handle.study))]
    sections: dict[str, list[Block]] = {
        "Found": [Preformatted(best_text(handle, target)), *_drawing(handle)],
        "Search": [Preformatted(status_text(handle))],
        "Figures": _figures(handle, costs.baselines),
        "Networks": [_networks_table(table, metric_of(handle.study)), *notes],
        "Configuration": [Preformatted(_configuration(handle))],
        "Versions and hardware": [_circumstances(handle, networks)],
    }
    parts = [Section(heading, blocks) for heading, blocks in sections.items() if blocks]
    return render(Page(f"Search {handle.study.study_name}", parts, page_marks(handle)))


def _finished_networks(handle: OpenStudy) -> list[StudyNetwork]:
    networks = networks_of(handle.study.get_trials(deepcopy=False), metric_of(handle.study))
    if all(network.state == "running" for network in networks):
        raise UserError(
            f"the study {handle.study.study_name!r} has no finished trial yet, so there is "
            "nothing to report; `optnas run` goes on with it"
        )
    return networks


def _drawing(handle: OpenStudy) -> list[Block]:
    """The best network, where there is a drawing of it."""
    drawn = best_picture(handle)
    return [] if drawn is None else [Drawing(drawn, "Drawing of the best network")]


def _figures(handle: OpenStudy, baselines: Sequence[StudyNetwork]) -> list[Block]:
    """Those that apply; trials that all failed have none."""
    trials = handle.study.get_trials(deepcopy=False)
    plots = figures(trials, parents_of(handle.study), baselines, metric_of(handle.study))
    return [Plots(list(plots.values()))] if plots else []


def _networks_table(table: Sequence[Mapping[str, Any]], metric: Metric) -> Table:
    used = {
        field: column
        for field, column in COLUMNS.items()
        if any(row[field] not in (None, "") for row in table)
    }
    columns = [
        Column(heading.replace("{metric}", metric.name), text=write is None)
        for heading, write in used.values()
    ]
    rows = [[_written(row[field], write) for field, (_, write) in used.items()] for row in table]
    return Table(f"Networks, the best {metric.name} first", columns, rows, sortable=True)


def _written(value: Any, write: Format | None) -> str:
    if write is None:
        return str(value)
    return "" if value is None else write(value)


def _circumstances(handle: OpenStudy, networks: Sequence[StudyNetwork]) -> Table:
    """What the trials say they ran on, and how many of them."""
    counts: Counter[tuple[str, str]] = Counter()
    for network in networks:
        attrs = network.trial.user_attrs
        versions = attrs.get("versions")
        environment = {**versions} if isinstance(versions, dict) else {}
        if "device" in attrs:
            environment["device"] = attrs["device"]
        counts.update((str(name), str(value)) for name, value in environment.items())
    record = handle.study.user_attrs[RECORD]
    facts = [
        ["study made by", f"optnas {record['version']}", ""],
        ["seed", str(record["seed"]), ""],
    ]
    counted = [[name, value, _networks(count)] for (name, value), count in sorted(counts.items())]
    columns = [Column("what", text=True), Column("which", text=True), Column("of")]
    return Table("Versions and hardware of the networks", columns, [*facts, *counted])


def _networks(count: int) -> str:
    return f"{count} network{'' if count == 1 else 's'}"


def _configuration(handle: OpenStudy) -> str:
    """The configuration as a study file says it, without passwords."""
    config = handle.config
    resolved = config.resolved()
    del resolved["folder"]
    storage = hide_password(config.storage)
    return yaml.safe_dump({**resolved, "storage": storage}, sort_keys=False, allow_unicode=True)
