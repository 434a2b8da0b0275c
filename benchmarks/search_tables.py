"""Searches on tables and on NK landscapes, rungs, eight workers: docs/measurements/search.md.

    python benchmarks/search_tables.py --data FOLDER [--seeds 40] [--first 0] [PART ...]

Parts: tables, landscapes, workers, rungs; all of them by default. FOLDER holds
nasbench201_cifar10.npz, transnas101_micro.npz and learning_curves/*.npz. The seeds are those from
`--first` on.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from optnas.experiments.statistics import mean_interval, paired_p_value
from optnas.samplers import (
    HierarchicalPruner,
    LocalSearchSampler,
    RegularizedEvolutionSampler,
    SurrogateSampler,
)
from optnas.spaces import Architecture, NasBench201Space, Space
from optnas.spaces.choices import ChoiceSpace

FULL = (20, 40, 80)
"""What is spent, in full trainings."""
LETTERS = "abcdefgh"


def rungs(data: Path, seeds: range) -> None:
    """Percent of networks better than the pick, at equal epochs, on real learning curves."""
    print("\n| table | rungs | " + " | ".join(f"{n} full trainings" for n in FULL) + " |")
    print("|---|---|" + "---|" * len(FULL))
    for name, whole in (("metaqnn_cifar10", 18), ("naap440", 90)):
        curve = np.load(data / "learning_curves" / f"{name}.npz")["curve"][:, :whole]
        pruners: dict[str, optuna.pruners.BasePruner] = {
            "T": optuna.pruners.NopPruner(),
            "T/3, 2T/3, T": HierarchicalPruner(whole // 3),
            "T/9, T/3, T": HierarchicalPruner(first=whole // 9),
            "T/18, 2T/9, 8T/9": HierarchicalPruner(first=whole // 18, factor=4),
        }
        for label, pruner in pruners.items():
            worse = np.array([list(_picks(curve, pruner, seed)) for seed in seeds])
            cells = [f"{column.mean():.2f} +- {_error(column):.2f}" for column in worse.T]
            print(f"| {name} | {label} | {' | '.join(cells)} |", flush=True)


def _picks(curve: np.ndarray, pruner: optuna.pruners.BasePruner, seed: int) -> Iterator[float]:
    """The percent of networks better than the pick after each of ``FULL``."""
    best, whole = curve.max(axis=1), curve.shape[1]
    ends = pruner.rungs.epochs if isinstance(pruner, HierarchicalPruner) else (whole,)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    order = iter(np.random.default_rng(seed).permutation(len(curve)))
    spent, picks, budgets = 0, [(-1, -np.inf, 0)], list(FULL)
    for row in order:
        trial = study.ask()
        for rung, end in enumerate(ends, start=1):
            value = float(curve[row, :end].max())
            trial.report(value, end)
            stops = rung < len(ends) and trial.should_prune()
            if stops:
                break
        outcome = {"state": TrialState.PRUNED} if stops else {"values": value}
        study.tell(trial, **outcome)
        spent += end
        picks.append(max(picks[-1], (rung, value, int(row))))
        while budgets and spent >= budgets[0] * whole:
            budgets.pop(0)
            yield 100 * float((best > best[picks[-1][2]]).mean())
        if not budgets:
            return
    for _ in budgets:  # The table is used up.
        yield 100 * float((best > best[picks[-1][2]]).mean())


@dataclasses.dataclass(frozen=True)
class Genes(Architecture):
    """A point of a landscape."""

    genes: tuple[str, ...]


class Choices(ChoiceSpace[Genes]):
    """Some parameters that have the same values.

    Args:
        n: Number of parameters.
        values: Values of each.
    """

    architecture_class: ClassVar[type[Architecture]] = Genes

    def __init__(self, n: int, values: int) -> None:
        super().__init__({f"gene_{i}": tuple(LETTERS[:values]) for i in range(n)})

    def to_params(self, architecture: Genes) -> dict[str, Any]:
        return dict(zip(self.choices, architecture.genes, strict=True))

    def _build(self, params: Any) -> Genes:
        return Genes(tuple(params[name] for name in self.choices))


class Landscape(Choices):
    """An NK landscape: the mean of random tables of every gene and K others.

    Source: Kauffman and Levin 1987.

    Args:
        n: Number of genes.
        k: Others that a gene's worth depends on.
        values: Values of a gene.
        seed: Seed of the tables.
    """

    def __init__(self, n: int, k: int, values: int, seed: int) -> None:
        super().__init__(n, values)
        rng = np.random.default_rng(seed)
        others = [rng.choice([j for j in range(n) if j != i], k, replace=False) for i in range(n)]
        self._seen = [[i, *other.tolist()] for i, other in enumerate(others)]
        self._worth = rng.random((n, *[values] * (k + 1)))

    def value(self, architecture: Genes) -> float:
        """The worth of a point, from 0 to 1."""
        at = [LETTERS.index(gene) for gene in architecture.genes]
        return float(
            np.mean(
                [self._worth[(i, *[at[j] for j in seen])] for i, seen in enumerate(self._seen)]
            )
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """What is searched.

    Args:
        space: The networks.
        value: What a search is told of one.
        score: What its pick is judged by.
    """

    space: Space[Any]
    value: Callable[[Any], float]
    score: Callable[[Any], float]


def nasbench201(data: Path, column: str) -> Task:
    """Cells searched by a column, judged by the test accuracy after 200 epochs."""
    table = np.load(data / "nasbench201_cifar10.npz")
    row = {name: i for i, name in enumerate(table["arch"].tolist())}
    values, tests = np.nan_to_num(table[column]), np.nan_to_num(table["test_200ep"])
    return Task(
        NasBench201Space(),
        lambda cell: float(values[row[str(cell)]]),
        lambda cell: float(tests[row[str(cell)]]),
    )


def transnas(data: Path, column: str) -> Task:
    """Cells of TransNAS-Bench-101's micro space, whose value is what counts."""
    table = np.load(data / "transnas101_micro.npz")
    row = {tuple(operations): i for i, operations in enumerate(table["operations"].tolist())}
    values = table[column]

    def value(cell: Genes) -> float:
        return float(values[row[tuple(LETTERS.index(gene) for gene in cell.genes)]])

    return Task(Choices(6, 4), value, value)


