"""The figures of a search, which `optnas report` and the dashboard show.

Each draws what the trials of a study say, and is None where they do not say it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.config.contract import strategy_of
from optnas.pages.plots import HEIGHT, Line, Mark, Plot, Series
from optnas.study.networks import StudyNetwork, network_lines, networks_of
from optnas.trials.metric import ACCURACY, Metric
from optnas.units import plural

BEST, LATEST = 5, 3
"""Numbers of learning curves: of the most accurate networks, and of the latest ones."""

CYCLE, MOST_RUNGS = 16, 6
"""Trials of a cycle of EcoNAS, and numbers of epochs that are told apart at most."""
ROW_HEIGHT, GREATEST_HEIGHT = 12, 1600
"""Pixels: of a row of the tree of networks, and of a whole tree at most."""


def figures(
    trials: Sequence[FrozenTrial],
    parents: Mapping[int, float] | None = None,
    baselines: Sequence[StudyNetwork] = (),
    metric: Metric = ACCURACY,
) -> dict[str, Plot]:
    """The figures that apply to a study, by a name that stays the same.

    Args:
        trials: The study's trials.
        parents: Trials that the next network may start from, with their probabilities; for
            strategies whose networks inherit weights.
        baselines: Networks that people designed, which are no trials of the study.
        metric: What the study maximises.
    """
    networks = networks_of(trials, metric)
    drawn = {
        "accuracy": accuracy(networks, metric),
        "cost-and-error": cost_and_error(networks, parents or {}, baselines, metric),
        "lineage": lineage(networks, metric),
        "learning-curves": learning_curves(networks, metric),
        "stage-importance": stage_importance(networks),
        "populations": populations(networks, metric),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def parents_of(study: Study) -> Mapping[int, float]:
    """Trials that the next network may start from, if the study's strategy has such."""
    return strategy_of(study.sampler).parent_probabilities(study)


def accuracy(networks: Sequence[StudyNetwork], metric: Metric = ACCURACY) -> Plot | None:
    """The metric by trial, in the colours of the strategy's phases, and the best so far."""
    evaluated = _with_accuracy(networks)
    if not evaluated:
        return None
    numbers: list[int] = []
    best: list[float] = []
    for network in evaluated:
        value = _accuracy(network)
        if network.state == "complete" and (not best or value > best[-1]):
            numbers.append(network.number)
            best.append(value)
    if best:  # As far as the search has come.
        numbers.append(evaluated[-1].number)
        best.append(best[-1])
    labels = [f"best so far: {value:.4f}" for value in best]
    series = [
        Series(numbers, best, "best so far", line="steps", labels=labels),
        *_by_phase(evaluated, lambda network: network.number, _accuracy),
    ]
    note = _left_out(networks, evaluated)
    axis = _axis(metric)
    return Plot("accuracy", metric.title, "trial", axis, series, note=note, whole_x=True)


def cost_and_error(
    networks: Sequence[StudyNetwork],
    parents: Mapping[int, float],
    baselines: Sequence[StudyNetwork] = (),
    metric: Metric = ACCURACY,
) -> Plot | None:
    """Cost against error, with the lower convex hull and the parents' probabilities on it."""
    from optnas.trials.hull import hull_of

    priced = _priced(networks)
    if not priced:
        return None
    hull = [trial.number for trial in hull_of(n.trial for n in priced if n.state == "complete")]
    by_number = {network.number: network for network in priced}
    corners = [by_number[number] for number in parents or hull if number in by_number]
    corners.sort(key=_cost)
    series = [
        *_by_phase(priced, _cost, _error),
        _points(_priced(baselines), _cost, _error, "human-designed", mark="diamond"),
        Series(
            [_cost(network) for network in corners],
            [_error(network) for network in corners],
            "next parent, with its probability" if parents else "hull",
            line="solid",
            mark="ring",
            beside=[f"{parents[network.number]:.2f}" for network in corners if parents],
        ),
    ]
    return Plot(
        "cost-and-error",
        "Cost and error",
        "multiply-adds for one image",
        _error_axis(metric),
        series,
        note=_left_out(networks, priced),
    )


