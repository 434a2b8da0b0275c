"""EcoNAS beside random search, regularized evolution and TPE, on tables of trained networks.

Prints Markdown tables; the figures in docs/measurements/econas.md come from here:

    python benchmarks/econas_tables.py --data FOLDER [--seeds 100] [PART ...]

FOLDER holds nasbench201_cifar10.npz and learning_curves/*.npz. Parts: samplers, orders, curves,
time; all of them by default.
"""

import argparse
import functools
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from scipy.stats import mannwhitneyu

from optnas.config.contract import strategy_of
from optnas.objectives.tabular import Tabular
from optnas.samplers import EcoNASSampler, HierarchicalPruner, SynchronousEcoNASSampler
from optnas.spaces import CellSpace, NasBench201Space, RowSpace
from optnas.trials.attributes import CONTINUES

COLUMNS = ("val_12ep", "test_12ep", "val_200ep", "first_seed")
CHECKS = (100, 400)
SPACE = NasBench201Space()


class RegularizedEvolution:
    """Ageing evolution (Real et al. 2019), plainly: the best of a sample has a child."""

    def __init__(self, seed: int, population: int = 50, tournament: int = 10) -> None:
        self.rng = np.random.default_rng(seed)
        self.population, self.tournament = population, tournament

    def run(self, value: Callable[[str], float], trials: int) -> Iterator[tuple[str, float]]:
        living = []
        for trial in range(trials):
            if trial < self.population:
                child = SPACE.random(self.rng)
            else:
                drawn = self.rng.choice(self.population, self.tournament, replace=False)
                parent = max((living[i] for i in drawn), key=lambda member: member[1])[0]
                child = SPACE.mutate(parent, self.rng)
            living = [*living, (child, value(str(child)))][-self.population :]
            yield str(child), living[-1][1]


def run_sampler(
    sampler: BaseSampler, value: Callable[[str], float], trials: int
) -> list[tuple[str, float]]:
    """Names and values of a study's networks, in its order."""
    evaluated = []

    def objective(trial: optuna.Trial) -> float:
        name = str(SPACE.suggest(trial))
        evaluated.append((name, value(name)))
        return evaluated[-1][1]

    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=trials)
    return evaluated


def econas(seed: int, **options: bool) -> EcoNASSampler:
    """EcoNAS with the paper's 50 random networks at the start."""
    return EcoNASSampler(SPACE, seed=seed, initial=50, **options)


METHODS: dict[str, Callable[[int], BaseSampler | RegularizedEvolution]] = {
    "random search": lambda seed: RandomSampler(seed),
    "regularized evolution (50, 10)": lambda seed: RegularizedEvolution(seed),
    "TPE": lambda seed: TPESampler(seed=seed),
    "EcoNAS": econas,
    "EcoNAS, initial=25": lambda seed: EcoNASSampler(SPACE, seed=seed, initial=25),
    "EcoNAS, unique=False": lambda seed: econas(seed, unique=False),
}


def samplers(data: Path, seeds: int) -> None:
    """Test accuracy of the pick after 100 and 400 evaluations, without pruner or reports."""
    table = np.load(data / "nasbench201_cifar10.npz")
    names = table["arch"].tolist()
    test = dict(zip(names, table["test_200ep"].tolist(), strict=True))
    print(f"\nBest test accuracy in the table: {max(test.values()):.2f}")
    for column in COLUMNS:
        first = table["val_200ep_seeds"][:, 0]
        accuracies = np.nan_to_num(first if column == "first_seed" else table[column])
        value = dict(zip(names, accuracies.tolist(), strict=True)).__getitem__
        scores: dict[tuple[str, int], list[float]] = {}
        for method, make in METHODS.items():
            for seed in range(seeds if method != "TPE" else min(seeds, 20)):
                runner = make(seed)
                if isinstance(runner, RegularizedEvolution):
                    evaluated = list(runner.run(value, max(CHECKS)))
                else:
                    evaluated = run_sampler(runner, value, max(CHECKS))
                for trials in CHECKS:
                    pick = max(evaluated[:trials], key=lambda network: network[1])[0]
                    scores.setdefault((method, trials), []).append(test[pick])
        print(
            f"\n{column}\n\n| method | n | trials | test accuracy | p (random) | p (evolution) |"
        )
        print("|---|---|---|---|---|---|")
        for trials in CHECKS:
            others = [scores[method, trials] for method in list(METHODS)[:2]]
            for method in METHODS:
                own = scores[method, trials]
                ps = [mannwhitneyu(own, other).pvalue for other in others]
                print(
                    f"| {method} | {len(own)} | {trials} | {mean(own)} | "
                    f"{' | '.join(f'{p:.1g}' for p in ps)} |",
                    flush=True,
                )


