"""What a network of stages gains from a donor's weights: accuracy per epoch, on real digits.

Prints a Markdown table; the figures in docs/measurements/stage_wise.md come from here:

    python benchmarks/transfer.py [--seeds 8] [--epochs 30]

For every seed, with data split anew: a donor of (3, 3, 3) basic modules is trained for `epochs`
epochs, networks of fewer modules for as many from scratch and for a fifth of them from the
donor's weights, each with a cosine schedule of its own length. The donor sees the training split
alone. Accuracies are those of the validation split after the last epoch.
"""

import argparse
import platform
import time

import numpy as np
import torch
from torch import Tensor

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.inheritance.adapters import inherit
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import StageArchitecture

Modules = tuple[int, int, int]

DONOR: Modules = (3, 3, 3)
CANDIDATES: tuple[Modules, ...] = ((1, 1, 1), (2, 2, 2), (2, 3, 1))
RECIPE = TrainSettings(lr=0.1, weight_decay=1e-4, batch_size=64)


def trained(
    modules: Modules,
    images: Images,
    epochs: int,
    seed: int,
    weights: dict[str, Tensor] | None = None,
) -> tuple[list[float], dict[str, Tensor]]:
    """Validation accuracy after every epoch, and the weights."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(StageArchitecture(modules), images.input_shape, images.classes, generator)
    if weights is not None:
        inherit(model, weights)
    trainer = Trainer(model, images, RECIPE, epochs=epochs, seed=seed)
    curve = [trainer.train_epoch().validation_accuracy or 0.0 for _ in range(epochs)]
    return curve, model.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    few = options.epochs // 5
    donors: list[float] = []
    scratch: dict[Modules, list[list[float]]] = {modules: [] for modules in CANDIDATES}
    tuned: dict[Modules, list[list[float]]] = {modules: [] for modules in CANDIDATES}
    for seed in range(options.seeds):
        images = load_images(DataSettings(name="digits"), seed)
        curve, weights = trained(DONOR, images, options.epochs, seed)
        donors.append(curve[-1])
        for modules in CANDIDATES:
            scratch[modules].append(trained(modules, images, options.epochs, 1000 + seed)[0])
            tuned[modules].append(trained(modules, images, few, 1000 + seed, weights)[0])
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, float32")
    print(f"donor {DONOR}, {options.epochs} epochs: {_mean(donors)} (n = {options.seeds})\n")
    print(
        f"| modules | scratch, {few} epochs of {options.epochs} | scratch, {options.epochs} | "
        f"transfer, {few} | difference | seeds that got there |"
    )
    print("|---|---|---|---|---|---|")
    for modules, curves in tuned.items():
        finals = [curve[-1] for curve in scratch[modules]]
        reaches = [max(curve) >= final for curve, final in zip(curves, finals, strict=True)]
        cells = [
            _mean([curve[few - 1] for curve in scratch[modules]]),
            _mean(finals),
            _mean([curve[-1] for curve in curves]),
            _mean([curve[-1] - final for curve, final in zip(curves, finals, strict=True)]),
            f"{sum(reaches)} of {len(reaches)}",
        ]
        print(f"| {modules} | {' | '.join(cells)} |")
    print(f"\n{time.process_time() - start:.0f} s of processor time")


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.4f} +- {np.std(values, ddof=1):.4f}"


if __name__ == "__main__":
    main()
