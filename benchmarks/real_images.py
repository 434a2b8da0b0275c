"""Which strategy is worth its cost on real images: equal epochs, paired seeds, the pick retrained.

    python benchmarks/real_images.py --data FOLDER --output FOLDER [--tiny]

The data's FOLDER holds FashionMNIST/ and cifar-10-batches-py/. On a part of Fashion-MNIST and of
CIFAR-10, in the spaces `chain` and `cell`, every strategy searches for 100 and for 300 epochs
with eight seeds; then each one's network is trained fully and tested, once. A day or two on two
cores; stopped, the same command goes on. `results.json` in the output has every test accuracy,
`results.txt` the tables: who stands where, with intervals and corrected p-values.

--tiny runs the same on a few images, to see that it works.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        budgets: Epochs that a search may spend.
        seeds: Seeds of every strategy, the same for all.
        retrain: Epochs of the final training.
        samples: The fraction of the training images; None for that of ``DATA``.
    """

    budgets: tuple[int, ...] = (100, 300)
    seeds: int = 8
    retrain: int = 60
    samples: float | None = None


TINY = Scale(budgets=(18,), seeds=2, retrain=1, samples=0.004)


def study_file(data: str, space: str, options: argparse.Namespace, scale: Scale) -> StudyFile:
    """The study file of a data set and a space."""
    samples = {} if scale.samples is None else {"samples": scale.samples}
    return study_from_dict(
        {
            "study": f"{data}-{space}",
            "storage": f"journal:///{data}-{space}.log",
            "seed": 0,
            "space": SPACES[space],
            "sampler": "random",
            "data": DATA[data] | samples | {"root": str(options.data.resolve())},
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
    """Every data set, space and budget; the budgets of a study follow upon each other."""
    for data, space in itertools.product(DATA, SPACES):
        for budget in scale.budgets:
            yield (
                f"{data}, {space}, {budget} epochs",
                study_file(data, space, options, scale),
                budget,
            )


def perform(options: argparse.Namespace, scale: Scale) -> None:
    """Search, retrain and test, with everything written after every network."""
    path = options.output / "results.json"
    results: dict[str, dict[str, list[float]]] = (
        json.loads(path.read_text()) if path.exists() else {}
    )
    texts = []
    for name, config, budget in settings(options, scale):
        space = name.split(", ")[1]
        contenders = parse_contenders(",".join(STRATEGIES[space]), config)
        searched = compare(
            config,
            contenders,
            unit="epochs",
            amount=budget,
            seeds=scale.seeds,
            candidate_epochs=CANDIDATE_EPOCHS,
            on_study=lambda line: print(line, file=sys.stderr, flush=True),
        )
        done = results.setdefault(name, {})
        for seed, contender in itertools.product(range(scale.seeds), contenders):
            accuracies = done.setdefault(contender.label, [])
            if len(accuracies) > seed:
                continue
            accuracies.append(tested(config, contender, seed, budget, options.output))
            path.write_text(json.dumps(results, indent=2) + "\n")
        rows = [{"label": label, "finals": finals} for label, finals in done.items()]
        ranking = "\n".join(standings_text(standings(rows)))
        texts.append(f"{name}\n{comparison_text(searched.fields)}\n\ntest accuracy{ranking}\n")
        print(texts[-1], flush=True)
        (options.output / "results.txt").write_text("\n".join(texts))


def main() -> None:
    """Perform the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the images.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of what comes of it.")
    parser.add_argument("--tiny", action="store_true", help="A few images, to see that it works.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    options.output.mkdir(parents=True, exist_ok=True)
    perform(options, TINY if options.tiny else Scale())


if __name__ == "__main__":
    main()