def lineage(networks: Sequence[StudyNetwork], metric: Metric = ACCURACY) -> Plot | None:
    """The tree of networks: every one after its parent, whose weights it started from."""
    if all(network.parent is None for network in networks):
        return None
    rows = tree_rows(networks)
    generations: list[int | None] = []
    heights: list[float | None] = []
    for network in networks:
        if network.parent is not None:
            generations += [network.generation - 1, network.generation, None]
            heights += [rows[network.parent], rows[network.number], None]
    path = _path_to_best(networks)
    valued = [network for network in networks if network.accuracy is not None]
    others = [network for network in networks if network.accuracy is None]

    def generation(network: StudyNetwork) -> int:
        return network.generation

    def height(network: StudyNetwork) -> float:
        return rows[network.number]

    series = [
        Series(generations, heights, line="solid", thickness=1.0),
        Series(
            [network.generation for network in path],
            [rows[network.number] for network in path],
            "the best and its ancestors",
            colour=1,
            line="solid",
            thickness=3.0,
        ),
        _points(others, generation, height, "without a result", mark="cross"),
        dataclasses.replace(
            _points(valued, generation, height, ""),
            values=[_accuracy(network) for network in valued],
            values_label=_axis(metric),
        ),
    ]
    leaves = 1 - min(rows.values())
    size = int(min(max(HEIGHT, ROW_HEIGHT * leaves), GREATEST_HEIGHT))
    return Plot("lineage", "Lineage", "generation", "", series, whole_x=True, height=size)


def learning_curves(networks: Sequence[StudyNetwork], metric: Metric = ACCURACY) -> Plot | None:
    """The metric by epoch, of the best networks and of the latest."""
    reporting = [network for network in networks if network.curve]
    if not reporting:
        return None
    ranked = sorted(_with_accuracy(reporting), key=_rank, reverse=True)
    best, numbers = ranked[:BEST], {network.number for network in ranked[:BEST]}
    latest = [network for network in reporting[-LATEST:] if network.number not in numbers]
    shown: list[tuple[StudyNetwork, str, Line]] = [
        *((network, "best", "solid") for network in best),
        *((network, "latest", "dotted") for network in latest),
    ]
    series = [
        Series(
            list(network.curve.keys()),
            list(network.curve.values()),
            f"trial {network.number} ({why})",
            colour=index,
            line=line,
            mark="point",
            labels=[
                f"trial {network.number}, epoch {epoch}: {value:.4f}"
                for epoch, value in network.curve.items()
            ],
        )
        for index, (network, why, line) in enumerate(shown)
    ]
    axis = _axis(metric)
    return Plot("learning-curves", "Learning curves", "epoch", axis, series, whole_x=True)


def stage_importance(networks: Sequence[StudyNetwork]) -> Plot | None:
    """Importance of every stage by trial, for strategies that grow by it."""
    measured = [network for network in networks if network.stage_importance]
    if not measured:
        return None
    series = []
    for stage in range(max(len(network.stage_importance) for network in measured)):
        having = [network for network in measured if len(network.stage_importance) > stage]
        values = [network.stage_importance[stage] for network in having]
        labelled = zip(values, map(_label, having), strict=True)
        series.append(
            Series(
                [network.number for network in having],
                values,
                f"stage {stage + 1}",
                colour=stage,
                line="solid",
                mark="point",
                labels=[f"importance {value:.4f}\n{text}" for value, text in labelled],
            )
        )
    title, label = "Importance of the stages", "mean score of the stage's features"
    return Plot("stage-importance", title, "trial", label, series, whole_x=True)


