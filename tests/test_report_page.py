"""The page of `optnas report`: complete, harmless, and whole or not there."""

import dataclasses
import functools
import json
import re

import pytest
from optuna.trial import TrialState
from readers import Reader
from searches import growing, opened, trial

from optnas.errors import UserError
from optnas.pages.frame import write_page
from optnas.report.page import report_page, report_rows
from optnas.study.folders import page_path

HOSTILE = "</pre></script><script>alert('x')</script><img src=http://example.org/x onerror=y>"
GROWTH_KEYS = {"name": "growth", "cells": 1, "channels": 4}
FAIL, RUNNING = TrialState.FAIL, TrialState.RUNNING


def test_the_page_tells_all_of_a_search(tmp_path):
    trials = growing()
    for each in trials:
        each.user_attrs |= {"device": "cpu (1 threads, x86_64)", "versions": {"torch": "2.99"}}
    trials.append(trial(5, state=FAIL, failure="candidate", failure_reason="the loss is NaN"))
    found = opened(tmp_path, trials, space=GROWTH_KEYS)
    reader = Reader(report_page(found, "made.yaml"))
    text = "\n".join(reader.texts)
    headings = re.findall(r"(?:Found|Search|Figures|Networks|Configuration|Versions).*", text)
    assert headings[0] == "Search made"
    for expected in (
        "optnas retrain made.yaml",
        "5 complete, 1 fail",
        "accuracy (fraction)",
        "0.9000",
        "the loss is NaN",
        "name: growth",
        "torch",
        "2.99",
        "5 networks",
    ):
        assert expected in text
    figures = [attrs["id"] for tag, attrs in reader.tags if attrs.get("class") == "plot"]
    names = ("accuracy", "cost-and-error", "lineage", "learning-curves")
    assert figures == [f"figure-{name}" for name in names]


def test_trials_that_all_failed_have_no_figures(tmp_path):
    lost = trial(0, state=FAIL, failure="candidate", failure_reason="the loss is NaN")
    reader = Reader(report_page(opened(tmp_path, [lost]), "made.yaml"))
    assert "Networks" in reader.texts
    assert "plots" not in [attrs.get("class") for _, attrs in reader.tags]
    assert "the loss is NaN" in reader.texts


def test_columns_in_which_nothing_stands_are_left_out(tmp_path):
    texts = Reader(report_page(opened(tmp_path, [trial(0, 0.5)]), "made.yaml")).texts
    assert "trial" in texts
    assert "increments" not in texts


def test_the_page_loads_nothing(tmp_path):
    reader = Reader(report_page(opened(tmp_path, growing(), space=GROWTH_KEYS), "made.yaml"))
    assert all(attrs.get("href", "#").startswith("#") for _, attrs in reader.tags)
    assert not {"src", "xlink:href", "style"} & {n for _, attrs in reader.tags for n in attrs}
    assert not {"link", "iframe", "img", "object", "base"} & reader.counts().keys()
    policy = next(a["content"] for _, a in reader.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_nothing_from_the_study_is_markup(tmp_path):
    def page(text):
        attrs = {
            "phase": text,
            "versions": {text: text},
            "device": text,
            "failure_reason": text,
            "multiply_adds": 5,
        }
        lost = trial(2, state=FAIL, failure="candidate", **attrs)
        trials = [trial(0, 0.5, curve=(0.5,), **attrs), trial(1, 0.6, parent=0, **attrs), lost]
        found = opened(tmp_path / text[:5].strip("</"), trials, study=text.replace("/", "|"))
        return report_page(found, text)

    (tmp_path / "plain").mkdir()
    (tmp_path / "pre").mkdir()
    plain, hostile = page("plain"), page(HOSTILE)
    assert Reader(hostile).counts() == Reader(plain).counts()
    assert "<img src=http" not in hostile
    assert "<script>alert" not in hostile


def test_passwords_stay_out(tmp_path):
    found = opened(tmp_path, [trial(0, 0.5)])
    config = found.config.model_copy(
        update={"storage": "postgresql+psycopg://me:s3cret@db.example.org/nas"}
    )
    page = report_page(dataclasses.replace(found, config=config), "made.yaml")
    assert "s3cret" not in page
    assert "db.example.org" in page


@pytest.mark.parametrize("trials", [[], [trial(0, state=RUNNING)]])
def test_without_a_finished_trial_there_is_nothing_to_report(tmp_path, trials):
    found = opened(tmp_path, trials)
    for report in (lambda: report_page(found, "made.yaml"), lambda: report_rows(found)):
        with pytest.raises(UserError, match="no finished trial yet"):
            report()


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "before")
    write_page(path, "half a character: \ud800")
    assert path.read_text() == "half a character: \\ud800"
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        write_page(tmp_path / "none" / "page.html", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        write_page(tmp_path / "folder", "")
    assert {each.name for each in tmp_path.iterdir()} == {"page.html", "folder"}


def test_the_page_is_beside_the_storage(tmp_path):
    found = opened(tmp_path)
    assert page_path(found) == tmp_path / "made.html"
    update = {"storage": f"sqlite:///{tmp_path}/there/x.db", "artifacts": "s3://bucket/prefix"}
    moved = dataclasses.replace(found, config=found.config.model_copy(update=update))
    assert page_path(moved) == tmp_path / "there" / "made.html"


@pytest.fixture
def report(optnas_command):
    """Runs `optnas report`: its exit code, and what it writes."""
    return functools.partial(optnas_command, "report")


def test_the_command_writes_the_page(tmp_path, report):
    opened(tmp_path, [trial(0, 0.5, params=7)])
    storage = f"sqlite:///{tmp_path}/made.db"
    code, out, _ = report(storage)
    assert code == 0
    wrote, beside, following = out.splitlines()
    assert wrote == f"Wrote {tmp_path}/made.html. Open it in a browser."
    assert beside == f"Wrote {tmp_path}/made.csv, a row for every trial."
    assert following == f"Next: optnas retrain {storage}"
    assert "optnas retrain sqlite:" in (tmp_path / "made.html").read_text()
    (tmp_path / "made.html").unlink()

    code, out, _ = report(storage, "made", "--json")
    assert code == 0
    assert [row["params"] for row in json.loads(out)] == [7]
    assert not (tmp_path / "made.html").exists()

    code, out, _ = report(storage, "--json", "--output", tmp_path / "mine.html")
    assert code == 0
    assert json.loads(out)
    assert (tmp_path / "mine.html").read_text().startswith("<!doctype html>")


def test_the_command_writes_markdown(tmp_path, report):
    opened(tmp_path, [trial(0, 0.5, params=7)])
    storage = f"sqlite:///{tmp_path}/made.db"
    code, out, _ = report(storage, "--format", "md")
    assert code == 0
    assert out.splitlines()[:2] == [
        f"Wrote {tmp_path}/made.md.",
        f"Wrote {tmp_path}/made.csv, a row for every trial.",
    ]
    text = (tmp_path / "made.md").read_text()
    assert report(storage, "--output", tmp_path / "Mine.MD")[0] == 0
    assert (tmp_path / "Mine.MD").read_text().splitlines()[1:4] == text.splitlines()[1:4]
    assert (tmp_path / "Mine.csv").exists()
    assert str(tmp_path) not in text


def test_the_command_says_that_there_is_nothing_yet(tmp_path, report):
    opened(tmp_path)
    code, _, err = report(f"sqlite:///{tmp_path}/made.db")
    assert code == 2
    assert re.fullmatch(r"optnas: [^\n]+ no finished trial yet[^\n]+\n", err)
    assert not (tmp_path / "made.html").exists()
