"""Which strategy is worth its cost on real images: equal epochs, paired seeds, the pick retrained.

    python benchmarks/real_images.py --data FOLDER --output FOLDER [--halved | --tiny]

The data's FOLDER holds FashionMNIST/ and cifar-10-batches-py/. On a part of Fashion-MNIST and of
CIFAR-10, in the spaces `chain` and `cell`, every strategy searches for 100 and for 300 epochs
with eight seeds; then each one's network is trained fully and tested, once. A week on one core;
stopped, the same command goes on. `results.json` in the output has every test accuracy,
`results.txt` the tables: who stands where, with intervals and corrected p-values, after the seeds
that every strategy has.

--halved takes Fashion-MNIST alone, at half the resolution (14 x 14), 2,000 images of it: an hour
or two for 100 epochs. --tiny runs that on a few images, to see that it works.
"""

import argparse
import dataclasses
import gzip
import itertools
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from optnas.config.file import StudyFile, study_from_dict
from optnas.experiments.comparison import compare, study_of
from optnas.experiments.comparison_report import comparison_text, standings_text
from optnas.experiments.contenders import Contender, parse_contenders
from optnas.experiments.standings import standings
from optnas.running.retraining import retrain_found
from optnas.study.opening import open_study

DATA = {
    # A twenty-fifth of the training images: 2,400 and 2,000.
    "fashion_mnist": {"name": "fashion_mnist", "samples": 0.04},
    "cifar10": {"name": "cifar10", "samples": 0.04},
}
SPACES: dict[str, dict[str, Any]] = {
    "chain": {"name": "chain", "depth": [3, 8], "width": [8, 24]},
    "cell": {"name": "cell", "nodes": 2},
}
NETWORK = {"cell": {"cells": 3, "channels": 8}}
GEOMETRIC = "{name: hierarchical, first: 1, factor: 3}"
"""Rungs at 1, 3 and 9 epochs: a candidate trains nine."""
CANDIDATE_EPOCHS = 9
STRATEGIES = {
    "chain": (
        "{name: macro_micro, epochs: 3, micro_epochs: 2}",
        "econas",
        f"{{name: econas, pruner: {GEOMETRIC}}}",
        "surrogate",
        f"{{name: surrogate, pruner: {GEOMETRIC}}}",
        "local_search",
        "tpe",
        "random",
    ),
}
STRATEGIES["cell"] = STRATEGIES["chain"][1:]


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is done.

    Args:
        data: Of ``DATA``.
        halved: Whether images have half the resolution.
        budgets: Epochs that a search may spend.
        seeds: Seeds of every strategy, the same for all.
        retrain: Epochs of the final training.
        samples: The fraction of the training images; None for that of ``DATA``.
    """

    data: tuple[str, ...] = tuple(DATA)
    halved: bool = False
    budgets: tuple[int, ...] = (100, 300)
    seeds: int = 8
    retrain: int = 60
    samples: float | None = None


HALVED = Scale(data=("fashion_mnist",), halved=True, retrain=30, samples=1 / 30)
TINY = dataclasses.replace(HALVED, budgets=(18,), seeds=2, retrain=1, samples=0.004)


def halve(source: Path, target: Path) -> None:
    """Write Fashion-MNIST with every 2 x 2 pixels averaged, in the same format."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*labels*.gz"):
        (target / path.name).write_bytes(path.read_bytes())
    for path in source.glob("*images*.gz"):
        content = gzip.decompress(path.read_bytes())
        images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 14, 2, 14, 2)
        shape = np.array([len(images), 14, 14], ">i4").tobytes()
        pixels = images.mean(axis=(2, 4)).round().astype(np.uint8).tobytes()
        (target / path.name).write_bytes(gzip.compress(content[:4] + shape + pixels))


