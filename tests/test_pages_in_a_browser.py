"""The pages as people meet them: wide and narrow, light, dark and printed, by mouse and keyboard.

They need Chromium, and axe-core of npm: `npm install --no-save axe-core` in the repository, or its
file named by the environment variable AXE.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chromium import PROGRAM, Browser
from reports import described, grown, judged_by, keep
from test_ranking import config as ranked_config

from optnas.config.file import study_from_dict
from optnas.config.proxy import Proxy
from optnas.experiments.comparison import Run, _summary
from optnas.experiments.comparison_report import comparison_page
from optnas.experiments.ranking import rank
from optnas.objectives.kept.mistakes import mistakes_png
from optnas.pages.frame import render
from optnas.report import tested
from optnas.report.data import data_fields, data_page, read_data
from optnas.report.page import report_page

AXE = Path(os.environ.get("AXE", Path(__file__).parents[1] / "node_modules/axe-core/axe.min.js"))
WIDTHS, SCHEMES = (360, 800, 1280), ("light", "dark")

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium"),
    pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core of npm"),
]

CHECK = """axe.run().then((found) => found.violations.flatMap((each) =>
  each.nodes.map((node) => `${each.id}: ${node.html.slice(0, 200)}`)))"""
OVERLAPS = """[...document.querySelectorAll(
    "h1, h2, h3, p, pre, nav a, dt, dd, summary, .scroll, li")]
  .filter((each) => each.checkVisibility() && each.getClientRects().length)
  .flatMap((each, place, all) => all.slice(place + 1, place + 40)
    .filter((other) => !each.contains(other) && !other.contains(each))
    .filter((other) => {
      const a = each.getBoundingClientRect(), b = other.getBoundingClientRect();
      return a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 &&
        b.top < a.bottom - 1;
    })
    .map((other) => `${each.outerHTML.slice(0, 80)} and ${other.outerHTML.slice(0, 80)}`))"""


_RUNS = {
    "good": [Run((2, 4), (0.8, 0.9)), Run((2, 4), (0.7, 1.0))],
    "random": [Run((2, 4), (0.5, 0.9)), Run((2, 4), (0.6, 0.4))],
}
_FIELDS = {"unit": "epochs", "amount": 4, "seeds": 2}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with all that it can have, and its siblings."""
    tmp_path = tmp_path_factory.mktemp("pages")
    found = grown(tmp_path)
    folder = keep(found, described())
    images = torch.randint(256, (100, 3, 32, 24), dtype=torch.uint8)
    (folder / tested.MISTAKES).write_bytes(mistakes_png(judged_by(described()), images, None))
    keep(found, described(70), "-reference-resnet18")
    config = study_from_dict(
        {"study": "seen", "data": {"name": "digits", "samples": 0.1}, "budget": {"trials": 1}},
        tmp_path,
    )
    seen = read_data(config)
    settings = (Proxy(0, 0, 0, 1), Proxy(0, 0, 1, 1))
    ranking = rank(ranked_config(tmp_path), networks=4, settings=settings, full_epochs=2)
    contents = {
        "report": report_page(found, "made.yaml"),
        "data": render(data_page(data_fields(seen, config), seen)),
        "compare": render(
            comparison_page({"study": "s", **_FIELDS, **_summary(_RUNS, 4, "random")})
        ),
        "rank": render(ranking.page),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.html").write_text(content)
    return {name: tmp_path / f"{name}.html" for name in contents}


def test_pages_can_be_read_by_everybody_everywhere(browser, pages):
    axe = AXE.read_text()
    for name, page in pages.items():
        for width in WIDTHS:
            for scheme in SCHEMES:
                browser.see(width, scheme)
                browser.open(page)
                where = f"{name}, {width} pixels, {scheme}"
                asked = [url for url in browser.requests if not url.startswith("data:")]
                assert asked == [page.as_uri()], where
                assert browser.complaints == [], where
                assert browser.evaluate("document.documentElement.scrollWidth") == width, where
                assert browser.evaluate(OVERLAPS) == [], where
                browser.call("Runtime.evaluate", expression=axe)
                assert browser.evaluate(CHECK) == [], where
        browser.see(700, "dark", "print")
        browser.open(page)
        colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert colour == "rgb(255, 255, 255)"
        assert browser.evaluate(OVERLAPS) == [], f"{name}, printed"


def test_drawings_come_by_mouse_and_by_keyboard_and_go(browser, pages):
    browser.see(1280)
    browser.open(pages["report"])
    shown = "[...document.querySelectorAll(':popover-open')].map((each) => each.id)"
    place = """(() => { const button = document.querySelector('button.peek');
      button.scrollIntoView({block: 'center', behavior: 'instant'});
      const at = button.getBoundingClientRect(); return [at.x + 3, at.y + 3]; })()"""
    x, y = browser.evaluate(place)
    assert browser.evaluate(shown) == []
    browser.point(x, y)
    first = browser.evaluate("document.querySelector('button.peek').getAttribute('popovertarget')")
    assert browser.evaluate(shown) == [first]
    box = browser.evaluate(f"document.getElementById('{first}').getBoundingClientRect().toJSON()")
    assert box["left"] >= x
    assert 0 <= box["top"] < box["bottom"] <= 800
    browser.point(2, 2)
    assert browser.evaluate(f"new Promise((r) => setTimeout(() => r({shown}), 400))") == []
    browser.evaluate("document.querySelector('#networks th button').focus()")
    for _ in range(20):
        browser.press("Tab", 9)
        if browser.evaluate("document.activeElement.className") == "peek":
            break
    assert browser.evaluate(shown) == [first]
    browser.press("Escape", 27)
    assert browser.evaluate(shown) == []


def test_a_heading_sorts_its_table(browser, pages):
    browser.see(800)
    browser.open(pages["report"])
    cells = """Array.from(document.querySelectorAll('#networks tbody tr'),
      (row) => row.cells[0].textContent.trim())"""
    before = browser.evaluate(cells)
    assert before == ["4", "3", "2", "1", "0"]
    browser.evaluate("document.querySelector('#networks th button').click()")
    assert browser.evaluate(cells) == before[::-1]
    browser.evaluate("document.querySelector('#networks th button').click()")
    assert browser.evaluate(cells) == before
