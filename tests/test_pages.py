"""The frame of pages: complete, harmless, readable without a script, the same every time."""

import base64
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pytest
from readers import Reader
from searches import growing, opened

from optnas.drawing.shapes import Box, Picture
from optnas.pages.content import (
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
from optnas.pages.plot_svg import plot_svg
from optnas.pages.plots import COLOURS, Plot, Series
from optnas.report.page import report_page

ROOT = Path(__file__).parents[1]
HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></style></svg></pre></table><base href='//x'>",
    "' onfocus=alert(1) autofocus x='",
    "{{ 7 * 7 }} {% raw %} ${x} $\\frac{1$ &lt;b&gt;",
    "\x00\x07\x1b[31m\x7f\x9b red \u202e\u2066 turned \ud800 half",
    "a\n\tb\r\nc",
    "\u4e2d\u6587 \U0001f600 \u05d0",
]


def plot(text: str = "text", **changes: Any) -> Plot:
    """A plot with everything that one can have."""
    series = [
        Series([1, 2, None, 3], [1, 2, None, 3], text, colour=0, line="solid", mark="point"),
        Series([1, 2], [2, 1], text, colour=9, line="dotted", low=[1, 0], high=[3, 2]),
        Series([1, 2], [2, 3], text, line="steps", beside=[text, text]),
        Series([1, 2], [2, 1], text, colour=1, mark="cross", low=[1, 0], high=[3, 2]),
        Series([1, 2], [2, 4], text, mark="diamond", labels=[text, f"{text}\n{text}"]),
        Series([1, 2], [1, 1], text, mark="ring"),
        Series([1, 2], [3, 4], mark="point", values=[0.5, 0.75], values_label=text),
    ]
    return Plot("one", text, text, text, series, text, **changes)


def page(text: str) -> str:
    """A page of everything, in which all texts are the same."""
    picture = Picture(40, 20, (Box(0, 0, 40, 20, text=text),))
    columns = [Column(text, text=True), Column(text)]
    blocks = [
        Paragraph(text),
        Preformatted(text),
        Table(text, columns, [[text, text], [text, text]], titled=True, sortable=True),
        Plots([plot(text)]),
        Drawing(picture, text),
    ]
    return render(Page(text, [Section("First", blocks), Section("Second", [Paragraph(text)])]))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_markup_wherever_it_stands(text):
    hostile, plain = Reader(page(text)), Reader(page("text"))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [list(attrs) for _, attrs in hostile.tags] == [list(attrs) for _, attrs in plain.tags]
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\u2066\ud800]", page(text))


def test_texts_are_read_as_they_are_and_control_characters_are_shown():
    text = "a <b> & \"c\" 'd' \x1b[0m"
    shown = Reader(page(text)).texts.count("a <b> & \"c\" 'd' \\x1b[0m")
    # Title twice, paragraphs, preformatted, caption, two headings, four cells; title, note, axes,
    # beside two points, label of a point, six names in the legend; the box of the drawing.
    assert shown == 2 + 2 + 1 + 1 + 2 + 4 + 2 + 2 + 2 + 1 + 6 + 1


def test_the_browser_may_run_what_the_frame_brings_and_nothing_else():
    html = page("text")
    reader = Reader(html)
    (policy,) = (attrs["content"] for attrs in reader.all("meta") if "http-equiv" in attrs)
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert allowed.pop("default-src") == "'none'"
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert allowed == {"img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
    names = {name for _, attrs in reader.tags for name in attrs}
    assert not {"style", "src", "xlink:href"} & names
    assert not [name for name in names if name.startswith("on")]
    assert all(attrs.get("href", "#").startswith("#") for _, attrs in reader.tags)
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")  # Of the drawing.


def test_a_page_is_read_without_eyes_or_mouse():
    reader = Reader(page("text"))
    assert reader.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in reader.tags if re.fullmatch("h[1-6]", tag)]
    assert levels == [1, 2, 3, 2]
    assert {attrs["scope"] for attrs in reader.all("th")} == {"col", "row"}
    assert len(reader.all("caption")) == len(reader.all("table")) == 1
    pictures = [attrs for attrs in reader.all("svg") if attrs.get("role") == "img"]
    assert "aria-label" in pictures[0]
    assert all(a["tabindex"] == "0" for a in reader.all("div") if a.get("class") == "scroll")
    links = [attrs["href"].removeprefix("#") for attrs in reader.all("a")]
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert links == ["first", "second"]
    assert set(links) < set(ids)
    assert len(ids) == len(set(ids))
    named = [a["aria-labelledby"] for a in reader.all("section")]
    assert set(named) < set(ids)


def test_a_plot_says_in_words_what_it_shows():
    series = [Series([1, None, 2], [0.5, None, 0.75], "found"), Series([], [], "nothing")]
    words = Plot("one", "Accuracy", "trial", "accuracy", series).description
    assert words == "Accuracy: accuracy against trial. found: 2 points from 0.5 to 0.75."
    words = Plot("one", "Lineage", "generation", "", series).description
    assert words == "Lineage: by generation. found: 2 points."


