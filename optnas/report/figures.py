"""The figures of a search, which `optnas report` and the dashboard show.

Each draws what the trials of a study say, and is None where they do not say it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.config.contract import strategy_of
from optnas.report.traces import GREY, colour, figure, line, points
from optnas.study.networks import Network, networks_of

BEST, LATEST = 5, 3
"""Numbers of learning curves: of the most accurate networks, and of the latest ones."""

ACCURACY, ERROR = "validation accuracy (fraction)", "validation error (fraction)"


def figures(
    trials: Sequence[FrozenTrial],
    parents: Mapping[int, float] | None = None,
    baselines: Sequence[Network] = (),
) -> dict[str, go.Figure]:
    """The figures that apply to a study, by a name that stays the same.

    Args:
        trials: The study's trials.
        parents: Trials that the next network may start from, with their probabilities; for
            strategies whose networks inherit weights.
        baselines: Networks that people designed, which are no trials of the study.
    """
    networks = networks_of(trials)
    drawn = {
        "accuracy": accuracy(networks),
        "cost-and-error": cost_and_error(networks, parents or {}, baselines),
        "lineage": lineage(networks),
        "learning-curves": learning_curves(networks),
        "stage-importance": stage_importance(networks),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def parents_of(study: Study) -> Mapping[int, float]:
    """Trials that the next network may start from, if the study's strategy has such."""
    return strategy_of(study.sampler).parent_probabilities(study)


def accuracy(networks: Sequence[Network]) -> go.Figure | None:
    """Accuracy by trial, in the colours of the strategy's phases, and the best so far."""
    judged = _judged(networks)
    if not judged:
        return None
    numbers: list[int] = []
    best: list[float] = []
    for network in judged:
        value = _accuracy(network)
        if network.state == "complete" and (not best or value > best[-1]):
            numbers.append(network.number)
            best.append(value)
    if best:  # As far as the search has come.
        numbers.append(judged[-1].number)
        best.append(best[-1])
    traces = [
        line(numbers, best, name="best so far", line={"shape": "hv", "color": GREY}),
        *_by_phase(judged, lambda network: network.number, _accuracy),
    ]
    note = _left_out(networks, judged)
    return figure("Accuracy", "trial", ACCURACY, traces, note=note)


def cost_and_error(
    networks: Sequence[Network],
    parents: Mapping[int, float],
    baselines: Sequence[Network] = (),
) -> go.Figure | None:
    """Cost against error, with the lower convex hull and the parents' probabilities on it."""
    from optnas.trials.hull import hull_of

    priced = _priced(networks)
    if not priced:
        return None
    hull = [trial.number for trial in hull_of(n.trial for n in priced if n.state == "complete")]
    by_number = {network.number: network for network in priced}
    corners = [by_number[number] for number in parents or hull if number in by_number]
    corners.sort(key=_cost)
    traces = [
        *_by_phase(priced, _cost, _error),
        points(
            _priced(baselines),
            _cost,
            _error,
            "human-designed",
            {"color": GREY, "symbol": "diamond-open", "size": 10},
        ),
        line(
            map(_cost, corners),
            map(_error, corners),
            name="next parent, with its probability" if parents else "hull",
            mode="lines+markers+text",
            text=[f"{parents[n.number]:.2f}" if parents else "" for n in corners],
            textposition="bottom left",
            marker={"symbol": "circle-open", "size": 14, "line": {"width": 2}},
            line={"color": GREY},
            hoverinfo="skip",
        ),
    ]
    note = _left_out(networks, priced)
    return figure("Cost and error", "multiply-adds for one image", ERROR, traces, note=note)


def lineage(networks: Sequence[Network]) -> go.Figure | None:
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

    def nodes(group: Sequence[Network], name: str, marker: dict[str, Any]) -> go.Scatter:
        return points(group, lambda n: n.generation, lambda n: rows[n.number], name, marker)

    traces = [
        line(generations, heights, line={"color": GREY, "width": 1}, hoverinfo="skip"),
        line(
            [network.generation for network in path],
            [rows[network.number] for network in path],
            name="the best and its ancestors",
            line={"color": colour(1), "width": 3},
            hoverinfo="skip",
        ),
        nodes(others, "without a result", {"color": GREY, "symbol": "x"}),
        nodes(valued, "", _accuracy_scale(valued)),
    ]
    tree = figure("Lineage", "generation", "", traces)
    return tree.update_yaxes(visible=False).update_xaxes(dtick=1)


