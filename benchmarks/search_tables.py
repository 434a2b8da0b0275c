"""Rungs at equal epochs, eight workers beside one, and NK landscapes: docs/measurements/search.md.

    python benchmarks/search_tables.py --data FOLDER [--seeds 40] [rungs] [workers] [landscapes]

FOLDER holds nasbench201_cifar10.npz and learning_curves/*.npz. How the strategies compare on the
tables themselves is said by `optnas compare`.
"""

import argparse
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
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


def rungs(data: Path, seeds: int) -> None:
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
            worse = np.array([list(_picks(curve, pruner, seed)) for seed in range(seeds)])
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


def workers(data: Path, seeds: int) -> None:
    """Eight workers beside one, after 100 evaluations on NAS-Bench-201."""
    table = np.load(data / "nasbench201_cifar10.npz")
    names = table["arch"].tolist()
    values = dict(zip(names, np.nan_to_num(table["val_12ep"]).tolist(), strict=True))
    test = dict(zip(names, table["test_200ep"].tolist(), strict=True))
    makers: dict[str, Callable[[Any, int], BaseSampler]] = {
        "surrogate": lambda space, seed: SurrogateSampler(space, seed=seed),
        "local_search": lambda space, seed: LocalSearchSampler(space, seed=seed),
    }
    print("\n| sampler | one worker | eight | difference | 95% |\n|---|---|---|---|---|")
    for name, make in makers.items():
        found = np.array(
            [
                [test[_pick(make(SPACE, seed), n, 100, values, seed)] for n in (1, 8)]
                for seed in range(seeds)
            ]
        )
        difference = found[:, 1] - found[:, 0]
        low, high = mean_interval(difference)
        single, eight = (f"{np.mean(c):.3f} +- {_error(c):.3f}" for c in found.T)
        print(
            f"| {name} | {single} | {eight} | {difference.mean():+.3f} | [{low:.3f}, {high:.3f}] |"
        )


SPACE = NasBench201Space()


def _pick(
    sampler: BaseSampler, workers: int, trials: int, values: dict[str, float], seed: int
) -> str:
    """The best cell of a search whose trials end in random order."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    rng = np.random.default_rng(seed)
    running: list[tuple[optuna.Trial, str]] = []
    ranked: list[tuple[float, str]] = []
    for number in range(trials + workers - 1):
        if number < trials:
            trial = study.ask()
            running.append((trial, str(SPACE.suggest(trial))))
        if len(running) == workers or number >= trials:
            trial, cell = running.pop(int(rng.integers(len(running))))
            study.tell(trial, values[cell])
            ranked.append((values[cell], cell))
    for _, cell in running:
        ranked.append((values[cell], cell))
    return max(ranked)[1]


@dataclasses.dataclass(frozen=True)
class Genes(Architecture):
    """A point of a landscape."""

    genes: tuple[str, ...]


class Landscape(ChoiceSpace[Genes]):
    """An NK landscape: the mean of random tables of every gene and K others.

    Source: Kauffman and Levin 1987.

    Args:
        n: Number of genes.
        k: Others that a gene's worth depends on.
        values: Values of a gene.
        seed: Seed of the tables.
    """

    architecture_class: ClassVar[type[Architecture]] = Genes

    def __init__(self, n: int, k: int, values: int, seed: int) -> None:
        super().__init__({f"gene_{i}": tuple(LETTERS[:values]) for i in range(n)})
        rng = np.random.default_rng(seed)
        others = [rng.choice([j for j in range(n) if j != i], k, replace=False) for i in range(n)]
        self._seen = [[i, *other.tolist()] for i, other in enumerate(others)]
        self._worth = rng.random((n, *[values] * (k + 1)))

    def to_params(self, architecture: Genes) -> dict[str, Any]:
        return dict(zip(self.choices, architecture.genes, strict=True))

    def _build(self, params: Any) -> Genes:
        return Genes(tuple(params[name] for name in self.choices))

    def value(self, architecture: Genes) -> float:
        """The worth of a point, from 0 to 1."""
        at = [LETTERS.index(gene) for gene in architecture.genes]
        return float(
            np.mean(
                [self._worth[(i, *[at[j] for j in seen])] for i, seen in enumerate(self._seen)]
            )
        )


SIZES = ((12, 4, 3), (16, 3, 3), (20, 1, 5), (28, 2, 4))


def landscapes(data: Path, seeds: int) -> None:
    """The best value after 30 and 100 evaluations on NK landscapes, one for every seed."""
    makers: dict[str, Callable[[Space[Any], int], BaseSampler]] = {
        "random": lambda space, seed: optuna.samplers.RandomSampler(seed),
        "TPE": lambda space, seed: TPESampler(seed=seed),
        "regularized_evolution": lambda space, seed: RegularizedEvolutionSampler(space, seed=seed),
        "local_search": lambda space, seed: LocalSearchSampler(space, seed=seed),
        "surrogate": lambda space, seed: SurrogateSampler(space, seed=seed),
    }
    print("\n| N, K, values | sampler | 30 | 100 | p (surrogate) |\n|---|---|---|---|---|")
    for n, k, values in SIZES:
        found = {
            name: np.array(
                [list(_bests(Landscape(n, k, values, s), make, s)) for s in range(seeds)]
            )
            for name, make in makers.items()
        }
        for name, best in found.items():
            cells = [f"{np.mean(c):.3f} +- {_error(c):.3f}" for c in best.T]
            p = paired_p_value(found["surrogate"][:, 1], best[:, 1])
            p_value = "-" if name == "surrogate" else f"{p:.2g}"
            print(f"| {n}, {k}, {values} | {name} | {' | '.join(cells)} | {p_value} |", flush=True)


def _bests(
    space: Landscape, make: Callable[[Space[Any], int], BaseSampler], seed: int
) -> Iterator[float]:
    study = optuna.create_study(direction="maximize", sampler=make(space, seed))
    for trials in (30, 70):
        study.optimize(lambda trial: space.value(space.suggest(trial)), n_trials=trials)
        yield study.best_value


def _error(values: Any) -> float:
    """The standard error of the mean."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5)


PARTS = {"rungs": rungs, "workers": workers, "landscapes": landscapes}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder of the tables.")
    parser.add_argument("--seeds", type=int, default=40, help="Searches per method.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Of {', '.join(PARTS)}.")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.data, arguments.seeds)
