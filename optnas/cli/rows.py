"""Finished trials as rows of a table, as wide as there is room."""

import textwrap
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optnas.trials.attributes import CONTINUES, FAILURE, FAILURE_REASON, PHASE
from optnas.trials.metric import Metric
from optnas.trials.outcomes import is_interrupted, outcome
from optnas.units import count, duration, plural

_COLUMNS = (
    ("trial", "{:>5}"),
    ("phase", "{:<12}"),
    ("value", "{:>8}"),
    ("params", "{:>7}"),
    ("mult-adds", "{:>9}"),
    ("time", "{:>7}"),
)
_DROPPED = ("mult-adds", "params", "phase")
"""What is left out first where there is too little room."""
_INDENT = 7


def trial_fields(trial: FrozenTrial) -> dict[str, Any]:
    """What there is to say of a finished trial, for programs."""
    attrs = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": outcome(trial),
        "phase": attrs.get(PHASE),
        "value": trial.value,
        "params": attrs.get("params"),
        "multiply_adds": attrs.get("multiply_adds"),
        "seconds": attrs.get("train_seconds"),
        "epochs": len(trial.intermediate_values),
        "continues": attrs.get(CONTINUES),
        "failure": attrs.get(FAILURE),
        "reason": attrs.get(FAILURE_REASON),
    }


def header(metric: Metric, width: int | None = None) -> str:
    """The headings over the rows, for so many characters; None for any number."""
    return _row({name: name for name, _ in _COLUMNS} | {"value": metric.heading}, width)


def trial_lines(trial: FrozenTrial, width: int | None = None) -> list[str]:
    """A finished trial: a row, and where there is no room in it, lines for what is remarkable.

    Args:
        trial: The trial.
        width: Characters of a line; None for any number.
    """
    fields = trial_fields(trial)
    cells = {
        "trial": fields["number"],
        "phase": fields["phase"] or "",
        "value": "-" if fields["value"] is None else f"{fields['value']:.4f}",
        "params": count(fields["params"]),
        "mult-adds": count(fields["multiply_adds"]),
        "time": duration(fields["seconds"]),
    }
    row, remarks = _row(cells, width), "; ".join(_remarks(trial, fields))
    if not remarks:
        return [row]
    together = f"{row}  {remarks}"
    if width is None or len(together) <= width:
        return [together]
    indent = " " * min(_INDENT, width // 4)
    return [
        row,
        *textwrap.wrap(remarks, width, initial_indent=indent, subsequent_indent=indent),
    ]


def _remarks(trial: FrozenTrial, fields: dict[str, Any]) -> list[str]:
    remarks = []
    if trial.state == TrialState.PRUNED:
        remarks.append(f"{outcome(trial)} after {plural(fields['epochs'], 'epoch')}")
    if is_interrupted(trial):
        remarks.append("interrupted; goes on later")
    elif fields["reason"] is not None:
        remarks.append(f"{fields['failure'] or 'infeasible'}: {fields['reason']}")
    if fields["continues"] is not None:
        remarks.append(f"continues {fields['continues']}")
    return remarks


def _row(cells: dict[str, Any], width: int | None) -> str:
    shown = list(_COLUMNS)
    for dropped in _DROPPED:
        if width is None or len(_joined(shown, cells)) <= width:
            break
        shown = [column for column in shown if column[0] != dropped]
    line = _joined(shown, cells)
    return line if width is None else cut(line, width)


def _joined(columns: list[tuple[str, str]], cells: dict[str, Any]) -> str:
    return "  ".join(form.format(cells[name]) for name, form in columns)


def cut(text: str, width: int) -> str:
    """A text in so many characters."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."
