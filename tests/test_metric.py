"""Whatever a search maximises is called by its name wherever its values are shown."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from optnas.cli import displays
from optnas.config.file import study_from_dict
from optnas.report.figures import figures
from optnas.report.page import report_page, report_rows
from optnas.report.text import best_fields, best_text, status_fields, status_text
from optnas.running.retraining import retrain_found
from optnas.running.runner import run
from optnas.study.opening import open_study
from optnas.study.record import RECORD, metric_of
from optnas.trials.chance import is_chance
from optnas.trials.metric import ACCURACY, metric


class Study:
    """What `metric_of` reads."""

    def __init__(self, record):
        self.user_attrs = {} if record is None else {RECORD: record}


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (None, "accuracy"),
        ("broken", "accuracy"),
        ({"config": {"objective": {"name": "classification"}}}, "accuracy"),  # As 0.1.0 kept it.
        ({"config": {"objective": {"metric": 3}}}, "accuracy"),
        ({"config": {"objective": {"metric": "macro_f1"}}}, "macro-F1"),
        ({"config": {"objective": {"metric": "tar"}}}, "true accept rate"),
        ({"config": {"objective": {"metric": "word_error_\x1b[2J"}}}, "word error ?[2J"),
    ],
)
def test_a_study_says_what_it_maximises(record, name):
    assert metric_of(Study(record)).name == name


def test_every_heading_fits_its_column():
    keys = ("balanced_accuracy", "macro_f1", "top_5", "rank1", "tar", "one_of_somebody_else")
    lines = {len(displays.header(found)) for found in [ACCURACY, *map(metric, keys)]}
    assert len(lines) == 1


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search by macro-F1."""
    config = study_from_dict(
        {
            "study": "s",
            "space": {"name": "chain", "depth": [1, 2], "width": [4, 6]},
            "sampler": "random",
            "objective": {"name": "classification", "metric": "macro_f1"},
            "data": {"name": "digits", "samples": 0.2},
            "train": {"epochs": 1, "lr": 0.1},
            "budget": {"trials": 2},
            "retrain": {"epochs": 1, "repeats": 2},
        },
        tmp_path_factory.mktemp("searched"),
    )
    run(config, device="cpu")
    return open_study(config)


def test_what_was_searched_is_named_where_it_is_told(searched, capsys):
    value = best_fields(searched)["found"][0]["value"]
    assert f"macro-F1 {value:.4f} after 1 epoch of search" in best_text(searched, "s.yaml")
    assert best_fields(searched)["found"][0]["metric"] == "macro_f1"
    assert f"best     macro-F1 {value:.4f}" in status_text(searched)
    assert status_fields(searched)["metric"] == "macro_f1"
    assert {row["metric"] for row in report_rows(searched)} == {"macro_f1"}
    page = report_page(searched, "s.yaml")
    assert "macro-F1 (fraction)" in page
    assert "Macro-F1 is the best on the validation images" in page
    assert "accuracy" not in page.lower().replace("figure-accuracy", "")  # The name of a plot.
    display = displays.PlainDisplay()
    display.start(searched)
    display.trial(searched.study.trials[0], 0)
    assert capsys.readouterr().out.splitlines()[-2].split()[2] == "macro-F1"
    displays.JsonDisplay().start(searched)
    assert json.loads(capsys.readouterr().out)["metric"] == "macro_f1"


def test_figures_are_of_what_was_searched(searched):
    drawn = figures(searched.study.trials, metric=metric("macro_f1"))
    assert drawn["accuracy"].title == "Macro-F1"
    names = {drawn[name].y_label for name in ("accuracy", "learning-curves")}
    assert names == {"validation macro-F1 (fraction)"}
    assert drawn["cost-and-error"].y_label == "1 - validation macro-F1 (fraction)"


def test_what_is_retrained_is_told_by_what_was_searched(searched, tmp_path):
    first, second, both = retrain_found(searched, output=tmp_path / "n", device="cpu")
    judged = [report.fields["judgement"]["macro_f1"] for report in (first, second)]
    said = f"test macro-F1 {judged[0]:.4f}, accuracy {first.fields['test_accuracy']:.4f} on"
    assert first.text.startswith(said)
    assert both.fields["macro_f1"]["values"] == judged
    assert both.text.startswith(f"test macro-F1 {np.mean(judged):.4f} +- ")
    card = (tmp_path / "n" / "README.md").read_text()
    assert f"Test macro-F1 **{judged[0]:.4f}**, accuracy **" in card


@pytest.mark.parametrize(
    ("key", "score"),
    [
        ("macro_f1", lambda true, named: f1_score(true, named, average="macro")),
        ("balanced_accuracy", balanced_accuracy_score),
    ],
)
@pytest.mark.parametrize("counts", [[40, 40, 40], [200, 20, 5, 5], [4] * 60])
def test_who_draws_lots_is_called_a_guess(key, score, counts):
    """One in forty who draws lots is taken for better, by scikit-learn's scores of the draws."""
    rng, true = np.random.default_rng(1), np.repeat(np.arange(len(counts)), counts)
    drawn = [score(true, rng.choice(true, len(true))) for _ in range(200)]
    better = [not is_chance(value, counts, key) for value in drawn]
    assert 0 < np.mean(better) < 0.06
    assert not is_chance(0.9, counts, key)


def test_five_classes_named_blindly_are_a_guess():
    counts = [30, 30, 30, 30, 30, 10, 10, 10, 10, 10]
    assert is_chance(0.77, counts, "top_5")
    assert not is_chance(0.85, counts, "top_5")
    assert is_chance(0.5, counts, "word_error") is None
