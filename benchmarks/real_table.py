"""The strategies on real images: small spaces, of which every network asked for is trained once.

    python benchmarks/real_table.py --data FOLDER --output FOLDER [--tables NAME,NAME]

The data's FOLDER holds FashionMNIST/ and cifar-10-batches-py/. A table is a data set, at half its
resolution, and a space: 240 chains, or 210 networks of cells. A candidate trains nine epochs on
1,000 images and is judged by 1,000 others. Every strategy searches at equal epochs, with and
without geometric rungs, 40 times; what it finds is judged by two test accuracies: of that
training, on 4,000 images, and of three others, longer and of all 2,000 images, on 6,000 others.

What the output has is not done again, so the strategies share what they train, and the same
command goes on where it was stopped. Macro-micro, which draws nothing, trains anew with every
seed. `NAME.txt` in the output has who finds what, `NAME.json` the networks, `NAME.jsonl` every
training. At the end stands the mean over the tables, seed by seed.
"""

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from torch.nn import functional

from optnas.config.settings import DataSettings, TrainSettings
from optnas.experiments.comparison_report import standings_text
from optnas.experiments.standings import standings
from optnas.experiments.statistics import holm, mean_interval, paired_p_value, spearman
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.trainer import Trainer, deterministic_algorithms
from optnas.samplers import (
    EcoNASSampler,
    HierarchicalPruner,
    LocalSearchSampler,
    MacroMicroSampler,
    RegularizedEvolutionSampler,
    SurrogateSampler,
)
from optnas.seeds import derive_seed
from optnas.spaces import Architecture, CellArchitecture, CellSpace, ChainSpace, Space

EPOCHS = 9
FINAL_EPOCHS = 10
TRAIN, VALIDATION, TEST = 1000, 1000, 4000
BUDGETS = (100, 300)
FINALS = ("final", "final 2", "final 3")
"""The seeds of the trainings of what was found: one alone would decide who leads by luck."""
RECIPE = TrainSettings(lr=0.05, batch_size=32, threads=1)
SHARED = 0
"""The seed of the trainings that the strategies share."""


class SmallCells(CellSpace):
    """Cells of one node: any two of three operations, in the reduction cell of two."""

    def __init__(self) -> None:
        super().__init__(1, none=False)
        convolution, pooling, skip = "sep_conv_3x3", "max_pool_3x3", "skip_connect"
        for edge in ("0_0", "0_1"):
            self.choices[f"normal_op_{edge}"] = (convolution, pooling, skip)
            self.choices[f"reduce_op_{edge}"] = (convolution, pooling)


@dataclasses.dataclass(frozen=True)
class Table:
    """A data set and a space.

    Args:
        data: The data set's name.
        space: The space.
        network: What the networks take beside their architecture.
    """

    data: str
    space: Space[Any]
    network: dict[str, int] = dataclasses.field(default_factory=dict)


CHAINS = ChainSpace((2, 5), (4, 10), kernels=(3,))
CELLS = {"cells": 3, "channels": 8}
TABLES = {
    "cifar10-chain": Table("cifar10", CHAINS),
    "cifar10-cell": Table("cifar10", SmallCells(), CELLS),
    "fashion_mnist-chain": Table("fashion_mnist", CHAINS),
    "fashion_mnist-cell": Table("fashion_mnist", SmallCells(), CELLS),
}
Maker = Callable[[Space[Any], int], BaseSampler]
Finds = dict[str, list[list[str]]]
"""For every label and seed the networks of the budgets, as JSON."""
Tests = dict[str, dict[str, np.ndarray]]
"""For every kind of training and label the test accuracies, shape (seeds, budgets)."""
MAKERS: dict[str, Maker] = {
    "surrogate": lambda space, seed: SurrogateSampler(space, seed=seed),
    "local_search": lambda space, seed: LocalSearchSampler(space, seed=seed),
    "regularized_evolution": lambda space, seed: RegularizedEvolutionSampler(space, seed=seed),
    "econas": lambda space, seed: EcoNASSampler(space, seed=seed),
    "tpe": lambda space, seed: TPESampler(seed=seed),
    "random": lambda space, seed: RandomSampler(seed),
}
PRUNERS: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
    "": optuna.pruners.NopPruner,
    "+rungs": lambda: HierarchicalPruner(first=1, factor=3),
}


def images(name: str, data: Path) -> Images:
    """A part of the images, every 2 x 2 pixels averaged; of the test images all."""
    whole = load_images(DataSettings(name=name, root=str(data), augment=("flip",)), 0)

    def halved(pixels: Any) -> torch.Tensor:
        return functional.avg_pool2d(pixels.float(), 2).round().byte()

    return dataclasses.replace(
        whole,
        train_images=halved(whole.train_images[:TRAIN]),
        train_labels=whole.train_labels[:TRAIN],
        validation_images=halved(whole.validation_images[:VALIDATION]),
        validation_labels=whole.validation_labels[:VALIDATION],
        test_images=halved(whole.test_images),
    )