def found(
    task: Task, sampler: BaseSampler, budgets: Sequence[int], seed: int, workers: int = 1
) -> list[float]:
    """What the pick is worth after so many results, which come in random order."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rng = np.random.default_rng(seed)
    running: list[tuple[optuna.Trial, Any]] = []
    best, scores = (-np.inf, -np.inf), []
    for number in range(budgets[-1] + workers - 1):
        if number < budgets[-1]:
            trial = study.ask()
            running.append((trial, task.space.suggest(trial)))
        if len(running) == workers or number >= budgets[-1]:
            trial, network = running.pop(int(rng.integers(len(running))))
            study.tell(trial, task.value(network))
            best = max(best, (task.value(network), task.score(network)))
            scores.append(best[1])
    return [scores[budget - 1] for budget in budgets]


Makers = dict[str, Callable[[Space[Any], int], BaseSampler]]
MAKERS: Makers = {
    "surrogate": lambda space, seed: SurrogateSampler(space, seed=seed),
    "local_search": lambda space, seed: LocalSearchSampler(space, seed=seed),
    "tpe": lambda space, seed: TPESampler(seed=seed),
    "regularized_evolution": lambda space, seed: RegularizedEvolutionSampler(space, seed=seed),
    "random": lambda space, seed: RandomSampler(seed),
}


def compared(name: str, task: Callable[[int], Task], budgets: Sequence[int], seeds: range) -> None:
    """Print what every strategy finds, and how the first one's differences are spread."""
    first: np.ndarray | None = None
    for label, make in MAKERS.items():
        scores = np.array(
            [found(t := task(seed), make(t.space, seed), budgets, seed) for seed in seeds]
        )
        first = scores if first is None else first
        cells = [_cell(column) for column in scores.T]
        if label != "surrogate":
            cells = [
                f"{cell}, {_difference(first[:, i] - scores[:, i])}"
                for i, cell in enumerate(cells)
            ]
        print(f"| {name} | {label} | {' | '.join(cells)} |", flush=True)


def tables(data: Path, seeds: range) -> None:
    """Every strategy on NAS-Bench-201 and TransNAS-Bench-101."""
    budgets = (30, 50, 100, 200)
    print("\n| table | sampler | 30 | 50 | 100 | 200 |\n|---|---|---|---|---|---|")
    for column in ("val_12ep", "val_200ep"):
        task = nasbench201(data, column)
        compared(column, lambda seed, task=task: task, budgets, seeds)
    for column in ("class_object", "class_scene"):
        task = transnas(data, column)
        compared(column, lambda seed, task=task: task, budgets[:3], seeds)


def workers(data: Path, seeds: range) -> None:
    """Eight workers beside one, after 100 evaluations on NAS-Bench-201."""
    task = nasbench201(data, "val_12ep")
    print("\n| sampler | one worker | eight, difference |\n|---|---|---|")
    for name in ("surrogate", "local_search"):
        single, eight = (
            np.array([found(task, MAKERS[name](task.space, s), (100,), s, n)[0] for s in seeds])
            for n in (1, 8)
        )
        print(f"| {name} | {_cell(single)} | {_cell(eight)}, {_difference(eight - single)} |")


SIZES = ((12, 4, 3), (16, 3, 3), (20, 1, 5), (28, 2, 4))


def landscapes(data: Path, seeds: range) -> None:
    """Every strategy on NK landscapes, one for every seed."""
    print("\n| N, K, values | sampler | 30 | 100 |\n|---|---|---|---|")
    for n, k, values in SIZES:

        def task(seed: int, size: tuple[int, int, int] = (n, k, values)) -> Task:
            space = Landscape(*size, seed)
            return Task(space, space.value, space.value)

        compared(f"{n}, {k}, {values}", task, (30, 100), seeds)


def _cell(values: Any) -> str:
    """The mean and its standard error."""
    return f"{np.mean(values):.3f} +- {_error(values):.3f}"


def _difference(differences: np.ndarray) -> str:
    """The mean of paired differences with its 95 % interval, and Wilcoxon's p."""
    low, high = mean_interval(differences)
    p = paired_p_value(differences, np.zeros(len(differences)))
    return f"{differences.mean():+.3f} [{low:.3f}, {high:.3f}] {p:.2g}"


def _error(values: Any) -> float:
    """The standard error of the mean."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


PARTS = {"tables": tables, "landscapes": landscapes, "workers": workers, "rungs": rungs}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder of the tables.")
    parser.add_argument("--seeds", type=int, default=40, help="Searches per method.")
    parser.add_argument("--first", type=int, default=0, help="The first seed.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Of {', '.join(PARTS)}.")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    for part in arguments.parts or PARTS:
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        PARTS[part](arguments.data, seeds)
