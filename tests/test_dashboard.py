"""The figures of a search in optuna-dashboard."""

import json
import warnings
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna_dashboard import wsgi
from searches import growing, opened, trial

from optnas.report import dashboard
from optnas.report.dashboard import Drawing, kept_drawn


def sent(study: optuna.Study) -> dict[str, str]:
    """The figures that the dashboard's own server sends to a browser, as far as written."""
    environ = {"PATH_INFO": f"/api/studies/{study._study_id}"}
    setup_testing_defaults(environ)
    answer = b"".join(wsgi(study._storage)(environ, lambda *_: None))
    figures = json.loads(answer)["plotly_graph_objects"]
    return {figure["id"]: figure["graph_object"] for figure in figures}


def shown(study: optuna.Study) -> dict[str, dict]:
    return {name: json.loads(text) for name, text in sent(study).items()}


@pytest.fixture
def study(tmp_path) -> optuna.Study:
    return opened(tmp_path, growing(), space="growth").study


def test_the_dashboard_gets_the_figures(study):
    assert shown(study) == {}
    assert Drawing(study).refresh()
    names = ("accuracy", "cost-and-error", "lineage", "learning-curves")
    assert shown(study).keys() == {f"optnas-{name}" for name in names}
    assert len(shown(study)["optnas-lineage"]["data"][2]["x"]) == 5


def test_figures_are_replaced_when_a_trial_has_finished(study):
    drawing = Drawing(study)
    assert drawing.refresh()
    assert not drawing.refresh()
    running = study.ask()
    assert not drawing.refresh()
    before = shown(study)
    running.set_user_attr("multiply_adds", 1)
    running.suggest_int("parent", -1, -1)
    study.tell(running, 0.75)
    assert drawing.refresh()
    after = shown(study)
    assert after.keys() == before.keys()
    assert len(after["optnas-accuracy"]["data"][0]["x"]) == 6
    # Another dashboard draws the same again, in the same place.
    assert Drawing(study).refresh()
    assert shown(study) == after


def test_a_figure_that_shrinks_leaves_nothing_behind(study):
    many = [trial(n, 0.5, phase=f"phase {n}") for n in range(40)]
    other = optuna.create_study(storage=study._storage, direction="maximize")
    for each in many:
        other.add_trial(each)
    Drawing(other).refresh()
    longer = shown(other)["optnas-accuracy"]
    other.get_trials = lambda deepcopy=True: many[:5]  # type: ignore[method-assign]
    Drawing(other).refresh()
    assert len(shown(other)["optnas-accuracy"]["data"]) < len(longer["data"])


def test_what_has_not_changed_is_not_written_again(study, monkeypatch):
    written = []
    monkeypatch.setattr(
        dashboard,
        "save_plotly_graph_object",
        lambda study, figure, graph_object_id: written.append(graph_object_id),
    )
    drawing = Drawing(study)
    drawing.refresh()
    written.clear()
    study.add_trial(trial(5, 0.1))  # Says nothing of its cost, and has no curve.
    drawing.refresh()
    assert "optnas-accuracy" in written
    assert "optnas-learning-curves" not in written


def test_a_storage_that_fails_is_asked_again(study, monkeypatch):
    monkeypatch.setattr(dashboard, "PAUSE", 0.0)
    monkeypatch.setattr(dashboard, "SHARE", 0.0)
    get_trials, failures = study.get_trials, iter(range(3))

    def flaky(deepcopy=True):
        for number in failures:
            raise RuntimeError(f"gone {number}")
        return get_trials(deepcopy=deepcopy)

    study.get_trials = flaky  # type: ignore[method-assign]
    with warnings.catch_warnings(record=True) as warned, kept_drawn(study):
        while "optnas-lineage" not in sent(study):
            pass
    texts = [str(warning.message) for warning in warned]
    assert texts == [f"The figures were not drawn: gone {number}" for number in range(3)]
