"""A search told to somebody who did not run it: what was tried, and why it stopped."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import TrialState

from optnas.config import plugins
from optnas.pages.content import Column, Table
from optnas.pages.plots import Plot
from optnas.report.table import spelled
from optnas.study.budget import may_start, used_budget
from optnas.study.networks import StudyNetwork, best_first
from optnas.study.opening import OpenStudy
from optnas.study.record import metric_of
from optnas.trials.attributes import STEP
from optnas.trials.metric import Metric
from optnas.trials.outcomes import outcome
from optnas.units import count, plural

CLOSE = 0.01
"""So close to the best is as good, for whoever wants a cheaper network."""


def strategy_words(handle: OpenStudy) -> str:
    """What a study's strategy is, as its documentation says."""
    sampler = handle.config.sampler.name
    cls = plugins.load("sampler", sampler, handle.config.folder)
    summary = (cls.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    begin = "Sampler using "
    if not summary.startswith(begin):
        return sampler
    return f"{sampler} ({summary.removeprefix(begin).replace('*', '')})"


def what_was_tried(handle: OpenStudy, networks: Sequence[StudyNetwork]) -> str:
    """How many networks were trained, by which strategy, in what space, and what became of them.

    Args:
        handle: The study.
        networks: Its networks.
    """
    used = used_budget(handle.study)
    states = [outcome(network.trial) for network in networks]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    spent = [plural(used.epochs, "epoch")] if used.epochs else []
    spent += [spelled(3600 * used.hours)] if used.hours else []
    took = f" It took {' and '.join(spent)} of training." if spent else ""
    many = f"{plural(len(networks), 'network')} of the space {handle.config.space.name}"
    return f"The strategy {strategy_words(handle)} tried {many}: {', '.join(counts)}.{took}"


def why_it_stopped(handle: OpenStudy) -> str:
    """Why a search tries no more networks, or that it still does."""
    trials = handle.study.get_trials(deepcopy=False)
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    if handle.is_finished:
        return "The search stopped because its strategy had come to its end."
    used, budget = used_budget(handle.study), handle.config.budget
    spent = [
        f"{limit:g} {name}"
        for name, limit in budget.model_dump().items()
        if limit is not None and getattr(used, name) >= limit
    ]
    if spent or not may_start(budget, trials):
        early = ", before the strategy had come to its end" if handle.has_end else ""
        amount = f" of {' and '.join(spent)}" if spent else ""
        return f"The search stopped because its budget{amount} was used up{early}."
    if running:
        return f"The search goes on: {plural(running, 'network')} in training."
    return "The search was stopped by hand; the same command goes on with it."


def phases_table(networks: Sequence[StudyNetwork], metric: Metric) -> Table | None:
    """What each phase of a strategy tried, and where it ended; None where there are none.

    Args:
        networks: The networks of a study.
        metric: What it maximises.
    """
    phases: dict[str, list[StudyNetwork]] = {}
    for network in networks:
        phases.setdefault(network.phase, []).append(network)
    phases.pop("", None)
    if len(phases) < 2:
        return None
    rows = []
    for phase, group in phases.items():
        best = best_first(group)[0].accuracy
        steps = [
            str(each.trial.user_attrs[STEP]) for each in group if STEP in each.trial.user_attrs
        ]
        value = "" if best is None else f"{best:.4f}"
        rows.append([phase, f"{len(group):,}", value, steps[-1] if steps else ""])
    texts = [Column("phase", text=True), Column("networks"), Column(f"best {metric.name}")]
    columns = [*texts, Column("where it ended", text=True)]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("What each phase tried", columns, rows)


def told(
    plots: Mapping[str, Plot], handle: OpenStudy, networks: Sequence[StudyNetwork]
) -> list[Plot]:
    """Figures, each with a sentence that says what is seen in it.

    Args:
        plots: The figures, as `optnas.report.figures.figures` names them.
        handle: The study.
        networks: Its networks.
    """
    evaluated = [n for n in networks if n.state == "complete" and n.accuracy is not None]
    metric, stopped = metric_of(handle.study), why_it_stopped(handle)
    tellers: dict[str, Callable[[], str]] = {
        "accuracy": lambda: _progress(evaluated, metric, stopped),
        "cost-and-error": lambda: _cost(evaluated, metric),
        "lineage": lambda: _descent(evaluated, networks),
        "learning-curves": lambda: _learning(evaluated),
        "stage-importance": lambda: _importance(networks),
        "populations": lambda: "Lines that rise say that later cycles breed better networks.",
    }
    return [
        dataclasses.replace(plot, says=tellers[name]() if name in tellers else "")
        for name, plot in plots.items()
    ]


def _best(evaluated: Sequence[StudyNetwork]) -> StudyNetwork | None:
    return max(evaluated, key=_value, default=None)


def _value(network: StudyNetwork) -> float:
    return network.accuracy or 0.0


def _progress(evaluated: Sequence[StudyNetwork], metric: Metric, stopped: str) -> str:
    best = _best(evaluated)
    if best is None:
        return f"No training came to its end. {stopped}"
    later = sum(network.number > best.number for network in evaluated)
    if len(evaluated) == 1:
        one = f"trial {best.number}, with {metric.name} {_value(best):.4f}"
        return f"One network was trained to its end: {one}. {stopped}"
    after = "that was the last one"
    if later:
        after = (
            "the one after it was not" if later == 1 else f"none of the {later:,} later ones was"
        )
        after += " better"
    first = evaluated[0]
    if first is best:
        value = f"{metric.name} {_value(best):.4f}"
        rose = f"The first network, trial {best.number}, was the best: {value}"
    else:
        rose = (
            f"The best {metric.name} rose from {_value(first):.4f} (trial {first.number}) to "
            f"{_value(best):.4f} (trial {best.number})"
        )
    return f"{rose}; {after}. {stopped}"


def _cost(evaluated: Sequence[StudyNetwork], metric: Metric) -> str:
    priced = [network for network in evaluated if _adds(network) is not None]
    best = _best(priced)
    if best is None:
        return ""
    near = [network for network in priced if _value(network) >= _value(best) - CLOSE]
    cheapest = min(near, key=lambda network: _adds(network) or 0.0)
    said = f"The best network needs {count(round(_adds(best) or 0))} multiply-adds for an image"
    if cheapest is best:
        return f"{said}; none that is nearly as good needs fewer."
    return (
        f"{said}; trial {cheapest.number} comes within {CLOSE:g} of its {metric.name} with "
        f"{count(round(_adds(cheapest) or 0))}."
    )


def _adds(network: StudyNetwork) -> float | None:
    return network.attribute("multiply_adds")


def _descent(evaluated: Sequence[StudyNetwork], networks: Sequence[StudyNetwork]) -> str:
    best = _best(evaluated)
    begin = "Every network starts from the weights of the one to its left"
    if best is None:
        return f"{begin}."
    return f"{begin}; the best, trial {best.number}, has {plural(best.generation, 'ancestor')}."


def _learning(evaluated: Sequence[StudyNetwork]) -> str:
    best = _best([network for network in evaluated if network.curve])
    if best is None:
        return "Every line is a training, epoch by epoch."
    curve = best.curve
    top = max(curve, key=lambda epoch: (curve[epoch], -epoch))
    last = max(curve)
    if top < last:
        end = f"reached its best in epoch {top} of {last}"
    else:
        end = (
            f"was still learning in its last epoch, the {_ordinal(last)}"
            if last > 1
            else ("was trained for a single epoch")
        )
    return f"The best network, trial {best.number}, {end}."


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"


def _importance(networks: Sequence[StudyNetwork]) -> str:
    measured: list[Any] = [network.stage_importance for network in networks]
    last = next((scores for scores in reversed(measured) if scores), [0.0])
    stage = last.index(max(last)) + 1
    begin = "The search grows the stage whose features matter most"
    return f"{begin}; in the end that was stage {stage}."
