"""The figures of a search: what is on them, and what they leave out."""

import dataclasses
import json

import plotly.graph_objects as go
import pytest
from optuna.samplers import RandomSampler
from optuna.study import create_study
from optuna.trial import TrialState
from searches import GROWTH, growing, trial

from optnas.drawing.shapes import PAPER, contrast
from optnas.report.costs import NetworkCosts
from optnas.report.figures import figures as described
from optnas.report.figures import parents_of, tree_rows
from optnas.report.plotly_figures import plotly_figure
from optnas.samplers import RandGrowSampler
from optnas.spaces import StageSpace
from optnas.study.networks import StudyNetwork, networks_of

FAIL, PRUNED, RUNNING = TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"


def figures(trials, *arguments, **options) -> dict[str, go.Figure]:
    """The figures as the dashboard shows them."""
    plots = described(trials, *arguments, **options)
    return {name: plotly_figure(plot) for name, plot in plots.items()}


def traces(figure) -> dict[str, dict]:
    """What is drawn, by name, as the browser gets it."""
    return {trace.get("name", ""): trace for trace in json.loads(figure.to_json())["data"]}


def test_texts_can_be_read_on_whatever_page_the_figure_stands():
    for figure in figures(growing()).values():
        layout = figure.layout
        assert layout.paper_bgcolor == layout.plot_bgcolor == PAPER
        assert contrast(layout.font.color, PAPER) >= 4.5


@pytest.mark.parametrize(
    ("trials", "names"),
    [
        ([], []),
        ([trial(0, state=RUNNING)], []),
        ([trial(0, state=FAIL, failure="candidate")], []),
        ([trial(0, 0.0, infeasible=True)], []),
        ([trial(0, 0.5)], ["accuracy"]),
        ([trial(0, 0.5, multiply_adds=10)], ["accuracy", "cost-and-error"]),
        ([trial(0, 0.5, curve=(0.5,))], ["accuracy", "learning-curves"]),
        ([trial(0, state=RUNNING, curve=(0.5,))], ["learning-curves"]),
        ([trial(0, 0.5, stage_importance=[0.1, 0.2])], ["accuracy", "stage-importance"]),
        (growing(), ["accuracy", "cost-and-error", "lineage", "learning-curves"]),
    ],
)
def test_only_figures_that_apply_are_drawn(trials, names):
    assert list(figures(trials)) == names


def test_accuracy_is_shown_by_phase_with_the_best_so_far():
    found = traces(
        figures(
            [
                trial(0, 0.5, phase="depth"),
                trial(1, 0.9, state=PRUNED, phase="depth"),
                trial(2, 0.7, phase="width"),
                trial(3, 0.6, phase="width"),
                trial(4, state=FAIL, failure="candidate"),
                trial(5, 0.0, infeasible=True),
            ]
        )["accuracy"]
    )
    assert (found["best so far"]["x"], found["best so far"]["y"]) == ([0, 2, 3], [0.5, 0.7, 0.7])
    assert found["depth"]["y"] == [0.5]
    assert found["width"]["x"] == [2, 3]
    assert (found["pruned"]["x"], found["pruned"]["y"]) == ([1], [0.9])
    assert found["depth"]["marker"]["color"] != found["width"]["marker"]["color"]


def test_what_is_not_shown_is_counted():
    trials = [trial(0, 0.5), trial(1, state=FAIL, failure="candidate"), trial(2, state=FAIL)]
    heading = figures([*trials, trial(3, 0.0, infeasible=True)])["accuracy"].layout.title.text
    assert heading == "Accuracy<br><sup>not shown: 1 failed, 1 infeasible, 1 lost</sup>"


COSTS = [(10, 0.9), (20, 0.93), (30, 0.935), (40, 0.936), (50, 0.95), (60, 0.945)]


def test_the_hull_is_marked():
    """The example of the method: corners 0, 1 and 4."""
    trials = [trial(n, value, multiply_adds=cost) for n, (cost, value) in enumerate(COSTS)]
    better = [
        trial(6, 0.99, multiply_adds=5, state=PRUNED),
        trial(7, 0.99, multiply_adds=5, infeasible=True),
    ]
    found = traces(figures(trials + better)["cost-and-error"])
    assert found["hull"]["x"] == [10, 20, 50]
    assert found["hull"]["y"] == pytest.approx([0.1, 0.07, 0.05])
    assert found["networks"]["x"] == [10, 20, 30, 40, 50, 60]
    assert found["pruned"]["x"] == [5]


def test_parents_have_their_probabilities():
    parents = {4: 0.5, 0: 0.125, 1: 0.375}
    trials = [trial(n, value, multiply_adds=cost) for n, (cost, value) in enumerate(COSTS)]
    hull = traces(figures(trials, parents)["cost-and-error"])["next parent, with its probability"]
    assert (hull["x"], hull["text"]) == ([10, 20, 50], ["0.12", "0.38", "0.50"])


