"""The page of `optnas report`: one HTML file that needs no other, and no network.

Everything from the study is escaped: names, parameters and attributes may come from anybody who
can write to its storage. The browser is told to load nothing else, whatever the page says.
"""

import html
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from optnas.drawing.attach import best_picture
from optnas.drawing.shapes import svg
from optnas.errors import UserError
from optnas.report.costs import NOTHING, Measures
from optnas.report.figures import figures, parents_of, tree_rows
from optnas.report.text import best_text, status_text
from optnas.storage.files import write_whole
from optnas.storage.urls import hide_password
from optnas.study.folders import page_mark
from optnas.study.networks import Network, networks_of
from optnas.study.opening import RECORD, OpenStudy

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""What the page may do: run its own scripts and styles, and load nothing."""

STYLE = """:root{color-scheme:light dark}
body{font-family:sans-serif;margin:2em auto;max-width:75em;padding:0 1em}
pre{overflow-x:auto} .wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2em .7em;text-align:right;white-space:nowrap;border-bottom:1px solid #8884}
td.text,th.text{text-align:left;white-space:normal}
.infolayer text,.xtick text,.ytick text,.legend text{fill:CanvasText!important}"""

CONFIG = {"displaylogo": False, "responsive": True}
FIGURE_HEIGHT, ROW_HEIGHT, GREATEST_HEIGHT = 500, 14, 3000
"""Pixels: of a figure, of a row of the tree of networks, and of a whole tree at most."""

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
    "accuracy": ("accuracy (fraction)", "{:.4f}".format),
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

A column in which no network has anything is left out.
"""


def report_rows(opened: OpenStudy, measures: Measures = NOTHING) -> list[dict[str, Any]]:
    """The table of the networks: a row of JSON values for each.

    Args:
        opened: The study.
        measures: What it shows beyond what the trials say.

    Raises:
        UserError: If no trial is finished.
    """
    return measures.rows(_finished_networks(opened), opened.config.search_space)


def report_page(opened: OpenStudy, again: str, measures: Measures = NOTHING) -> str:
    """A study as a page: what was found, the figures, the networks, how and where it ran.

    Args:
        opened: The study.
        again: How commands name this study.
        measures: What it shows beyond what the trials say.

    Raises:
        UserError: If no trial is finished.
    """
    networks = _finished_networks(opened)
    table = measures.rows(networks, opened.config.search_space)
    sections = {
        "Found": _pre(best_text(opened, again)) + _drawing(opened),
        "Search": _pre(status_text(opened)),
        "Figures": _figures(opened, networks, measures.baselines),
        "Networks": _networks_table(table) + _notes(measures),
        "Configuration": _pre(_configuration(opened)),
        "Versions and hardware": _circumstances(opened, networks),
    }
    title = html.escape(f"Search {opened.study.study_name}")
    body = "\n".join(f"<h2>{name}</h2>\n{content}" for name, content in sections.items())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width">{page_mark(opened)}'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{body}</body></html>\n"
    )


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    # An attribute may hold half a character, which no encoding has.
    write_whole(path, page.encode("utf-8", errors="backslashreplace"))


def _finished_networks(opened: OpenStudy) -> list[Network]:
    networks = networks_of(opened.study.get_trials(deepcopy=False))
    if all(network.state == "running" for network in networks):
        raise UserError(
            f"the study {opened.study.study_name!r} has no finished trial yet, so there is "
            "nothing to report; `optnas run` goes on with it"
        )
    return networks


def _drawing(opened: OpenStudy) -> str:
    """The best network, where there is a drawing of it."""
    drawn = best_picture(opened)
    return "" if drawn is None else f'\n<div class="wide">{svg(drawn)}</div>'


def _figures(opened: OpenStudy, networks: Sequence[Network], baselines: Sequence[Network]) -> str:
    from plotly.offline import get_plotlyjs

    drawn = figures(opened.study.get_trials(deepcopy=False), parents_of(opened.study), baselines)
    parts = [f"<script>{get_plotlyjs()}</script>"]
    for name, figure in drawn.items():
        height = FIGURE_HEIGHT
        if name == "lineage":
            leaves = 1 - min(tree_rows(networks).values())
            height = int(min(max(height, ROW_HEIGHT * leaves), GREATEST_HEIGHT))
        parts.append(
            figure.to_html(
                CONFIG,
                full_html=False,
                include_plotlyjs=False,
                div_id=f"figure-{name}",
                default_height=f"{height}px",
            )
        )
    return "\n".join(parts)


def _networks_table(table: Sequence[Mapping[str, Any]]) -> str:
    used = {
        field: column
        for field, column in COLUMNS.items()
        if any(row[field] not in (None, "") for row in table)
    }
    header = [_cell(heading, "th", text=write is None) for heading, write in used.values()]
    lines = [
        [_table_cell(row[field], write) for field, (_, write) in used.items()] for row in table
    ]
    return _table([header, *lines])


def _notes(measures: Measures) -> str:
    return "".join(f"<p>{html.escape(note)}</p>" for note in measures.notes)


def _table_cell(value: Any, write: Format | None) -> str:
    if write is None:
        return _cell(value, text=True)
    return _cell("" if value is None else write(value))


def _circumstances(opened: OpenStudy, networks: Sequence[Network]) -> str:
    """What the trials say they ran on, and how many of them."""
    counts: Counter[tuple[str, str]] = Counter()
    for network in networks:
        attrs = network.trial.user_attrs
        versions = attrs.get("versions")
        said = {**versions} if isinstance(versions, dict) else {}
        if "device" in attrs:
            said["device"] = attrs["device"]
        counts.update((str(name), str(value)) for name, value in said.items())
    record = opened.study.user_attrs[RECORD]
    facts = {("study made by", f"optnas {record['version']}"): "", ("seed", record["seed"]): ""}
    told = {key: f"{count} networks" for key, count in sorted(counts.items())}
    return _table(
        [
            [_cell(name, text=True), _cell(value, text=True), _cell(count)]
            for (name, value), count in {**facts, **told}.items()
        ]
    )


def _configuration(opened: OpenStudy) -> str:
    """The configuration as a study file says it, without passwords."""
    config = opened.config
    resolved = config.resolved()
    del resolved["folder"]
    storage = hide_password(config.storage)
    return yaml.safe_dump({**resolved, "storage": storage}, sort_keys=False, allow_unicode=True)


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _cell(value: Any, tag: str = "td", *, text: bool = False) -> str:
    return f"<{tag}{' class=text' if text else ''}>{html.escape(str(value))}</{tag}>"


def _table(lines: Sequence[Sequence[str]]) -> str:
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f'<div class="wide"><table>\n{body}\n</table></div>'