def drawn(plot: Plot) -> ET.Element:
    return ET.fromstring(plot_svg(plot))


def texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in drawn(plot).iter("text")]


def test_a_plot_has_its_colours_from_the_page():
    root = drawn(plot())
    style = (ROOT / "optnas" / "pages" / "templates" / "style.css").read_text()
    classes = {name for e in root.iter() for name in e.get("class", "").split()}
    coloured = {name for name in classes if name.startswith(("fill-", "stroke-"))}
    assert {"stroke-c0", "stroke-c2", "stroke-c1", "stroke-grey", "fill-ink"} <= coloured
    assert all(f".{name} {{" in style for name in coloured)
    assert all(f".{kind}-c{n} {{" in style for kind in ("fill", "stroke") for n in range(7))
    assert len(COLOURS) == 7
    named = [e.get(kind) for e in root.iter() for kind in ("fill", "stroke") if e.get(kind)]
    assert set(named) == {"#440154", "#fde725"}  # Viridis' ends: those of the two values.


def test_every_point_tells_of_itself_under_the_pointer():
    labels = [f"trial {n}" for n in range(50)]
    marked = Series(range(50), range(50), mark="point", labels=labels)
    valued = dataclasses.replace(marked, values=[n % 7 for n in range(50)])
    gap = Series([0, None, 2], [0, None, 2], line="solid", mark="point", labels=["a", "b", "c"])
    for series, expected in ((marked, labels), (valued, labels), (gap, ["a", "c"])):
        points = [
            (float(use.get("x")), use.findtext("title"))
            for group in drawn(Plot("one", "", "x", "y", [series])).iter("g")
            if group.get("class") == "points"
            for use in group.iter("use")
        ]
        assert [label for _, label in sorted(points)] == expected


def test_axes_have_round_numbers():
    def at(x: list[float], **options: Any) -> list[str]:
        return texts(Plot("one", "", "", "y", [Series(x, [0.951, 0.99], line="solid")], **options))

    assert {"2M", "4M"} <= set(at([1e6, 5e6]))
    assert {"0.96", "0.97", "0.98"} <= set(at([0, 3]))
    assert {"0", "1", "2", "3"} <= set(at([0, 3], whole_x=True))
    assert {"0.1", "1", "10", "100", "1k"} <= set(at([0.1, 1000], log_x=True))
    assert {"2", "4"} <= set(at([1.5, 4.5], log_x=True))
    assert {"2", "5", "10", "20"} <= set(at([1.5, 40], log_x=True))


@pytest.mark.parametrize("x", [[1], [3, 3], [1e-9, 1e9]])
@pytest.mark.parametrize("log", [False, True])
def test_few_and_equal_points_are_drawn(x, log):
    series = Series(x, [0.5] * len(x), mark="point", values=[0.5] * len(x), values_label="v")
    assert len(list(drawn(Plot("one", "", "", "", [series], log_x=log)).iter("use"))) >= len(x)


def test_the_same_page_has_the_same_bytes():
    """In another process, with other hashes and another taste in plots."""
    code = "import test_pages; print(test_pages.page('text'), end='')"
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)}
    again = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert page("text") == again.stdout
    assert matplotlib.rcParams["svg.fonttype"] == "path"


def test_five_hundred_networks_make_a_page_that_can_be_sent(tmp_path):
    trials = growing(498)
    for number, each in enumerate(trials):
        each.values = [0.5 + number / 1000]
        each.intermediate_values = {epoch: 0.5 + epoch / 100 for epoch in range(1, 41)}
        each.user_attrs |= {"device": "cpu (1 threads, x86_64)", "train_seconds": 1.5}
    found = opened(tmp_path, space={"name": "growth", "cells": 1, "channels": 4})
    study = optuna.create_study(direction="maximize", sampler=found.study.sampler)
    for name, value in found.study.user_attrs.items():
        study.set_user_attr(name, value)
    study.add_trials(trials)
    html = report_page(dataclasses.replace(found, study=study), "made.yaml")
    assert html.count("<tr>") > 500
    assert len(html.encode()) < 1_500_000


def test_what_makes_no_page_loads_nothing_for_pages(tmp_path):
    keys = {
        "study": "naps",
        "space": {"name": "chain", "depth": [1, 2], "width": [2, 8]},
        "sampler": "random",
        "data": "digits",
        "objective": "napping:Objective",
        "budget": {"trials": 1},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(keys))
    (tmp_path / "napping.py").write_text(OBJECTIVE)
    code = (
        "import sys\nfrom optnas.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'matplotlib', 'jinja2', 'plotly'} & set(sys.modules)\nprint('light')"
    )
    for command in (["run", "study.yaml"], ["status", "study.yaml"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.stdout.endswith("light\n"), done.stderr


OBJECTIVE = """
class Objective:
    in_channels, classes = 1, 10

    def __init__(self, space):
        self.space = space

    @classmethod
    def from_settings(cls, space, data, **others):
        return cls(space)

    def __call__(self, trial):
        return 1 - 1 / self.space.suggest(trial).width
"""