@dataclasses.dataclass(frozen=True)
class Training:
    """What came of a training.

    Args:
        curve: The validation accuracy after every epoch; empty of a final training.
        test: The test accuracy in the end.
    """

    curve: list[float]
    test: float


class Memory:
    """Trainings, each done once and written to a file, one a line.

    Args:
        table: What is trained.
        data: The folder of the images.
        path: The file.
    """

    def __init__(self, table: Table, data: Path, path: Path) -> None:
        self._table, self._path = table, path
        self._images = images(table.data, data)
        self._known: dict[str, Training] = {}
        # What a kill cut off has no end of line, and is trained again.
        whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        path.write_bytes(whole + b"\n" if whole else b"")
        for line in whole.splitlines():
            key, *result = json.loads(line)
            self._known[key] = Training(*result)

    @property
    def images(self) -> Images:
        """What is trained on."""
        return self._images

    def candidate(
        self, network: Architecture, epochs: int = EPOCHS, seed: int = SHARED
    ) -> Training:
        """The training of a candidate."""
        return self._training(network, epochs, seed, self._images, slice(TEST))

    def final(self, network: Architecture) -> Training:
        """The mean training of what was found, on the validation images too."""
        pictures = self._images.with_validation_in_training()
        unseen = slice(TEST, None)
        tests = [self._training(network, FINAL_EPOCHS, s, pictures, unseen).test for s in FINALS]
        return Training([], float(np.mean(tests)))

    def _training(
        self, network: Architecture, epochs: int, seed: Any, pictures: Images, tested: slice
    ) -> Training:
        network = canonical(network)
        key = json.dumps([network.to_json(), epochs, seed])
        if key in self._known:
            return self._known[key]
        drawn = derive_seed(key)
        generator = torch.Generator().manual_seed(drawn)
        shape, options = pictures.input_shape, self._table.network
        model = build_model(network, shape, pictures.classes, generator, **options)
        trainer = Trainer(model, pictures, RECIPE, epochs=epochs, seed=drawn)
        with deterministic_algorithms(RECIPE.deterministic):
            results = [trainer.train_epoch() for _ in range(epochs)]
            test = trainer.evaluate(pictures.test_images[tested], pictures.test_labels[tested])
        judged = [r.validation_accuracy for r in results if r.validation_accuracy is not None]
        with self._path.open("a") as file:
            file.write(json.dumps([key, judged, test]) + "\n")
        self._known[key] = Training(judged, test)
        if len(self._known) % 20 == 0:
            print(f"{self._path.stem}: {len(self._known)} trainings", file=sys.stderr, flush=True)
        return self._known[key]


def canonical(network: Architecture) -> Architecture:
    """The same network with the edges of every node in one order: it is trained once."""
    if not isinstance(network, CellArchitecture):
        return network
    normal, reduce = ([sorted(node) for node in cell] for cell in (network.normal, network.reduce))
    return CellArchitecture(normal, reduce)  # type: ignore[arg-type]  # Turned into tuples.


def searched(
    memory: Memory, space: Space[Any], sampler: BaseSampler, rungs: str, seed: int
) -> list[Architecture]:
    """What a search finds within each of the budgets."""
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=PRUNERS[rungs]())
    spent, found = 0, []
    while len(found) < len(BUDGETS):
        if isinstance(sampler, MacroMicroSampler) and sampler.is_finished(study):
            return [*found, *[_pick(study, space)] * (len(BUDGETS) - len(found))]
        trial = study.ask()
        network = space.suggest(trial)
        if isinstance(sampler, MacroMicroSampler):
            epochs = trial.suggest_int("epochs", *sampler.epochs_range)
            curve = memory.candidate(network, epochs, seed + 1).curve
        else:
            curve = memory.candidate(network).curve
        epoch = _reported(trial, curve)
        while len(found) < len(BUDGETS) and spent + epoch > BUDGETS[len(found)]:
            found.append(_pick(study, space))
        pruned = {"state": TrialState.PRUNED}
        study.tell(trial, **(pruned if epoch < len(curve) else {"values": max(curve)}))
        spent += epoch
    return found


def _reported(trial: optuna.Trial, curve: list[float]) -> int:
    """Report a training to the pruner, and say after which epoch it ends."""
    for epoch, value in enumerate(curve, start=1):
        trial.report(value, epoch)
        if epoch < len(curve) and trial.should_prune():
            return epoch
    return len(curve)


def _pick(study: optuna.Study, space: Space[Any]) -> Architecture:
    """What the search would hand over now."""
    if isinstance(study.sampler, MacroMicroSampler):
        return study.sampler.candidates(study)[0][1]
    return space.from_trial(study.best_trial)