def populations(networks: Sequence[StudyNetwork], metric: Metric = ACCURACY) -> Plot | None:
    """How good the networks of an evolution are that were trained for so many epochs.

    Source: EcoNAS, figure 10.
    """
    evaluated = [n for n in _with_accuracy(networks) if n.phase in ("initial", "child")]
    reached = {n.number: max(n.trial.intermediate_values, default=0) for n in evaluated}
    rungs = sorted(set(reached.values()))
    if not 2 <= len(rungs) <= MOST_RUNGS:
        return None
    series = []
    for index, rung in enumerate(rungs):
        cycles: dict[int, list[float]] = {}
        for network in evaluated:
            if reached[network.number] == rung:
                cycles.setdefault(network.number // CYCLE, []).append(_accuracy(network))
        means = [sum(values) / len(values) for values in cycles.values()]
        series.append(
            Series(
                list(cycles),
                means,
                plural(rung, "epoch"),
                colour=index,
                line="solid",
                mark="point",
            )
        )
    note = f"As EcoNAS, figure 10: the mean of every {CYCLE} trials."
    title = f"{metric.title} by epochs"
    axis = _axis(metric)
    return Plot("populations", title, "cycle", axis, series, note=note, whole_x=True)


def tree_rows(networks: Sequence[StudyNetwork]) -> dict[int, float]:
    """A row for every network: leaves one below another, parents in the middle of their children.

    Args:
        networks: The networks.

    Returns:
        Rows by trial number, from 0 downwards.
    """
    children: dict[int | None, list[int]] = {}
    for network in networks:
        children.setdefault(network.parent, []).append(network.number)
    rows: dict[int, float] = {}
    leaves = 0
    # No recursion: a search can make each network the child of the one before.
    stack = [(number, False) for number in reversed(children.get(None, []))]
    while stack:
        number, seen = stack.pop()
        below = children.get(number, [])
        if seen:
            rows[number] = (rows[below[0]] + rows[below[-1]]) / 2
        elif below:
            stack.append((number, True))
            stack += [(child, False) for child in reversed(below)]
        else:
            rows[number] = -float(leaves)
            leaves += 1
    return rows


def _path_to_best(networks: Sequence[StudyNetwork]) -> list[StudyNetwork]:
    """The most accurate network, its parent, and so on."""
    by_number = {network.number: network for network in networks}
    path: list[StudyNetwork] = []
    network = max(_with_accuracy(networks), key=_rank, default=None)
    while network is not None:
        path.append(network)
        network = None if network.parent is None else by_number[network.parent]
    return path


def _axis(metric: Metric) -> str:
    return f"validation {metric.name} (fraction)"


def _error_axis(metric: Metric) -> str:
    if metric == ACCURACY:
        return "validation error (fraction)"
    return f"1 - validation {metric.name} (fraction)"


def _with_accuracy(networks: Iterable[StudyNetwork]) -> list[StudyNetwork]:
    """Those whose accuracy says something: an infeasible network may not have been trained."""
    evaluated = ("complete", "pruned")
    return [n for n in networks if n.state in evaluated and n.accuracy is not None]


def _priced(networks: Iterable[StudyNetwork]) -> list[StudyNetwork]:
    return [n for n in _with_accuracy(networks) if n.attribute("multiply_adds") is not None]


def _left_out(networks: Sequence[StudyNetwork], shown: Sequence[StudyNetwork]) -> str:
    numbers = {network.number for network in shown}
    states = [network.state for network in networks if network.number not in numbers]
    counts = [f"{states.count(state)} {state}" for state in sorted(set(states))]
    return f"not shown: {', '.join(counts)}" if counts else ""


def _accuracy(network: StudyNetwork) -> float:
    return network.accuracy or 0.0


def _error(network: StudyNetwork) -> float:
    return 1 - _accuracy(network)


def _cost(network: StudyNetwork) -> float:
    return network.attribute("multiply_adds") or 0.0


def _rank(network: StudyNetwork) -> tuple[bool, float]:
    return network.state == "complete", _accuracy(network)


def _by_phase(
    networks: Sequence[StudyNetwork],
    x: Callable[[StudyNetwork], Any],
    y: Callable[[StudyNetwork], Any],
) -> list[Series]:
    """Points in a colour for every phase; pruned networks are crosses in grey."""
    phases: dict[str, list[StudyNetwork]] = {}
    pruned = []
    for network in networks:
        if network.state == "pruned":
            pruned.append(network)
        else:
            phases.setdefault(network.phase or "networks", []).append(network)
    return [
        _points(pruned, x, y, "pruned", mark="cross"),
        *(
            _points(group, x, y, name, colour=index)
            for index, (name, group) in enumerate(phases.items())
        ),
    ]


def _points(
    networks: Sequence[StudyNetwork],
    x: Callable[[StudyNetwork], Any],
    y: Callable[[StudyNetwork], Any],
    name: str,
    *,
    colour: int | None = None,
    mark: Mark = "point",
) -> Series:
    """Networks, each of which tells of itself under the pointer."""
    return Series(
        [x(network) for network in networks],
        [y(network) for network in networks],
        name,
        colour=colour,
        mark=mark,
        labels=[_label(network) for network in networks],
    )


def _label(network: StudyNetwork) -> str:
    return "\n".join(network_lines(network))
