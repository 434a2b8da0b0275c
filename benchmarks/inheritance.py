"""What a child gains from its parent's weights: epochs until it is as good, on real digits.

Prints Markdown tables; the figures in docs/measurements/randgrow.md come from here:

    python benchmarks/inheritance.py [--children 20] [--searches 5] [PART ...]

Parts: growth (children of one network, with inherited weights, with gates too, and from
scratch), chain (the macro-micro search with and without inheritance); both by default.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wilcoxon

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import GrowthArchitecture, GrowthSpace

SPACE = GrowthSpace(cells=1, channels=8)
RECIPE = TrainSettings(lr=0.1, weight_decay=1e-4)
EPOCHS = 20
INITIAL_EPOCHS = 40
TARGETS = (0.90, 0.95, 0.97)


def trained(
    architecture: GrowthArchitecture,
    images: Images,
    epochs: int,
    seed: int,
    *,
    weights: dict[str, torch.Tensor] | None = None,
    gate: bool = False,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Validation accuracy after every epoch, and the weights."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(architecture, images.input_shape, images.classes, generator, gate=gate)
    if weights is not None:
        inherit(model, weights)
    trainer = Trainer(model, images, RECIPE, epochs=epochs, seed=seed)
    accuracies = [trainer.train_epoch().validation_accuracy or 0.0 for _ in range(epochs)]
    return accuracies, model.state_dict()


def growth(children: int) -> None:
    images = load_images(DataSettings(name="digits"), 0)
    curves: dict[str, list[list[float]]] = {"scratch": [], "inherited": [], "gated": []}
    for child in range(children):
        # A parent of its own for every child, so that the children are independent.
        _, weights = trained(SPACE.initial(), images, INITIAL_EPOCHS, child)
        architecture = SPACE.grow(SPACE.initial(), child)
        seed = 1000 + child
        for name, options in {
            "scratch": {},
            "inherited": {"weights": weights},
            "gated": {"weights": weights, "gate": True},
        }.items():
            curves[name].append(trained(architecture, images, EPOCHS, seed, **options)[0])
    print(
        f"\nChildren of a network of {INITIAL_EPOCHS} epochs, {EPOCHS} epochs each, n = {children}"
    )
    print(
        "| target | scratch | inherited | gated | p inherited | p gated |\n"
        "|---|---|---|---|---|---|"
    )
    for target in TARGETS:
        epochs = {name: [first(curve, target) for curve in c] for name, c in curves.items()}
        cells = [f"{np.mean(e):.1f} +- {np.std(e, ddof=1):.1f}" for e in epochs.values()]
        p = [wilcoxon(epochs["scratch"], epochs[name]).pvalue for name in ("inherited", "gated")]
        print(f"| {target:.2f} | {' | '.join(cells)} | {p[0]:.1e} | {p[1]:.1e} |")
    finals = {name: [max(curve) for curve in c] for name, c in curves.items()}
    cells = [f"{np.mean(f):.4f} +- {np.std(f, ddof=1):.4f}" for f in finals.values()]
    p = [wilcoxon(finals["scratch"], finals[name]).pvalue for name in ("inherited", "gated")]
    print(f"| best accuracy | {' | '.join(cells)} | {p[0]:.1e} | {p[1]:.1e} |")


def first(curve: list[float], target: float) -> int:
    """Epochs until the target, one more than there were if it was never reached."""
    return next((n for n, value in enumerate(curve, 1) if value >= target), len(curve) + 1)


def chain(searches: int) -> None:
    print(f"\nMacro-micro search on digits, n = {searches} seeds each")
    print("| inherit | value of the answer | trials | epochs | seconds |\n|---|---|---|---|---|")
    for inherits in (False, True):
        rows = []
        for seed in range(searches):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(search(Path(folder), seed, inherits))
        values = np.array(rows)
        mean, std = values.mean(0), values.std(0, ddof=1)
        cells = [f"{m:.4g} +- {s:.2g}" for m, s in zip(mean, std, strict=True)]
        print(f"| {inherits} | {' | '.join(cells)} |", flush=True)


def search(folder: Path, seed: int, inherits: bool) -> tuple[float, int, int, float]:
    sampler = {"name": "macro_micro", "width_step": 2, "epochs": 3, "micro_epochs": 2}
    start = time.process_time()
    outcome = optnas.run(
        {
            "study": "chain",
            "storage": f"journal:///{folder}/chain.log",
            "seed": seed,
            "space": {"name": "chain", "depth": [4, 8], "width": [6, 12]},
            "sampler": {**sampler, "inherit": inherits},
            "data": "digits",
            "train": {"lr": 0.1},
        }
    )
    trials = outcome.study.get_trials(deepcopy=False)
    macro = [t for t in trials if t.user_attrs.get("phase") in ("depth", "width")]
    return (
        max(t.value for t in macro if t.value is not None),
        len(trials),
        sum(len(t.intermediate_values) for t in trials),
        time.process_time() - start,
    )


def main() -> None:
    parts = {"growth": growth, "chain": chain}
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, []], metavar="PART")
    parser.add_argument("--children", type=int, default=20)
    parser.add_argument("--searches", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, float32")
    counts = {"growth": options.children, "chain": options.searches}
    for part in options.parts or parts:
        parts[part](counts[part])


if __name__ == "__main__":
    main()