def test_the_sampler_says_who_may_be_a_parent():
    study = create_study(sampler=RandGrowSampler(GROWTH), direction="maximize")
    assert parents_of(study) == {}
    architecture = GROWTH.initial().to_json()
    for number, (cost, value) in enumerate(COSTS):
        params = {"parent": 0, "growth_seed": number} if number else {"parent": -1}
        attrs = {"multiply_adds": cost, "architecture": architecture}
        study.add_trial(trial(number, value, suggested=params, **attrs))
    assert parents_of(study) == {0: 0.125, 1: 0.375, 4: 0.5}
    study.sampler = RandomSampler()
    assert parents_of(study) == {}


def test_the_lineage_is_a_tree_with_the_way_to_the_best():
    edges, path, nodes = json.loads(figures(growing())["lineage"].to_json())["data"]
    assert nodes["x"] == [0, 1, 1, 1, 2]
    assert nodes["y"] == [-1, 0, -1, -2, 0]
    assert nodes["marker"]["color"] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert path["x"] == [2, 1, 0]
    assert path["name"] == "the best and its ancestors"
    assert edges["x"] == [0, 1, None, 0, 1, None, 0, 1, None, 1, 2, None]
    assert edges["y"] == [-1, 0, None, -1, -1, None, -1, -2, None, 0, 0, None]
    label_lines = nodes["text"][4].split("<br>")
    assert label_lines == [
        "trial 4",
        "growth complete",
        "parent: trial 1",
        "accuracy 0.9000",
        "multiply-adds 5,000",
        "parameters 500",
        "increments 10",
        "inherited tensors 70",
    ]


def test_networks_without_a_result_are_in_the_tree():
    trials = [*growing(1), trial(3, state=FAIL, failure="candidate", parent=0, phase="growth")]
    failed = traces(figures(trials)["lineage"])["without a result"]
    assert (failed["x"], failed["marker"]["symbol"]) == ([1], "x")


def test_a_chain_of_thousands_of_generations():
    trials = [trial(n, 0.5, **({"parent": n - 1} if n else {})) for n in range(3000)]
    networks = networks_of(trials)
    assert networks[-1].generation == 2999
    assert set(tree_rows(networks).values()) == {0}


def test_the_best_and_the_latest_curves():
    trials = [trial(n, n / 20, curve=(0.0, n / 20)) for n in (9, 8, 7, 6, 5, 4, 3)]
    for number, each in enumerate(trials):
        each.number = number
    trials.append(trial(7, state=RUNNING, curve=(0.1,)))
    names = list(traces(figures(trials)["learning-curves"]))
    best = [f"trial {number} (best)" for number in range(5)]
    assert names == [*best, *(f"trial {number} (latest)" for number in (5, 6, 7))]


def test_the_importance_of_every_stage():
    trials = [trial(0, 0.5, stage_importance=[1.0, 2.0]), trial(1, 0.6, stage_importance=[3, 4])]
    found = traces(figures([*trials, trial(2, 0.1)])["stage-importance"])
    assert {name: (t["x"], t["y"]) for name, t in found.items()} == {
        "stage 1": ([0, 1], [1, 3]),
        "stage 2": ([0, 1], [2, 4]),
    }


def test_texts_from_the_study_are_no_markup():
    trials = [
        trial(0, 0.5, phase=HOSTILE, multiply_adds=1),
        trial(1, 0.6, parent=0, phase=HOSTILE),
    ]
    for figure in figures(trials).values():
        texts = json.dumps(json.loads(figure.to_json()))
        assert "<img" not in texts
        assert "<script" not in texts
        assert "&lt;img src=x" in texts or "phase" not in texts


def test_browsers_get_plain_lists():
    """An older plotly.js cannot read the encoded arrays of newer ones."""
    for figure in figures(growing()).values():
        assert "bdata" not in figure.to_json()


def test_the_same_trials_give_the_same_figures():
    once, again = (
        {name: figure.to_json() for name, figure in figures(growing(20)).items()} for _ in range(2)
    )
    assert once == again


# The networks.


def network(networks: list[StudyNetwork], number: int) -> StudyNetwork:
    return next(each for each in networks if each.number == number)


def test_trials_that_go_on_from_one_another_are_one_network():
    trials = [
        trial(0, 0.5),
        trial(1, state=FAIL, failure="lost", parent=0),
        trial(2, 0.4, state=PRUNED),
        trial(3, 0.7, continues=1, parent=0),
        trial(4, 0.6, continues=2),
        trial(5, 0.8, continues=4),
        trial(6, 0.9, parent=2),
        trial(7, state=FAIL, failure="lost", continues=5),
        trial(8, state=TrialState.WAITING, continues=0),
    ]
    networks = networks_of(trials)
    assert [(n.number, n.earlier, n.parent, n.generation) for n in networks] == [
        (0, (), None, 0),
        (3, (1,), 0, 1),
        (5, (2, 4), None, 0),
        (6, (), 5, 1),
    ]


