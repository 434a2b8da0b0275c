"""The page of `optnas report`, for somebody who did not run the search.

The result comes first, then the data, the search, its networks, where the network errs, what it
all took; and folded away how it was made.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optnas.errors import UserError
from optnas.pages.content import (
    Block,
    Column,
    Folded,
    Page,
    Paragraph,
    Plots,
    Preformatted,
    Section,
    Table,
)
from optnas.pages.frame import render
from optnas.report.costs import NO_COSTS, NetworkCosts
from optnas.report.data import seen_blocks
from optnas.report.errors import where_it_errs
from optnas.report.figures import figures, parents_of
from optnas.report.result import lead, result, what_was_found
from optnas.report.story import phases_table, told, what_was_tried, why_it_stopped
from optnas.report.table import networks_table
from optnas.report.tested import kept_networks
from optnas.report.text import status_text
from optnas.report.totals import what_it_took
from optnas.storage.urls import hide_password, storage_file
from optnas.study.data import seen_fields
from optnas.study.folders import page_marks
from optnas.study.networks import StudyNetwork, best_first, networks_of
from optnas.study.opening import OpenStudy
from optnas.study.record import RECORD, metric_of
from optnas.units import plural

LARGEST = 1_500_000
"""Bytes of a page at most, so that it can be sent by mail."""
SHOWN = (1000, 300, 100, 30)
"""How many networks are shown, in figures and in the table: the first that make no larger page."""


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
    """A study as an HTML page of ``LARGEST`` bytes at most.

    Args:
        handle: The study.
        target: How commands name this study.
        costs: What it shows beyond what the trials say.

    Raises:
        UserError: If no trial is finished.
    """
    html = ""
    for most in SHOWN:
        html = render(report(handle, target, costs, most))
        if len(html.encode(errors="backslashreplace")) <= LARGEST:
            break
    return html


def report(
    handle: OpenStudy, target: str, costs: NetworkCosts = NO_COSTS, most: int = SHOWN[0]
) -> Page:
    """A study as a page, for HTML and Markdown.

    Args:
        handle: The study.
        target: How commands name this study.
        costs: What it shows beyond what the trials say.
        most: How many networks are shown.

    Raises:
        UserError: If no trial is finished.
    """
    networks = _finished_networks(handle)
    kept = kept_networks(handle)
    found = what_was_found(handle, kept)
    sections: dict[str, list[Block]] = {
        "Result": result(handle, target, found, costs),
        "Data": seen_blocks(handle.config, seen_fields(handle.study)),
        "Search": _search(handle, networks, costs, most),
        "Networks": _networks(handle, networks, costs, most),
        "Where it errs": where_it_errs(kept[0]) if kept else [],
        "Cost": what_it_took(networks, costs, kept),
        "Configuration": [Folded("The whole configuration", _configuration(handle, target))],
        "Versions and hardware": [_circumstances(handle, networks)],
    }
    return Page(
        f"Search {handle.study.study_name}",
        [Section(heading, blocks) for heading, blocks in sections.items() if blocks],
        page_marks(handle),
        lead(handle, found),
        _folders(handle),
    )


def _finished_networks(handle: OpenStudy) -> list[StudyNetwork]:
    networks = networks_of(handle.study.get_trials(deepcopy=False), metric_of(handle.study))
    if all(network.state == "running" for network in networks):
        raise UserError(
            f"the study {handle.study.study_name!r} has no finished trial yet, so there is "
            "nothing to report; `optnas run` goes on with it"
        )
    return networks


def _search(
    handle: OpenStudy, networks: Sequence[StudyNetwork], costs: NetworkCosts, most: int
) -> list[Block]:
    """What was tried and why it stopped, in words and in pictures."""
    said = f"{what_was_tried(handle, networks)} {why_it_stopped(handle)}"
    blocks: list[Block] = [Paragraph(said)]
    phases = phases_table(networks, metric_of(handle.study))
    blocks += [] if phases is None else [phases]
    trials = handle.study.get_trials(deepcopy=False)
    if len(networks) > most:
        best = {network.number for network in best_first(networks)[:most]}
        trials = [trial for trial in trials if trial.number in best]
        blocks.append(Paragraph(f"The figures show the best {most:,} networks."))
    plots = figures(trials, parents_of(handle.study), costs.baselines, metric_of(handle.study))
    if plots:
        blocks.append(Plots(told(plots, handle, networks)))
    return [*blocks, Folded("Where the search stands", [Preformatted(status_text(handle))])]


def _networks(
    handle: OpenStudy, networks: Sequence[StudyNetwork], costs: NetworkCosts, most: int
) -> list[Block]:
    metric = metric_of(handle.study)
    table = networks_table(handle, networks, costs, metric, most)
    blocks: list[Block] = [table, *(Paragraph(note) for note in costs.notes(metric))]
    drawn = sum(drawing is not None for drawing in table.drawings)
    said = []
    if drawn:
        some = "" if drawn == len(table.rows) else f" ({drawn:,} of {len(table.rows):,} have one)"
        how = "Point at the number of a trial, or choose it by keyboard, to see its drawing"
        said.append(f"{how}{some}.")
    left = len(networks) + len(costs.baselines) - len(table.rows)
    if left > 0:
        said.append(
            f"Not shown: {plural(left, 'network')}; the CSV file beside this page has all."
        )
    return [Paragraph(" ".join(said)), *blocks] if said else blocks


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
    record: Mapping[str, Any] = handle.study.user_attrs[RECORD]
    facts = [
        ["study made by", f"optnas {record['version']}", ""],
        ["seed", str(record["seed"]), ""],
    ]
    counted = [
        [name, value, plural(number, "network")]
        for (name, value), number in sorted(counts.items())
    ]
    columns = [Column("what", text=True), Column("which", text=True), Column("of")]
    return Table("Versions and hardware of the networks", columns, [*facts, *counted])


def _configuration(handle: OpenStudy, target: str) -> list[Block]:
    """The configuration as a study file says it, without passwords, and the commands."""
    config = handle.config
    resolved = config.resolved()
    del resolved["folder"]
    shown = _said({**resolved, "storage": hide_password(config.storage)})
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    commands = f"optnas run {target}\noptnas retrain {target}\noptnas report {target}"
    return [
        Paragraph("As a study file says it, with its defaults. Of paths the last part is shown."),
        Preformatted(text),
        Paragraph("Go on with the search, train and test its network, write this page anew:"),
        Preformatted(commands),
    ]


def _said(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value."""
    found = {k: _said(v) if isinstance(v, Mapping) else v for k, v in keys.items()}
    return {key: value for key, value in found.items() if value not in (None, {}, [])}


def _folders(handle: OpenStudy) -> list[str]:
    """The folders of this machine that its texts may name."""
    file = storage_file(handle.config.storage)
    folders = [handle.config.folder, None if file is None else file.absolute().parent]
    return [str(Path(folder)) for folder in folders if folder is not None]
