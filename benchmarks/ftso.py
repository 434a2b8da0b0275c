"""FTSO's search of topologies: what it costs, and what the topologies found are worth.

Prints Markdown tables; the figures in docs/measurements/ftso.md come from here:

    python benchmarks/ftso.py speed --data FOLDER [--device cuda] [--output F]
    python benchmarks/ftso.py topologies --data FOLDER [--seeds 5] [--output F]

FOLDER is what torchvision's data sets take as their root; for Fashion-MNIST it may also hold the
four files in fashion-mnist/. Both parts use a part of the images and end within an hour on one
core; `--images 0` takes all.

speed: one iteration and one epoch of the super-network with nothing but skip connections beside
the same with the eight operations of PC-DARTS, on the same batches, each in a process of its own.

topologies: per seed the topology after one epoch, the one after one iteration and a random one,
all edges 3x3 separable convolutions, trained alike and judged by images that the search never
saw. What the output file has is not trained again.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Row, Turn, about, alternate, contest, measure, timed

from optnas.config.settings import DataSettings, TrainSettings
from optnas.experiments.statistics import greater_p_value, mean_interval
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.networks.build import build_model, build_supernet
from optnas.objectives.training.bilevel import BilevelTrainer, SearchRecipe
from optnas.objectives.training.memory import peak_memory
from optnas.objectives.training.trainer import Trainer
from optnas.samplers.ftso import topology
from optnas.seeds import derive_seed
from optnas.spaces import CellSpace, Topology, TopologySpace
from optnas.spaces.cell import OPERATIONS

SPACE = TopologySpace(CellSpace())
NETWORKS = {"skip": ("skip_connect",), "all": OPERATIONS}
EPOCHS_OF_PC_DARTS = 50
# The trainings of `topologies` are short: small batches and a high rate take them far enough.
RECIPE = TrainSettings(lr=0.1, batch_size=32)


def images_of(options: argparse.Namespace) -> Images:
    """The data set with the training images and in the size that the options leave."""
    with tempfile.TemporaryDirectory() as folder:
        root = options.data
        if (root / "fashion-mnist").is_dir():
            raw = Path(folder) / "FashionMNIST" / "raw"
            raw.mkdir(parents=True)
            for path in (root / "fashion-mnist").iterdir():
                (raw / path.name).symlink_to(path.resolve())
            root = Path(folder)
        settings = {"name": options.dataset, "root": str(root), "augment": ()}
        settings["validation"] = options.held_out
        images = load_images(DataSettings.model_validate(settings), 0)
    if options.side:
        images = images.reduced(lambda _: options.side)
    chosen = slice(options.images or None)
    return dataclasses.replace(
        images,
        train_images=images.train_images[chosen].clone(),
        train_labels=images.train_labels[chosen].clone(),
    )


def searching(
    network: str,
    images: Images,
    iterations: int | None,
    batch_size: int,
    size: dict[str, int],
    seed: int = 0,
    epochs: int = 1,
) -> BilevelTrainer:
    """The search of a topology with a super-network, at its beginning."""
    generator = torch.Generator().manual_seed(seed)
    model = build_supernet(
        SPACE.space,
        images.input_shape,
        images.classes,
        generator,
        operations=NETWORKS[network],
        **size,
    )
    settings = TrainSettings(batch_size=batch_size)
    recipe = SearchRecipe(iterations=iterations or None)
    return BilevelTrainer(model, images, settings, recipe, epochs=epochs, seed=seed)


def prepare(
    network: str, images: Images, iterations: int | None, device: str, options: dict[str, Any]
) -> Callable[[], tuple[int, int]]:
    """An epoch or some iterations; it returns the memory before the first and the most ever."""
    torch.set_num_threads(1)
    nobody = {"validation_images": images.validation_images[:0]}
    nobody["validation_labels"] = images.validation_labels[:0]
    images = dataclasses.replace(images, **nobody).to(device)
    trainer = searching(network, images, iterations, **options, epochs=1000)
    start = peak_memory(trainer.device) or 0

    def work() -> tuple[int, int]:
        trainer.train_epoch()
        return start, peak_memory(trainer.device) or 0

    return work


def comparison(
    images: Images, iterations: int | None, device: str, options: dict[str, Any], repeats: int
) -> Row:
    """Skip connections alone beside all operations, in turn."""
    memory: dict[str, tuple[int, int]] = {}
    sides = [(prepare, name, images, iterations, device, options) for name in NETWORKS]

    def remembering(name: str, work: Callable[[], Turn]) -> Turn:
        turn = work()
        memory[name] = turn.result
        return turn

    with contest(*sides) as works:
        ours, theirs = (
            (lambda name=name, work=work: remembering(name, work))
            for name, work in zip(NETWORKS, works, strict=True)
        )
        row = alternate(ours, theirs, repeats)
    notes = {
        f"MB {name}": f"{peak / 1e6:.0f} ({(peak - start) / 1e6:.0f} above the start)"
        for name, (start, peak) in memory.items()
    }
    return dataclasses.replace(row, notes=notes)


def speed(options: argparse.Namespace) -> None:
    images = images_of(options)
    size = {"cells": options.cells or 8, "channels": options.channels or 16}
    common = {"batch_size": options.batch_size, "size": size}
    cases = [
        (
            name,
            lambda n=iterations: comparison(images, n, options.device, common, options.repeats),
        )
        for name, iterations in (("one iteration", 1), ("one epoch", None))
    ]
    print(f"{options.dataset}, {len(images.train_images)} images, half of them for the weights,")
    print(f"batches of {options.batch_size}, {size}; the rival is PC-DARTS, one thread each")
    rows = measure(cases, options.output, options.device)
    theirs = EPOCHS_OF_PC_DARTS * rows["one epoch"].rival
    print(f"\nA search of {EPOCHS_OF_PC_DARTS} epochs by PC-DARTS, extrapolated: {theirs:.0f} s")
    for name, row in rows.items():
        print(f"- beside {name} of skip connections: {theirs / row.product:.0f} times as long")


def found(images: Images, seed: int, options: argparse.Namespace, steps: int | None) -> Topology:
    """The two strongest predecessors of every node after so many steps; None: after an epoch."""
    size = {"cells": 8, "channels": 16}
    trainer = searching("skip", images, steps, options.batch_size, size, seed)
    if steps != 0:
        trainer.train_epoch()
    return SPACE.topology([topology(nodes) for nodes in trainer.model.edge_weights().values()])


def accuracy(images: Images, found: Topology, seed: int, options: argparse.Namespace) -> float:
    """Fraction of the held-out images that its network gets right after its training."""
    model = build_model(
        SPACE.architecture(found, "sep_conv_3x3"),
        images.input_shape,
        images.classes,
        torch.Generator().manual_seed(seed),
        cells=options.cells or 5,
        channels=options.channels or 8,
        concat="all",
    ).to(options.device)
    held_out = images.validation_images, images.validation_labels
    nobody = {"validation_images": held_out[0][:0], "validation_labels": held_out[1][:0]}
    trainer = Trainer(
        model, dataclasses.replace(images, **nobody), RECIPE, epochs=options.epochs, seed=seed
    )
    for _ in range(options.epochs):
        trainer.train_epoch()
    return trainer.evaluate(*held_out)


def results(images: Images, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is to be measured, seed by seed: a name and what makes it."""
    for seed in range(options.seeds):
        rng = np.random.default_rng(derive_seed("random topology", seed))
        makers: dict[str, Callable[[], Topology]] = {
            "fresh weights": lambda s=seed: found(images, s, options, 0),
            "one iteration": lambda s=seed: found(images, s, options, 1),
            "one epoch": lambda s=seed: found(images, s, options, None),
            "random": lambda r=rng: SPACE.random(r),
        }
        for kind, make in makers.items():
            yield f"{kind}, seed {seed}", {"kind": kind, "seed": seed, "make": make}


