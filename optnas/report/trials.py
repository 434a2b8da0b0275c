"""The trials of a study as a CSV file, for spreadsheets and data frames."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from optnas.pages.text import printable, without_paths
from optnas.report.costs import NO_COSTS, NetworkCosts
from optnas.spaces.words import in_words
from optnas.study.networks import StudyNetwork, network_row, networks_of
from optnas.study.opening import OpenStudy
from optnas.study.record import metric_of
from optnas.trials.attributes import STEP

BEGIN = "trial,state,"
"""How such a file begins, which nobody else's does."""
_LEFT_OUT = ("human_designed", "metric", "continues")


def trials_csv(handle: OpenStudy, costs: NetworkCosts = NO_COSTS) -> str:
    """Every trial in a row: what became of it, what it cost, its network, its parameters.

    Numbers are as precise as they are stored, and nothing where there is none. A text that a
    spreadsheet would take for a formula begins with an apostrophe.

    Args:
        handle: The study.
        costs: How energy and emissions are reckoned.
    """
    trials, metric = handle.study.get_trials(deepcopy=False), metric_of(handle.study)
    space = handle.config.search_space
    speaking = {network.number: network for network in networks_of(trials, metric)}
    rows = []
    for trial in trials:
        network = speaking.get(trial.number, StudyNetwork(trial, metric=metric))
        row = network_row(network, space) | costs.footprint.of(network)
        architecture = space.named_by(trial)
        words = "" if architecture is None else "; ".join(in_words(architecture))
        moments = (trial.datetime_start, trial.datetime_complete)
        started, ended = ("" if at is None else at.isoformat() for at in moments)
        known = {
            "trial": trial.number,
            "state": row["state"],
            metric.key: row["accuracy"],
            "step": trial.user_attrs.get(STEP, ""),
            **{k: v for k, v in row.items() if k not in ("accuracy", *_LEFT_OUT)},
            "started": started,
            "ended": ended,
            "network": words,
        }
        rows.append(known | {f"param:{name}": each for name, each in trial.params.items()})
    return _written(rows)


def _written(rows: list[dict[str, Any]]) -> str:
    header: dict[str, None] = {}
    for row in rows:
        header |= dict.fromkeys(row)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, header))
    writer.writerows([_cell(row.get(name)) for name in header] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping | list | tuple):
        value = json.dumps(value)
    text = without_paths(printable(str(value)))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
