"""Whether a training learns as much with optnas's own kernels and shapes as with PyTorch's alone.

    python benchmarks/equivalence.py [--device cuda] [--seeds 5] [--epochs 4] [--output FILE]

Every seed trains a chain on digits twice, from the same weights on the same images in the same
order: with `kernels: auto` (kernels in Triton, channels in eights, filled batches, parameters side
by side) and with `kernels: torch`. The validation accuracies are compared pair by pair by two
one-sided t-tests: the larger of their p-values is that of a difference of `--margin` or more.
Where there is no GPU, Triton's interpreter runs the kernels on the CPU, which takes minutes for a
seed; with `--rounding` torch's operations stand for them that round where they do, which takes a
second: sums are in another order then.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")  # Read once, by Triton; undone below for a GPU.


@dataclasses.dataclass(frozen=True)
class Pair:
    """A seed.

    Args:
        seed: The seed.
        own: Validation accuracy with optnas's own kernels.
        torch: The same with PyTorch's alone.
        own_loss: Training loss of the last epoch with optnas's own kernels.
        torch_loss: The same with PyTorch's alone.
        seconds: Of both trainings.
    """

    seed: int
    own: float
    torch: float
    own_loss: float
    torch_loss: float
    seconds: float


def interpreted() -> None:
    """Have trainings on the CPU run kernels as on CUDA, with tiles that suit the interpreter."""
    round_as_devices_do()
    from optnas.objectives.kernels import Blocks, convolution, networks, normalisation
    from optnas.objectives.training import acceleration, steps

    def are_accelerated(settings: Any, _: Any) -> bool:
        return bool(settings.kernels == "auto")

    blocks = Blocks(rows=4096, channels=16, chunks=1)
    changes: list[tuple[Any, str, Any]] = [
        (networks, "are_supported", lambda _: True),
        (acceleration, "is_accelerated", are_accelerated),
        (steps, "is_accelerated", are_accelerated),
        (convolution, "BLOCKS", blocks),
        (convolution, "GRADIENT_BLOCKS", blocks),
        (normalisation, "BLOCKS", blocks),
    ]
    for where, name, value in changes:
        setattr(where, name, value)


def rounding() -> None:
    """Have operations of torch stand for the kernels, in float32, rounded where these round."""
    import torch
    from torch import Tensor
    from torch.nn import functional

    from optnas.objectives.kernels import networks

    def depthwise(
        x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int, *, relu: bool
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            seen = functional.relu(x.float()) if relu else x.float()
            y = functional.conv2d(seen, weight, None, stride, padding, dilation, len(weight))
            return y.to(x.dtype)

    def batch_norm_relu(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        var: Tensor,
        training: bool,
        momentum: float,
        eps: float,
        relu: bool,
        count: int | None,
        *,
        batches: Tensor,
    ) -> Tensor:
        batches += training
        keys = {"training": training, "momentum": momentum, "eps": eps}
        with torch.autocast("cpu", enabled=False):
            y = functional.batch_norm(x[:count].float(), mean, var, weight, bias, **keys)
            y = (functional.relu(y) if relu else y).to(x.dtype)
        return functional.pad(y, (0, 0) * 3 + (0, len(x) - len(y)))

    changes = {"depthwise": depthwise, "batch_norm_relu": batch_norm_relu}
    for name, value in changes.items():
        setattr(networks, name, value)


def round_as_devices_do() -> None:
    """Have Triton's interpreter round to bfloat16: it cuts the digits off, which adds up."""
    import numpy as np
    import torch
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def converted(values: Any, kind: Any, wanted: Any, mode: Any) -> Any:
        if (str(kind), str(wanted)) != ("fp32", "bf16"):
            return convert(values, kind, wanted, mode)
        floats = torch.from_numpy(np.ascontiguousarray(values))
        return floats.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)

    interpreter._convert_float = converted


def trained(seed: int, kernels: str, options: argparse.Namespace) -> Any:
    """A training to its end."""
    import torch

    from optnas.config.settings import DataSettings, TrainSettings
    from optnas.objectives.data.images import load_images
    from optnas.objectives.networks.build import build_model
    from optnas.objectives.training.trainer import Trainer
    from optnas.spaces import ChainArchitecture

    images = load_images(DataSettings(name="digits", samples=options.samples), seed=0)
    generator = torch.Generator().manual_seed(seed)
    architecture = ChainArchitecture(options.depth, options.width)
    model = build_model(architecture, images.input_shape, images.classes, generator)
    recipe = TrainSettings(batch_size=64, lr=0.1, kernels=kernels, precision=options.precision)
    images = images.to(torch.device(options.device))
    trainer = Trainer(model, images, recipe, epochs=options.epochs, seed=seed)
    for _ in range(options.epochs):
        trainer.train_epoch()
    return trainer.history[-1]


def pairs(options: argparse.Namespace) -> Iterator[Pair]:
    """Both trainings of every seed."""
    for seed in range(options.seeds):
        start = time.perf_counter()
        own, torch = (trained(seed, kernels, options) for kernels in ("auto", "torch"))
        took = time.perf_counter() - start
        accuracies = own.validation_accuracy, torch.validation_accuracy
        yield Pair(seed, *accuracies, own.train_loss, torch.train_loss, took)


def p_of_difference(found: list[Pair], margin: float) -> float:
    """The p-value of the hypothesis that the mean accuracies differ by ``margin`` or more."""
    from scipy.stats import ttest_1samp

    differences = [pair.own - pair.torch for pair in found]
    if len(set(differences)) == 1:  # Without spread a t-test says nothing.
        return 0.0 if abs(differences[0]) < margin else 1.0
    below = ttest_1samp(differences, -margin, alternative="greater").pvalue
    above = ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(below, above))


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--width", type=int, default=11, help="No multiple of 8 is filled up.")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--samples", type=float, default=1.0, help="Share of the images.")
    parser.add_argument("--margin", type=float, default=0.01, help="Accuracy that matters.")
    parser.add_argument("--rounding", action="store_true", help="No kernels; on the CPU.")
    parser.add_argument("--output", type=Path, help="JSON file.")
    return parser.parse_args()


def main() -> None:
    """Train, and print a line for every seed and the test."""
    options = arguments()
    if options.device == "cpu":
        interpreted()
        if options.rounding:
            rounding()
    else:
        del os.environ["TRITON_INTERPRET"]
    import torch

    torch.set_num_threads(1)
    show: Callable[..., None] = functools.partial(print, flush=True)
    show("| seed | auto | torch | loss, auto | loss, torch | seconds |\n|---|---|---|---|---|---|")
    found = []
    for pair in pairs(options):
        found.append(pair)
        show(
            f"| {pair.seed} | {pair.own:.4f} | {pair.torch:.4f} | {pair.own_loss:.4f} | "
            f"{pair.torch_loss:.4f} | {pair.seconds:.0f} |"
        )
    mean = statistics.mean(pair.own - pair.torch for pair in found)
    p = p_of_difference(found, options.margin) if len(found) > 1 else None
    show(
        f"\nmean difference {mean:+.4f}, n = {len(found)}; "
        f"p = {'-' if p is None else f'{p:.2g}'} of one of {options.margin:g} or more"
    )
    if options.output is not None:
        made = {"pairs": [vars(pair) for pair in found], "mean": mean, "p": p}
        options.output.write_text(json.dumps(made | {"options": vars(options)}, default=str))


if __name__ == "__main__":
    main()
