"""Every network of a small space trained on real images, and the strategies compared on these.

    python benchmarks/real_table.py train --data FOLDER --table FILE [--passes 2]
    python benchmarks/real_table.py compare --table FILE [--seeds 100]

`train` trains all 252 chains of two or three layers for nine epochs on 1,600 images of
Fashion-MNIST at 14 x 14 pixels, validates on 1,600 others after every epoch and tests on 4,000 in
the end, once in every pass with another seed. Stopped, the same command goes on. `compare` lets
every strategy search the first pass at equal epochs, with and without geometric rungs, and judges
its pick by the test accuracy of the last: that of the same network trained anew. FOLDER holds
FashionMNIST/.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from real_images import halve

from optnas.config.settings import DataSettings, TrainSettings
from optnas.experiments.comparison_report import standings_text
from optnas.experiments.standings import standings
from optnas.experiments.statistics import mean_interval
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.trainer import Trainer, deterministic_algorithms
from optnas.samplers import (
    EcoNASSampler,
    HierarchicalPruner,
    LocalSearchSampler,
    RegularizedEvolutionSampler,
    SurrogateSampler,
)
from optnas.spaces import ChainArchitecture, ChainSpace
from optnas.spaces.chain import KERNELS, OPERATIONS

SPACE = ChainSpace((2, 3), (8, 8), kernels=KERNELS)
EPOCHS = 9
TRAIN, VALIDATION, TEST = 1600, 1600, 4000
BUDGETS = (100, 300)
RECIPE = TrainSettings(lr=0.05, batch_size=32, threads=1)

Makers = dict[str, Callable[[int], BaseSampler]]
MAKERS: Makers = {
    "econas": lambda seed: EcoNASSampler(SPACE, seed=seed),
    "regularized_evolution": lambda seed: RegularizedEvolutionSampler(SPACE, seed=seed),
    "surrogate": lambda seed: SurrogateSampler(SPACE, seed=seed),
    "local_search": lambda seed: LocalSearchSampler(SPACE, seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed),
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "": optuna.pruners.NopPruner,
    "+rungs": lambda: HierarchicalPruner(first=1, factor=3),
}


def networks() -> list[ChainArchitecture]:
    """All networks of the space."""
    layers = list(itertools.product(OPERATIONS, KERNELS))
    return [
        ChainArchitecture(depth, 8, *zip(*row, strict=True))
        for depth in (2, 3)
        for row in itertools.product(layers, repeat=depth)
    ]


def images(data: Path) -> Images:
    """The images, at half their resolution."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path("FashionMNIST", "raw")
        halve(data / raw, Path(folder) / raw)
        settings = DataSettings(name="fashion_mnist", root=folder, augment=("flip",))
        whole = load_images(settings, 0)
    return dataclasses.replace(
        whole,
        train_images=whole.train_images[:TRAIN],
        train_labels=whole.train_labels[:TRAIN],
        validation_images=whole.validation_images[:VALIDATION],
        validation_labels=whole.validation_labels[:VALIDATION],
        test_images=whole.test_images[:TEST],
        test_labels=whole.test_labels[:TEST],
    )


