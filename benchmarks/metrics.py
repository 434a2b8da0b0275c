"""What a search finds by macro-F1 and what by accuracy, where classes differ in size.

    python benchmarks/metrics.py --data FOLDER --output FOLDER [--seeds 5] [--tiny]

The data's FOLDER holds FashionMNIST/. For every seed a part of it is drawn whose largest class has
20 times the images of the smallest, in training and in the test; which class is how large is
drawn too. Two searches of the same seed and budget maximise either metric; each one's network is
trained fully and tested once. Ten minutes on one core; stopped, the same command goes on. Told are
both networks' figures with 95 % intervals and the paired differences; `results.json` in the
output has every confusion matrix.
"""

import argparse
import dataclasses
import json
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from _harness import about
from PIL import Image
from scipy.stats import t as student

from optnas.config.file import study_from_dict
from optnas.config.settings import DataSettings
from optnas.objectives.data.images import load_images
from optnas.objectives.kept.descriptions import describe
from optnas.running.retraining import retrain_found
from optnas.running.runner import run
from optnas.study.opening import open_study

METRICS = ("macro_f1", "accuracy")
JUDGED = ("macro_f1", "accuracy", "balanced_accuracy")
RATIO = 20
"""How many times the smallest class's images the largest has."""
RESAMPLED = 2000


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is done.

    Args:
        training: Training images of the largest class.
        tests: Test images of the largest class.
        trials: Networks that a search trains.
        epochs: Epochs of each of these.
        retrain: Epochs of the final training.
    """

    training: int = 500
    tests: int = 1000
    trials: int = 10
    epochs: int = 3
    retrain: int = 15


TINY = Scale(training=60, tests=40, trials=3, epochs=1, retrain=1)


def write_images(data: Path, folder: Path, seed: int, scale: Scale) -> None:
    """A folder of training and test images, unbalanced alike, drawn by a seed."""
    if (folder / "done").exists():
        return
    rng = np.random.default_rng(seed)
    images = load_images(DataSettings(name="fashion_mnist", root=str(data)), seed=0)
    whole = images.with_validation_in_training()
    places = rng.permutation(images.classes)
    parts = {
        "train": (scale.training, whole.train_images, whole.train_labels),
        "test": (scale.tests, images.test_images, images.test_labels),
    }
    for split, (most, pixels, labels) in parts.items():
        for label, place in enumerate(places):
            count = round(most * RATIO ** (-place / (images.classes - 1)))
            found = np.flatnonzero(labels.numpy() == label)
            name = images.class_names[label].replace("/", "-")
            target = folder / split / name
            target.mkdir(parents=True, exist_ok=True)
            for index in rng.choice(found, count, replace=False):
                Image.fromarray(pixels[int(index), 0].numpy()).save(target / f"{index}.png")
    (folder / "done").touch()


def searched(folder: Path, images: Path, metric: str, seed: int, scale: Scale) -> dict[str, Any]:
    """Search, train what was found, test it: its figures on the test images."""
    config = study_from_dict(
        {
            "study": f"{metric}-{seed}",
            "storage": f"journal:///{metric}-{seed}.log",
            "seed": seed,
            "space": {"name": "chain", "depth": [2, 6], "width": [8, 20]},
            "sampler": {"name": "surrogate", "initial": min(5, scale.trials)},
            "objective": {"name": "classification", "metric": metric},
            "data": {"name": "images", "root": str(images), "size": 14, "validation": 0.25},
            "train": {"epochs": scale.epochs, "lr": 0.05},
            "budget": {"trials": scale.trials},
            "retrain": {"epochs": scale.retrain},
            "checkpoint": {"every": scale.epochs},
        },
        folder,
    )
    run(config, device="cpu")
    network = folder / f"{metric}-{seed}.network"
    for _ in retrain_found(open_study(config), top=1, output=network, device="cpu"):
        pass
    described = describe(network)
    assert described is not None
    judgement = described.judgement
    assert judgement is not None
    return {
        "architecture": described.architecture,
        "params": described.params,
        "images": judgement.images,
        "confusion": judgement.confusion,
    }


def figures(confusion: np.ndarray) -> np.ndarray:
    """Macro-F1, accuracy and balanced accuracy, on a last axis, of tables (..., K, K)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, named = confusion.sum(-1), confusion.sum(-2)
    f1 = 2 * right / np.maximum(true + named, 1)
    recall = right / np.maximum(true, 1)
    return np.stack([f1.mean(-1), right.sum(-1) / true.sum(-1), recall.mean(-1)], axis=-1)


def with_interval(confusion: list[list[int]]) -> list[tuple[float, float, float]]:
    """Each of `JUDGED`, and the 95 % interval of test images drawn anew (bootstrap)."""
    table = np.array(confusion)
    total = int(table.sum())
    drawn = np.random.default_rng(0).multinomial(total, table.ravel() / total, RESAMPLED)
    low, high = np.quantile(figures(drawn.reshape(-1, *table.shape)), [0.025, 0.975], axis=0)
    return [tuple(map(float, each)) for each in zip(figures(table), low, high, strict=True)]


def mean_interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval (t)."""
    if len(values) < 2:
        return values[0], float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), float(student.ppf(0.975, len(values) - 1)) * error


def report(done: dict[str, dict[str, Any]], seeds: int) -> str:
    """Tables of every network, and of the paired differences."""
    lines = ["| seed | searched by | parameters | macro-F1 | accuracy | balanced accuracy |"]
    lines.append("|---|---|---|---|---|---|")
    values: dict[str, list[list[float]]] = {metric: [] for metric in METRICS}
    for seed in range(seeds):
        for metric in METRICS:
            made = done[f"{metric}-{seed}"]
            found = with_interval(made["confusion"])
            values[metric].append([each[0] for each in found])
            cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in found]
            name = metric.replace("_", "-")
            lines.append(f"| {seed} | {name} | {made['params']:,} | {' | '.join(cells)} |")
    lines += ["", f"| mean of {seeds}, 95 % (t) | macro-F1 | accuracy | balanced accuracy |"]
    lines.append("|---|---|---|---|")
    rows = {f"searched by {metric.replace('_', '-')}": values[metric] for metric in METRICS}
    pairs = zip(*(values[metric] for metric in METRICS), strict=True)
    rows["paired difference"] = [
        [a - b for a, b in zip(first, second, strict=True)] for first, second in pairs
    ]
    for name, each in rows.items():
        sign = "+" if name.startswith("paired") else ""
        cells = [
            f"{mean:{sign}.4f} +- {half:.4f}"
            for mean, half in (mean_interval(list(column)) for column in zip(*each, strict=True))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the images.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of what comes of it.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="A few images, to see that it works.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    scale = TINY if options.tiny else Scale()
    folder = options.output.resolve()
    path = folder / "results.json"
    stored = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    done: dict[str, dict[str, Any]] = stored["networks"]
    for seed in range(options.seeds):
        images = folder / f"images-{seed}"
        write_images(options.data, images, seed, scale)
        for metric in METRICS:
            if f"{metric}-{seed}" not in done:
                done[f"{metric}-{seed}"] = searched(folder, images, metric, seed, scale)
                fields = {"about": about(), "scale": dataclasses.asdict(scale), "networks": done}
                path.write_text(json.dumps(fields, indent=1) + "\n")
    print(report(done, options.seeds))


if __name__ == "__main__":
    main()