def test_a_parent_may_have_a_higher_number():
    networks = networks_of([trial(0, 0.5), trial(1, 0.6, parent=2), trial(2, 0.7, parent=0)])
    assert [(n.parent, n.generation) for n in networks] == [(None, 0), (2, 2), (0, 1)]


@pytest.mark.parametrize("parents", [[0], [1, 0], [1, 2, 0], [1, 2, 1]])
def test_whoever_is_its_own_ancestor_has_no_parent(parents):
    networks = networks_of([trial(n, 0.5, parent=parent) for n, parent in enumerate(parents)])
    assert [n.parent for n in networks] == [None] * len(parents)


@pytest.mark.parametrize(
    "value", ["much", None, [1], {}, True, float("nan"), float("inf"), 10**400]
)
@pytest.mark.parametrize(
    "name",
    [
        "multiply_adds",
        "params",
        "continues",
        "parent",
        "stage_importance",
        "architecture",
        "inherited_tensors",
        "phase",
        "train_seconds",
        "train_joules",
        "memory_bytes",
        "input_shape",
        "device",
    ],
)
def test_attributes_that_are_no_such_thing_do_no_harm(name, value):
    trials = [trial(0, 0.5, multiply_adds=3), trial(1, 0.6, **{"multiply_adds": 4, name: value})]
    assert figures(trials)["accuracy"].data
    assert len(NetworkCosts().rows(networks_of(trials), StageSpace())) == 2


def test_rows_hold_the_best_first_and_what_the_trials_say():
    trials = [*growing(1), trial(3, 0.99, state=PRUNED), trial(4, 0.0, infeasible=True)]
    table = NetworkCosts().rows(networks_of(trials), GROWTH)
    assert [row["trial"] for row in table] == [2, 1, 0, 3, 4]
    assert table[0] == {
        "trial": 2,
        "human_designed": "",
        "phase": "growth",
        "state": "complete",
        "accuracy": 0.7,
        "metric": "accuracy",
        "depth": 5,
        "params": 300,
        "multiply_adds": 3000,
        "memory_bytes": None,
        "inference_ms": None,
        "epochs": 2,
        "train_seconds": None,
        "energy_wh": None,
        "energy": "",
        "co2e_g": None,
        "parent": 1,
        "generation": 2,
        "increments": 10,
        "inherited_tensors": 70,
        "continues": [],
        "reason": "",
    }
    assert [row["state"] for row in table[3:]] == ["pruned", "infeasible"]


def test_human_designed_networks_are_among_costs_and_errors():
    trials = [trial(0, 0.5, multiply_adds=10)]
    theirs = [
        dataclasses.replace(network, name=f"ResNet-{network.number}")
        for network in networks_of(
            [
                trial(7, 0.75, multiply_adds=30),
                trial(8, state=FAIL, multiply_adds=20),
                trial(9, 0.9),
            ]
        )
    ]
    drawn = figures(trials, baselines=theirs)
    point = traces(drawn["cost-and-error"])["human-designed"]
    assert (point["x"], point["y"]) == ([30], [0.25])
    assert point["text"][0].startswith("ResNet-7")
    assert "human-designed" not in traces(figures(trials)["cost-and-error"])
    assert "human-designed" not in traces(drawn["accuracy"])


def test_a_network_has_a_depth_where_its_kind_has_one():
    (network,) = networks_of([trial(0, 0.5)])
    assert network.depth(StageSpace()) == 15
    assert network.depth(GROWTH) is None


def test_an_evolution_shows_the_mean_of_every_cycle_by_rung():
    def network(number, curve, phase="child", state=PRUNED):
        return trial(number, curve[-1], state=state, curve=curve, phase=phase)

    trials = [
        network(0, (0.1, 0.5), "initial"),
        network(1, (0.2, 0.7), "initial"),
        network(2, (0.2, 0.3, 0.4, 0.9), state=TrialState.COMPLETE),
        network(16, (0.1, 0.8)),
        network(17, (0.1,) * 9, "architecture"),  # None of an evolution's.
    ]
    trials += [trial(number, state=FAIL, failure="lost") for number in range(3, 16)]
    trials.sort(key=lambda each: each.number)
    found = traces(figures(trials)["populations"])
    assert found.keys() == {"2 epochs", "4 epochs"}
    assert found["2 epochs"]["x"] == [0, 1]
    assert found["2 epochs"]["y"] == pytest.approx([0.6, 0.8])
    assert (found["4 epochs"]["x"], found["4 epochs"]["y"]) == ([0], [0.9])
    assert "populations" not in figures(trials[:2])  # A single rung says nothing.