def learning_curves(networks: Sequence[Network]) -> go.Figure | None:
    """Accuracy by epoch, of the best networks and of the latest."""
    reporting = [network for network in networks if network.curve]
    if not reporting:
        return None
    ranked = sorted(_judged(reporting), key=_rank, reverse=True)
    best, numbers = ranked[:BEST], {network.number for network in ranked[:BEST]}
    latest = [network for network in reporting[-LATEST:] if network.number not in numbers]
    shown = [(n, "best", "solid") for n in best] + [(n, "latest", "dot") for n in latest]
    traces = [
        line(
            network.curve.keys(),
            network.curve.values(),
            name=f"trial {network.number} ({why})",
            mode="lines+markers",
            line={"dash": dash, "color": colour(index)},
        )
        for index, (network, why, dash) in enumerate(shown)
    ]
    return figure("Learning curves", "epoch", ACCURACY, traces)


def stage_importance(networks: Sequence[Network]) -> go.Figure | None:
    """Importance of every stage by trial, for strategies that grow by it."""
    measured = [network for network in networks if network.stage_importance]
    if not measured:
        return None
    traces = []
    for stage in range(max(len(network.stage_importance) for network in measured)):
        having = [network for network in measured if len(network.stage_importance) > stage]
        traces.append(
            points(
                having,
                lambda network: network.number,
                _importance_of(stage),
                f"stage {stage + 1}",
                {},
                mode="lines+markers",
                line={"color": colour(stage)},
                hovertemplate="importance %{y:.4f}<br>%{text}<extra></extra>",
            )
        )
    title = "Importance of the stages"
    return figure(title, "trial", "mean score of the stage's features", traces)


def tree_rows(networks: Sequence[Network]) -> dict[int, float]:
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


def _path_to_best(networks: Sequence[Network]) -> list[Network]:
    """The most accurate network, its parent, and so on."""
    by_number = {network.number: network for network in networks}
    path: list[Network] = []
    network = max(_judged(networks), key=_rank, default=None)
    while network is not None:
        path.append(network)
        network = None if network.parent is None else by_number[network.parent]
    return path


def _judged(networks: Iterable[Network]) -> list[Network]:
    """Those whose accuracy says something: an infeasible network may not have been trained."""
    judged = ("complete", "pruned")
    return [n for n in networks if n.state in judged and n.accuracy is not None]


def _priced(networks: Iterable[Network]) -> list[Network]:
    return [n for n in _judged(networks) if n.attribute("multiply_adds") is not None]


def _left_out(networks: Sequence[Network], shown: Sequence[Network]) -> str:
    numbers = {network.number for network in shown}
    states = [network.state for network in networks if network.number not in numbers]
    counts = [f"{states.count(state)} {state}" for state in sorted(set(states))]
    return f"not shown: {', '.join(counts)}" if counts else ""


def _accuracy(network: Network) -> float:
    return network.accuracy or 0.0


def _error(network: Network) -> float:
    return 1 - _accuracy(network)


def _cost(network: Network) -> float:
    return network.attribute("multiply_adds") or 0.0


def _importance_of(stage: int) -> Callable[[Network], float]:
    return lambda network: network.stage_importance[stage]


def _rank(network: Network) -> tuple[bool, float]:
    return network.state == "complete", _accuracy(network)


def _by_phase(
    networks: Sequence[Network], x: Callable[[Network], Any], y: Callable[[Network], Any]
) -> list[go.Scatter]:
    """Points in a colour for every phase; pruned networks are crosses in grey."""
    phases: dict[str, list[Network]] = {}
    pruned = []
    for network in networks:
        if network.state == "pruned":
            pruned.append(network)
        else:
            phases.setdefault(network.phase or "networks", []).append(network)
    return [
        points(pruned, x, y, "pruned", {"color": GREY, "symbol": "x"}),
        *(
            points(group, x, y, name, {"color": colour(index)})
            for index, (name, group) in enumerate(phases.items())
        ),
    ]


def _accuracy_scale(networks: Sequence[Network]) -> dict[str, Any]:
    return {
        "color": [network.accuracy for network in networks],
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": ACCURACY, "side": "right"}},
        "line": {"width": 1, "color": GREY},
    }