def orders(data: Path, seeds: int) -> None:
    """The order of promotions at equal epochs, on curves of three points made from the table."""
    table = np.load(data / "nasbench201_cifar10.npz")
    test = dict(zip(table["arch"].tolist(), table["test_200ep"].tolist(), strict=True))
    short, long = table["val_12ep"], table["val_200ep"]
    cycles = functools.partial(SynchronousEcoNASSampler, SPACE, epochs=1)
    curve = np.stack([short, (short + long) / 2, long], axis=1)
    variants: dict[str, tuple[Callable[[int], BaseSampler], optuna.pruners.BasePruner | None]] = {
        "asynchronous, pruner": (econas, HierarchicalPruner(epochs=1)),
        "paper": (lambda seed: cycles(seed=seed), None),
        "code": (lambda seed: cycles(seed=seed, order="code"), None),
        "asynchronous, no pruner": (econas, None),
        "random, pruner": (lambda seed: RandomSampler(seed), HierarchicalPruner(epochs=1)),
    }
    budgets = tuple(3 * trials for trials in CHECKS)
    scores: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "curves.npz")
        np.savez(path, arch=table["arch"], curve=curve, epoch=np.arange(1, 4))
        objective = Tabular(SPACE, path, "curve")
        for (name, (make, pruner)), seed in itertools.product(variants.items(), range(seeds)):
            study = optuna.create_study(
                direction="maximize",
                sampler=make(seed),
                pruner=pruner or optuna.pruners.NopPruner(),
            )
            spent = 0
            for budget in budgets:
                while spent < budget:
                    study.optimize(objective, n_trials=1)
                    spent += new_epochs(study)
                scores.setdefault((name, budget), []).append(test[pick_of(study)])
    print("\n| order | n | epochs | test accuracy | p (asynchronous) |\n|---|---|---|---|---|")
    for budget in budgets:
        reference = scores["asynchronous, pruner", budget]
        for name in variants:
            own = scores[name, budget]
            p = mannwhitneyu(own, reference).pvalue
            print(f"| {name} | {len(own)} | {budget} | {mean(own)} | {p:.1g} |", flush=True)


def new_epochs(study: optuna.Study) -> int:
    """Epochs that the last trial trained itself."""
    trials = study.get_trials(deepcopy=False)
    before = trials[-1].user_attrs.get(CONTINUES)
    done = 0 if before is None else len(trials[before].intermediate_values)
    return len(trials[-1].intermediate_values) - done


def pick_of(study: optuna.Study) -> str:
    """What the search would take: the best of those that were trained longest."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    best = max(trials, key=lambda trial: (len(trial.intermediate_values), trial.value or 0.0))
    return str(SPACE.from_params(best.params))


def curves(data: Path, seeds: int) -> None:
    """What the pruner spends on real learning curves in random order, and what it picks."""
    print("\n| table | E | promote | orders | epochs spent | greatest | pick in top 1% |")
    print("|---|---|---|---|---|---|---|")
    for name, epochs in (("metaqnn_cifar10", 6), ("naap440", 30)):
        path = data / "learning_curves" / f"{name}.npz"
        curve = np.load(path)["curve"][:, : 3 * epochs]
        final, rows = curve.max(axis=1), len(curve)
        objective = Tabular(RowSpace(rows), path, "curve", epochs=3 * epochs)
        for share in (1 / 2, 1 / 3):
            spent, in_top = [], []
            for seed in range(2 * seeds):
                pruner = HierarchicalPruner(epochs, (share, share))
                study = optuna.create_study(
                    direction="maximize", sampler=RandomSampler(seed), pruner=pruner
                )
                for row in np.random.default_rng(seed).permutation(rows):
                    study.enqueue_trial({"row": int(row)})
                study.optimize(objective, n_trials=rows)
                trials = study.get_trials(deepcopy=False)
                spent.append(sum(len(t.intermediate_values) for t in trials) / curve.size)
                pick = final[study.best_trial.params["row"]]
                in_top.append((final > pick).sum() < max(1, rows // 100))
            shown = " | ".join(f"{100 * x:.1f}%" for x in (np.mean(spent), max(spent)))
            print(
                f"| {name} | {epochs} | {share:.3g} | {len(spent)} | {shown} | "
                f"{100 * np.mean(in_top):.1f}% |",
                flush=True,
            )


def sampler_time(data: Path, seeds: int) -> None:
    """CPU time per trial (ask, 32 suggestions, tell), in memory, in one process."""
    space = CellSpace()
    makers: dict[str, Callable[[], BaseSampler]] = {
        "random": lambda: RandomSampler(0),
        "EcoNAS": lambda: EcoNASSampler(space, seed=0),
        "EcoNAS, order=paper": lambda: SynchronousEcoNASSampler(space, seed=0),
        "TPE": lambda: TPESampler(seed=0),
    }
    marks = (250, 500, 1000)
    print(f"\n| sampler | {' | '.join(f'ms at {mark} trials' for mark in marks)} |")
    print("|---|---|---|---|")
    for name, make in makers.items():
        study = optuna.create_study(direction="maximize", sampler=make())
        milliseconds = []
        for number in range(max(marks)):
            start = time.process_time()
            trial = study.ask()
            space.suggest(trial)
            if strategy_of(study.sampler).sets_epochs:
                trial.suggest_int("epochs", 1, 1_000_000)
            study.tell(trial, np.random.default_rng(number).random())
            milliseconds.append(1000 * (time.process_time() - start))
        medians = [np.median(milliseconds[mark - 50 : mark]) for mark in marks]
        print(f"| {name} | {' | '.join(f'{median:.1f}' for median in medians)} |", flush=True)


def mean(values: list[float]) -> str:
    """Mean and standard error."""
    return f"{np.mean(values):.2f} +- {np.std(values, ddof=1) / len(values) ** 0.5:.2f}"


PARTS = {"samplers": samplers, "orders": orders, "curves": curves, "time": sampler_time}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder of the tables.")
    parser.add_argument("--seeds", type=int, default=100, help="Searches per method.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Of {', '.join(PARTS)}.")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for part in arguments.parts or PARTS:
        PARTS[part](arguments.data, arguments.seeds)