def study_file(data: str, space: str, options: argparse.Namespace, scale: Scale) -> StudyFile:
    """The study file of a data set and a space."""
    samples = {} if scale.samples is None else {"samples": scale.samples}
    root = options.output / "halved" if scale.halved else options.data
    # The crop of this data set is of images of 28 pixels.
    augment = {"augment": ["flip"]} if scale.halved else {}
    return study_from_dict(
        {
            "study": f"{data}-{space}",
            "storage": f"journal:///{data}-{space}.log",
            "seed": 0,
            "space": SPACES[space],
            "sampler": "random",
            "data": DATA[data] | samples | augment | {"root": str(root.resolve())},
            "train": {"lr": 0.05, "batch_size": 32},
            "network": NETWORK.get(space, {}),
            "retrain": {"epochs": scale.retrain},
            # The weights of a study are a hundred times its record, and nobody needs them.
            "checkpoint": {"every": CANDIDATE_EPOCHS},
        },
        options.output,
    )


def tested(config: StudyFile, contender: Contender, seed: int, budget: int, output: Path) -> float:
    """Test accuracy of what a search has found, trained fully."""
    variant_config = study_of(config, contender, seed, "epochs", budget, CANDIDATE_EPOCHS)
    folder = output / "networks" / f"{variant_config.study}-{budget}"
    reports = list(retrain_found(open_study(variant_config), top=1, output=folder))
    accuracy: float = reports[0].fields["test_accuracy"]
    return accuracy


def settings(options: argparse.Namespace, scale: Scale) -> Iterator[tuple[str, StudyFile, int]]:
    """Every data set, budget and space; the budgets of a study follow upon each other."""
    for data, budget, space in itertools.product(scale.data, scale.budgets, SPACES):
        name = f"{data}, {space}, {budget} epochs"
        yield name, study_file(data, space, options, scale), budget


def perform(options: argparse.Namespace, scale: Scale) -> None:
    """Search, retrain and test seed by seed, with everything written after every network."""
    path = options.output / "results.json"
    results: dict[str, dict[str, list[float]]] = (
        json.loads(path.read_text()) if path.exists() else {}
    )
    texts: dict[str, str] = {}
    for name, config, budget in settings(options, scale):
        contenders = parse_contenders(",".join(STRATEGIES[name.split(", ")[1]]), config)
        done = results.setdefault(name, {})
        for seed in range(scale.seeds):
            searched = compare(
                config,
                contenders,
                unit="epochs",
                amount=budget,
                seeds=seed + 1,
                candidate_epochs=CANDIDATE_EPOCHS,
            )
            for contender in contenders:
                accuracies = done.setdefault(contender.label, [])
                if len(accuracies) > seed:
                    continue
                accuracies.append(tested(config, contender, seed, budget, options.output))
                path.write_text(json.dumps(results, indent=2) + "\n")
            texts[name] = f"{name}\n{comparison_text(searched.fields)}\n\n{_tests(done, seed + 1)}"
            (options.output / "results.txt").write_text("\n".join(texts.values()))
            print(f"{name}: {seed + 1} of {scale.seeds} seeds", file=sys.stderr, flush=True)


def _tests(accuracies: Mapping[str, list[float]], seeds: int) -> str:
    """Mean test accuracies over the first seeds, and who cannot be told from the first."""
    rows = [{"label": label, "finals": some[:seeds]} for label, some in accuracies.items()]
    means = [f"{row['label']:40} {np.mean(row['finals']):.4f}" for row in rows]
    return "\n".join(["test accuracy", *means, *standings_text(standings(rows)), ""])


def main() -> None:
    """Perform the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the images.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of what comes of it.")
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--halved", action="store_true", help="Fashion-MNIST at 14 x 14.")
    less.add_argument("--tiny", action="store_true", help="A few images, to see that it works.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    scale = TINY if options.tiny else HALVED if options.halved else Scale()
    if scale.halved:
        raw = Path("FashionMNIST", "raw")
        halve(options.data / raw, options.output / "halved" / raw)
    perform(options, scale)


if __name__ == "__main__":
    main()