def topologies(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    images = images_of(options).to(options.device)
    settings = {
        k: v for k, v in vars(options).items() if k not in ("part", "output", "seeds", "data")
    }
    known: dict[str, Any] = {}
    if options.output is not None and options.output.exists():
        stored = json.loads(options.output.read_text())
        if stored["options"] != settings:
            raise SystemExit(f"{options.output} was made with other options: {stored['options']}")
        known = stored["results"]
    environment = about(options.device)
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    for name, task in results(images, options):
        if name not in known:
            turn = timed(task["make"])
            # The topology of fresh weights is only compared: it is a random one.
            trained = task["kind"] != "fresh weights"
            known[name] = {
                "kind": task["kind"],
                "seconds": turn.seconds,
                "topology": SPACE.to_params(turn.result),
                "accuracy": accuracy(images, turn.result, task["seed"], options)
                if trained
                else None,
            }
            if options.output is not None:
                partial = options.output.with_suffix(".part")
                content = {"about": environment, "options": settings, "results": known}
                partial.write_text(json.dumps(content, indent=1) + "\n")
                partial.replace(options.output)
        kept = " ".join(known[name]["topology"].values())
        print(f"{name}: {known[name]['accuracy']} {kept}", flush=True)
    summarise(known)


def summarise(known: dict[str, Any]) -> None:
    """Accuracies by kind, whether one is greater than another, and what the search changed."""
    by_kind: dict[str, list[float]] = {}
    for result in known.values():
        if result["accuracy"] is not None:
            by_kind.setdefault(result["kind"], []).append(result["accuracy"])
    print(
        "\n| topology | n | mean | standard deviation | 95 % of the mean | seconds to find it |"
        "\n|---|---|---|---|---|---|"
    )
    for kind, values in by_kind.items():
        low, high = mean_interval(values)
        seconds = np.mean([r["seconds"] for r in known.values() if r["kind"] == kind])
        print(
            f"| {kind} | {len(values)} | {np.mean(values):.4f} | {np.std(values, ddof=1):.4f} "
            f"| {low:.4f} to {high:.4f} | {seconds:.2g} |"
        )
    print("\n| greater | than | p (Mann-Whitney, one-sided) |\n|---|---|---|")
    for a, b in itertools.permutations(by_kind, 2):
        print(f"| {a} | {b} | {greater_p_value(by_kind[a], by_kind[b]):.3f} |")
    print("\nNodes whose predecessors the search changed from those of the fresh weights:")
    for kind in ("one iteration", "one epoch"):
        shares = [
            _changed(
                known[name]["topology"], known[name.replace(kind, "fresh weights")]["topology"]
            )
            for name in known
            if known[name]["kind"] == kind
        ]
        print(f"- {kind}: {np.mean(shares):.0%}")


def _changed(after: dict[str, str], before: dict[str, str]) -> float:
    """Share of the nodes with a choice whose predecessors differ."""
    free = [name for name, choices in SPACE.choices.items() if len(choices) > 1]
    return sum(after[name] != before[name] for name in free) / len(free)


def main() -> None:
    parts = {"speed": speed, "topologies": topologies}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=parts)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--images", type=int, default=2000, help="Training images; 0: all.")
    parser.add_argument("--held-out", type=int, default=2000, help="Images that judge.")
    parser.add_argument("--side", type=int, help="Height and width to reduce the images to.")
    parser.add_argument("--cells", type=int, help="Of the network that is measured or trained.")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--batch-size", type=int, default=64, help="Of the searches.")
    parser.add_argument("--repeats", type=int, default=5, help="Of speed.")
    parser.add_argument("--seeds", type=int, default=5, help="Of topologies.")
    parser.add_argument("--epochs", type=int, default=6, help="Of a training of topologies.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    parts[options.part](options)


if __name__ == "__main__":
    main()