def trained(network: ChainArchitecture, pictures: Images, seed: int) -> tuple[list[float], float]:
    """The validation accuracy after every epoch, and the test accuracy in the end."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(network, pictures.input_shape, pictures.classes, generator)
    trainer = Trainer(model, pictures, RECIPE, epochs=EPOCHS, seed=seed)
    with deterministic_algorithms(RECIPE.deterministic):
        curve = [trainer.train_epoch().validation_accuracy or 0.0 for _ in range(EPOCHS)]
        return curve, trainer.evaluate(pictures.test_images, pictures.test_labels)


def train(options: argparse.Namespace) -> None:
    """Train what the table does not have yet, in random order."""
    torch.set_num_threads(1)
    pictures, every = images(options.data), networks()
    curves = np.full((options.passes, len(every), EPOCHS), np.nan)
    tests = np.full((options.passes, len(every)), np.nan)
    if options.table.exists():
        known = np.load(options.table)
        curves[: len(known["curves"])] = known["curves"][: options.passes]
        tests[: len(known["tests"])] = known["tests"][: options.passes]
    order = np.random.default_rng(0).permutation(len(every)).tolist()
    missing = [(p, i) for p in range(options.passes) for i in order if np.isnan(tests[p, i])]
    for count, (which, i) in enumerate(missing, start=1):
        seed = which * len(every) + i
        curves[which, i], tests[which, i] = trained(every[i], pictures, seed)
        if count % 10 == 0 or count == len(missing):
            with tempfile.NamedTemporaryFile(dir=options.table.parent, delete=False) as file:
                np.savez_compressed(file, curves=curves, tests=tests)
            Path(file.name).replace(options.table)
            print(f"{count} of {len(missing)}", file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Search:
    """A search on the table.

    Args:
        curves: Validation accuracies, shape (networks, epochs).
        tests: Test accuracies of the networks, shape (networks,).
    """

    curves: np.ndarray
    tests: np.ndarray

    def tested(self, sampler: BaseSampler, pruner: optuna.pruners.BasePruner) -> list[float]:
        """The test accuracy of what is found in each of the budgets."""
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        row = {network: i for i, network in enumerate(networks())}
        spent, pick, found = 0, (0, -np.inf, 0), []
        while len(found) < len(BUDGETS):
            trial = study.ask()
            i = row[SPACE.suggest(trial)]
            epoch = 0
            while epoch < EPOCHS:
                epoch += 1
                trial.report(float(self.curves[i, epoch - 1]), epoch)
                if epoch < EPOCHS and trial.should_prune():
                    break
            value = float(self.curves[i, :epoch].max())
            pruned = {"state": optuna.trial.TrialState.PRUNED}
            study.tell(trial, **(pruned if epoch < EPOCHS else {"values": value}))
            if spent + epoch > BUDGETS[len(found)]:
                found.append(float(self.tests[pick[2]]))
            spent, pick = spent + epoch, max(pick, (epoch, value, i))
        return found


def compare(options: argparse.Namespace) -> None:
    """Print who finds what, and who can be told from the first."""
    table = np.load(options.table)
    curves, tests = table["curves"], table["tests"]
    last = len(tests) - 1
    search = Search(curves[0], tests[last])
    told = spearman(curves[0].max(axis=1), tests[last])
    print(f"{len(tests[last])} networks, validation of pass 1, test of pass {last + 1}")
    print(f"Spearman's correlation of the two {told:.3f}; test accuracies", end=" ")
    print(f"{tests[last].min():.4f} to {tests[last].max():.4f}, mean {tests[last].mean():.4f}")
    found = {
        name + suffix: np.array(
            [search.tested(make(seed), pruner()) for seed in range(options.seeds)]
        )
        for name, make in MAKERS.items()
        for suffix, pruner in PRUNERS.items()
    }
    for at, budget in enumerate(BUDGETS):
        print(f"\n{budget} epochs, {options.seeds} seeds: mean test accuracy, 95 %")
        for label, values in found.items():
            low, high = mean_interval(values[:, at])
            print(f"{label:26} {values[:, at].mean():.4f} [{low:.4f}, {high:.4f}]")
        rows = [{"label": label, "finals": v[:, at].tolist()} for label, v in found.items()]
        print("\n".join(standings_text(standings(rows))), flush=True)


def spearman(a: Any, b: Any) -> float:
    """The rank correlation of two rows of numbers."""
    ranks = np.argsort(np.argsort([a, b], axis=1), axis=1)
    return float(np.corrcoef(ranks)[0, 1])


def main() -> None:
    """Train, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("train", "compare"))
    parser.add_argument("--data", type=Path, help="Folder of the images.")
    parser.add_argument("--table", type=Path, required=True, help="File of the table (.npz).")
    parser.add_argument("--passes", type=int, default=2, help="Trainings of every network.")
    parser.add_argument("--seeds", type=int, default=100, help="Searches per strategy.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    {"train": train, "compare": compare}[options.part](options)


if __name__ == "__main__":
    main()
