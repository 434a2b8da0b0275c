"""The commands that experiments end with: each is one that works."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from optnas.config.file import read_study_file
from optnas.config.overrides import parse_overrides
from optnas.experiments.contenders import parse_contenders
from optnas.experiments.next_commands import command_after_comparison, command_after_ranking

FILE = """\
study: next
data: digits
space: chain
sampler: {sampler}
train: {train}
"""


def study_file(folder: Path, sampler: str, train: str = "{}") -> Path:
    path = folder / "a study.yaml"
    path.write_text(FILE.format(sampler=sampler, train=train))
    return path


def searched(command: str) -> dict[str, Any]:
    """The configuration that a command runs."""
    program, verb, file, *changes = shlex.split(command)
    assert (program, verb) == ("optnas", "run")
    texts = [change.removeprefix("--set=") for change in changes]
    return read_study_file(file, parse_overrides(texts)).checked().resolved()


ROWS = [
    {"setting": "c1r0s0e6", "rho": 0.7, "rho_low": 0.1, "speedup": 3.0},
    {"setting": "c0r0s1e6", "rho": 0.9, "rho_low": 0.2, "speedup": 4.0},
    {"setting": "c2r0s1e6", "rho": 0.9, "rho_low": 0.1, "speedup": 9.0},
    {"setting": "c3r0s1e6", "rho": None, "rho_low": None, "speedup": 99.0},
]
# An order that is turned round, one that cannot be told from chance, and too few networks.
VAIN = [
    {"setting": "c1r0s0e6", "rho": -0.7, "rho_low": -0.9, "speedup": 3.0},
    {"setting": "c2r0s0e6", "rho": 0.6, "rho_low": -0.1, "speedup": 3.0},
    {"setting": "c3r0s0e6", "rho": 0.9, "rho_low": None, "speedup": 3.0},
]


@pytest.mark.parametrize(
    ("sampler", "train", "rows", "proxy"),
    [
        ("random", "{epochs: 8}", ROWS, "c2r0s1e6"),
        ("random", "{}", ROWS[:2], "c0r0s1e6"),
        ("random", "{epochs: 8}", [], None),
        ("random", "{}", VAIN, None),
        ("random", "{}", [*VAIN, ROWS[0]], "c1r0s0e6"),
        ("macro_micro", "{}", ROWS, None),
    ],
)
def test_a_ranking_leads_to_the_setting_that_ranks_best(tmp_path, sampler, train, rows, proxy):
    file = study_file(tmp_path, sampler, train)
    config = read_study_file(file, []).checked()
    found = searched(command_after_ranking(config, str(file), {"settings": rows}))
    assert found["proxy"] == proxy


def ranking(*labels: str, tied: int) -> dict[str, Any]:
    return {"ranking": [{"label": label, "tied": i < tied} for i, label in enumerate(labels)]}


@pytest.mark.parametrize(
    ("contenders", "order", "tied", "sampler", "pruner"),
    [
        # Whose lead is no more than luck changes nothing.
        ("tpe,random", ("tpe", "random"), 2, "random", "none"),
        ("tpe,random", ("tpe", "random"), 1, "tpe", "none"),
        ("{name: tpe, group: true},random", ("tpe group=True", "random"), 1, "tpe", "none"),
        ("random+median,random", ("random+median", "random"), 1, "random", "median"),
        ("random+median,tpe", ("random+median", "tpe"), 2, "random", "median"),
        ("macro_micro,random", ("macro_micro", "random"), 1, "macro_micro", "none"),
    ],
)
def test_a_comparison_leads_to_who_is_ahead(tmp_path, contenders, order, tied, sampler, pruner):
    file = study_file(tmp_path, "random", "{epochs: 8}")
    config = read_study_file(file, []).checked()
    known = parse_contenders(contenders, config)
    fields = ranking(*order, tied=tied)
    found = searched(command_after_comparison(config, str(file), known, fields))
    assert found["sampler"]["name"] == sampler
    assert found["pruner"]["name"] == pruner