def contenders(table: Table, memory: Memory) -> Iterator[tuple[str, Maker, str]]:
    """Label, sampler and rungs of all that search a table."""
    for name, make in MAKERS.items():
        for rungs in PRUNERS:
            yield name + rungs, make, rungs
    if isinstance(table.space, ChainSpace):
        shape = {"in_channels": memory.images.in_channels, "classes": memory.images.classes}
        # So it is done within 100 epochs.
        short = {"epochs": 5, "micro_epochs": 5}
        yield "macro_micro", lambda space, _: MacroMicroSampler(space, **shape, **short), ""


def searches(memory: Memory, table: Table, seeds: int, path: Path) -> Finds:
    """What every contender finds with every seed, for each budget; as JSON in a file."""
    finds: Finds = json.loads(path.read_text()) if path.exists() else {}
    for label, make, rungs in contenders(table, memory):
        done = finds.setdefault(label, [])
        for seed in range(len(done), seeds):
            found = searched(memory, table.space, make(table.space, seed), rungs, seed)
            done.append([network.to_json() for network in found])
            path.write_text(json.dumps(finds) + "\n")
    return finds


def judged(found: dict[str, np.ndarray]) -> Iterator[str]:
    """Lines that say who finds what, and who can be told from whom.

    Args:
        found: For every label the accuracies, shape (seeds, budgets).
    """
    for at, budget in enumerate(BUDGETS):
        values = {label: 100 * rows[:, at] for label, rows in found.items()}
        order = sorted(values, key=lambda label: -values[label].mean())
        others = [label for label in order if label != "random"]
        p_values = [paired_p_value(values[label], values["random"]) for label in others]
        corrected = dict(zip(others, holm(p_values), strict=True))
        yield f"\n{budget} epochs: mean, its standard error; lead over random, 95 %, p by Holm"
        for label in order:
            error = values[label].std(ddof=1) / len(values[label]) ** 0.5
            line = f"{label:28} {values[label].mean():.2f} +- {error:.2f}"
            if label in corrected:
                lead = values[label] - values["random"]
                low, high = mean_interval(lead)
                line += f"  {lead.mean():+.2f} [{low:.2f}, {high:.2f}]  {corrected[label]:.2g}"
            yield line
        rows = [{"label": label, "finals": v.tolist()} for label, v in values.items()]
        yield "\n".join(standings_text(standings(rows)))


def perform(name: str, options: argparse.Namespace) -> Tests:
    """Search, judge, and write who finds what; how it was judged."""
    table, path = TABLES[name], options.output / name
    memory = Memory(table, options.data, path.with_suffix(".jsonl"))
    finds = searches(memory, table, options.seeds, path.with_suffix(".json"))
    read = table.space.architecture_class.from_json
    texts = {text for rows in finds.values() for row in rows for text in row}
    networks = {text: canonical(read(text)) for text in sorted(texts)}
    lines = [f"{name}, {options.seeds} seeds, {len(set(networks.values()))} networks found"]
    found: Tests = {}
    for kind, judge in (("candidate", memory.candidate), ("final", memory.final)):
        tests = {text: judge(network).test for text, network in networks.items()}
        found[kind] = {k: np.vectorize(tests.get)(rows) for k, rows in finds.items()}
        lines += [f"\nTest accuracy in percent, {kind}", *judged(found[kind])]
        if kind == "candidate":
            lines.append(_told(memory, set(networks.values())))
        path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)
    return found


def over_all(tables: list[Tests]) -> Iterator[str]:
    """Lines that say who finds what on average over the tables, of those that search them all."""
    for kind, first in tables[0].items():
        shared = [label for label in first if all(label in tests[kind] for tests in tables)]
        means = {label: np.mean([tests[kind][label] for tests in tables], 0) for label in shared}
        yield from (f"\nMean over {len(tables)} tables, {kind}", *judged(means))


def _told(memory: Memory, networks: set[Architecture]) -> str:
    """How much validation says of the test, over what was found."""
    trainings = [memory.candidate(network) for network in networks]
    tests = [training.test for training in trainings]
    told = spearman([max(training.curve) for training in trainings], tests)
    return (
        f"\nValidation and test of the {len(networks)}: Spearman {told:.2f}; "
        f"tests {100 * min(tests):.2f} to {100 * max(tests):.2f}"
    )


def main() -> None:
    """Perform the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the images.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of what comes of it.")
    parser.add_argument("--tables", default=",".join(TABLES), help="Of: %(default)s.")
    parser.add_argument("--seeds", type=int, default=40, help="Searches per strategy.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    tables = [perform(name, options) for name in options.tables.split(",")]
    if len(tables) > 1:
        print("\n".join(over_all(tables)))


if __name__ == "__main__":
    main()
