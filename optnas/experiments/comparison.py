"""`optnas compare`: strategies and stock samplers at equal cost, over several seeds."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.trial import FrozenTrial

from optnas.config.file import StudyFile
from optnas.config.variants import experiment_seed, variant, written_block
from optnas.errors import UserError
from optnas.experiments.comparison_report import (
    comparison_page,
    comparison_text,
    overall_page,
    overall_text,
)
from optnas.experiments.contenders import BASELINE, Contender, Unit, sets_epochs
from optnas.experiments.in_memory import is_instant, simulate_all
from optnas.experiments.standings import standings
from optnas.experiments.statistics import (
    best_so_far,
    greater_p_value,
    mean_interval,
    relative_improvement,
)
from optnas.experiments.studies import Experiment, finite, is_result, number, run_all, run_to_end
from optnas.seeds import derive_seed
from optnas.storage.opening import open_storage
from optnas.study.budget import trial_epochs
from optnas.trials.attributes import CONTINUES, TRAIN_SECONDS
from optnas.trials.failures import is_lost

GRID = 100
"""Points of a curve."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one study.

    Args:
        costs: What had been spent when each trial ended, ascending, shape (n,).
        values: The trials' values, shape (n,); ``-inf`` where a trial has no result.
        scores: What the networks are worth by another measure, shape (n,); None for the value.
    """

    costs: tuple[float, ...]
    values: tuple[float, ...]
    scores: tuple[float, ...] | None = None

    def found(self, at: ArrayLike) -> NDArray[np.float64]:
        """What the network with the best value was worth that was had for each of the costs."""
        return best_so_far(self.costs, self.values, at, self.scores)


def compare(
    config: StudyFile,
    contenders: Sequence[Contender],
    *,
    unit: Unit,
    amount: float,
    seeds: int = 5,
    candidate_epochs: int | None = None,
    score: str | None = None,
    processes: int = 1,
    device: str | None = None,
    on_study: Callable[[str], None] = lambda line: None,
) -> Experiment:
    """Run every contender with every seed until the same cost is spent, and compare the best.

    Every contender and seed is a study of its own in the file's storage, named after the file's
    study. Running it again goes on, also with a greater amount or more seeds. On a table, where a
    trial takes a millisecond, the studies are in memory and nothing is stored.

    Source of the relative improvement: *Efficient Global Neural Architecture Search*, section 4.

    Args:
        config: The space, the objective, the data, the training and the limits.
        contenders: What is compared.
        unit: What is spent: epochs, seconds of training as the objective records them, or trials.
        amount: How much of it each study may spend.
        seeds: Number of seeds; the same ones for all contenders.
        candidate_epochs: Epochs of a candidate where the sampler does not choose them. None
            takes ``train.epochs`` of the file, or else 20.
        score: On a table: the column by which the network with the best value is judged.
        processes: Studies that run at once.
        device: A torch device; None takes CUDA where there is one.
        on_study: Called with a line for every study that is finished.

    Raises:
        UserError: If a contender cannot search this space, before anything is created.
        Stopped: If it was interrupted.
    """
    configs = {
        (contender.label, seed): study_of(config, contender, seed, unit, amount, candidate_epochs)
        for seed in range(seeds)
        for contender in contenders
    }
    if score is not None and not is_instant(config):
        raise UserError("--score: only tables have other columns than the one searched by")
    runs: dict[str, Run] = {}
    for name, run in _runs(list(configs.values()), unit, amount, score, processes, device):
        runs[name] = run
        (best,) = _finals([run], amount)
        on_study(f"{len(runs)}/{len(configs)}  {name}: best {number(best, 4)}")
    by_label = {
        contender.label: [runs[configs[contender.label, seed].study] for seed in range(seeds)]
        for contender in contenders
    }
    baseline = next((c.label for c in contenders if c.sampler["name"] == BASELINE), None)
    fields = {
        "study": config.study,
        "unit": unit,
        "amount": amount,
        "seeds": seeds,
        "score": score,
        **_summary(by_label, amount, baseline),
    }
    return Experiment(fields, comparison_text(fields), comparison_page(fields))


def overall(tables: Sequence[Mapping[str, Any]]) -> Experiment:
    """Comparisons of the same contenders on several study files, and the ranking over all.

    Args:
        tables: The fields of each comparison.

    Raises:
        UserError: If they did not compare the same.
    """
    labels = [[row["label"] for row in table["contenders"]] for table in tables]
    if any(some != labels[0] for some in labels):
        raise UserError("several study files need the same --samplers: say them")
    rows = [
        {
            "label": label,
            "finals": [v for table in tables for v in table["contenders"][i]["finals"]],
        }
        for i, label in enumerate(labels[0])
    ]
    fields = {"tables": list(tables), **standings(rows)}
    return Experiment(fields, overall_text(fields), overall_page(fields))


def study_of(
    config: StudyFile,
    contender: Contender,
    seed: int,
    unit: Unit,
    amount: float,
    candidate_epochs: int | None,
) -> StudyFile:
    """The study of a contender and a seed."""
    train = written_block(config, "train")
    epochs = candidate_epochs or train.pop("epochs", None)
    changes: dict[str, Any] = {
        "sampler": contender.sampler,
        "seed": derive_seed(experiment_seed(config), "compare", seed) % 2**32,
        "train": train,
        "budget": {"hours": amount / 3600} if unit == "seconds" else {unit: int(amount)},
    }
    if contender.pruner is not None:
        changes["pruner"] = contender.pruner
    name = f"compare-{contender.label}-{seed}"
    sampler = contender.sampler["name"]
    if epochs is not None and config.proxy is None and not sets_epochs(config, sampler):
        changes["train"] = train | {"epochs": epochs}
    try:
        return variant(config, name, **changes)
    except UserError as error:
        raise UserError(f"{contender.label}: {error}") from None


def _runs(
    configs: Sequence[StudyFile],
    unit: Unit,
    amount: float,
    score: str | None,
    processes: int,
    device: str | None,
) -> Iterator[tuple[str, Run]]:
    """The name of every study, and what came of it, as soon as it is done."""
    if is_instant(configs[0]):
        cost = functools.partial(_checked_cost, unit=unit)
        for config, simulated in simulate_all(
            configs, processes=processes, cost=cost, amount=amount, score=score
        ):
            yield config.study, _run(simulated.trials, unit, simulated.scores)
        return
    work = functools.partial(
        run_to_end, device=device, check=functools.partial(_check_spends, unit)
    )
    for config, _ in run_all(configs, work, processes):
        study = optuna.load_study(study_name=config.study, storage=open_storage(config.storage))
        yield config.study, _run(study.get_trials(deepcopy=False), unit)


def _run(trials: Sequence[FrozenTrial], unit: Unit, scores: Sequence[float] | None = None) -> Run:
    """What a study spent and had, in the order in which its trials ended."""
    ended = [trial for trial in trials if trial.state.is_finished() and trial.datetime_complete]
    ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    costs, values, total = [], [], 0.0
    for trial in ended:
        total += _cost(trial, trials, unit)
        costs.append(total)
        value = trial.value if is_result(trial) else None
        values.append(-np.inf if value is None else value)
    run_scores = None if scores is None else tuple(scores[trial.number] for trial in ended)
    return Run(tuple(costs), tuple(values), run_scores)


def _checked_cost(trial: FrozenTrial, trials: Sequence[FrozenTrial], *, unit: Unit) -> float:
    _check_spends(unit, trial)
    return _cost(trial, trials, unit)


def _cost(trial: FrozenTrial, trials: Sequence[FrozenTrial], unit: Unit) -> float:
    """What a trial spent itself, beyond what the trial that it continues had spent."""
    if unit == "trials":
        return float(bool(trial.params) and not is_lost(trial))
    continued = trial.user_attrs.get(CONTINUES)
    before = 0.0 if continued is None else _spent(trials[continued], unit)
    return max(0.0, _spent(trial, unit) - before)


def _spent(trial: FrozenTrial, unit: Unit) -> float:
    if unit == "epochs":
        return float(trial_epochs(trial))
    return float(trial.user_attrs.get(TRAIN_SECONDS, 0.0))


def _check_spends(unit: Unit, trial: FrozenTrial) -> None:
    """Refuse an objective whose trials cost nothing, so that no budget would ever end."""
    if is_result(trial) and unit != "trials" and not _spent(trial, unit):
        raise UserError(f"the objective records no {unit}; compare at equal --trials")


def _summary(
    runs: Mapping[str, Sequence[Run]], amount: float, baseline: str | None
) -> dict[str, Any]:
    """Everything that is said of the contenders, as JSON values."""
    finals = {label: _finals(some, amount) for label, some in runs.items()}
    random = [
        score
        for run in runs.get(baseline or "", ())
        for cost, value, score in zip(run.costs, run.values, run.scores or run.values, strict=True)
        if cost <= amount and value > -np.inf
    ]
    rows = []
    for label, some in runs.items():
        row: dict[str, Any] = {"label": label, "finals": finals[label]}
        known = [value for value in finals[label] if value is not None]
        row |= _mean("mean", known)
        others = [value for value in finals.get(baseline or "", ()) if value is not None]
        tested = label != baseline and known and others
        row["p_value"] = greater_p_value(known, others) if tested else None
        improvements = [relative_improvement(v, random) for v in known] if any(random) else []
        row |= _mean("relative_improvement", improvements)
        row["curve"] = _curve(some, amount)
        rows.append(row)
    summary = {"baseline": baseline, "random_networks": len(random), "contenders": rows}
    return summary | standings(rows)


def _finals(runs: Sequence[Run], amount: float) -> list[float | None]:
    """The best value of every run at the end; None where there is none."""
    return [finite(float(run.found([amount])[0])) for run in runs]


def _mean(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """The mean and its confidence interval."""
    if not values:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = mean_interval(values)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}


def _curve(runs: Sequence[Run], amount: float) -> dict[str, list[float]]:
    """The mean of the best so far against cost, from where every run has one."""
    costs = np.linspace(amount / GRID, amount, GRID)
    best = np.array([run.found(costs) for run in runs])
    known = ~np.isnan(best).any(axis=0)
    ends = [mean_interval(column) for column in best[:, known].T]
    return {
        "cost": costs[known].tolist(),
        "mean": best[:, known].mean(axis=0).tolist(),
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }
