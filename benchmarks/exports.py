"""Seven families of networks in five forms, each in its own runtime beside the network itself.

    python benchmarks/exports.py --data FOLDER --output FOLDER [--families ...] [--forms ...]

The data's FOLDER holds cifar-10-batches-py/. A network of every family learns from a part of
CIFAR-10; `export` writes it in every form; a fresh process without optnas loads that in its own
runtime and answers 100 test images, all at once and one alone. The table has the greatest
difference of a probability from the network's own, the size of the files, and the milliseconds of
one image on one thread. Two networks are quantised, too: what that costs is measured on the 10,000
test images. An hour on one core; stopped, the same command goes on. `results.json` in the output
has everything.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import about
from torch import nn

import optnas
from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.kept import trained
from optnas.objectives.kept.descriptions import describe
from optnas.objectives.kept.exports import forms
from optnas.objectives.kept.exports.exporting import export
from optnas.spaces import (
    Architecture,
    CellSpace,
    ChainArchitecture,
    GrowthSpace,
    NasBench201Architecture,
    StageArchitecture,
)

RUNTIME = Path(__file__).with_name("_runtime.py")
IMAGES = 100
REPEATS = 200
QUANTISED = ("chain", "basic")
KERNELS = (3, 5, 7)
BEST_CELL = (
    *("nor_conv_3x3", "nor_conv_3x3", "nor_conv_3x3"),
    *("skip_connect", "nor_conv_1x1", "nor_conv_3x3"),
)
"""A cell of NAS-Bench-201, edge by edge."""


def _grown() -> Architecture:
    space = GrowthSpace(cells=4, channels=12)
    architecture = space.initial()
    for number in range(3):
        architecture = space.grow(architecture, number, increments=1)
    return architecture


@dataclasses.dataclass(frozen=True)
class Family:
    """A network of a family.

    Args:
        make: Its architecture.
        network: Options of its builder.
        epochs: How long it learns.
    """

    make: Callable[[], Architecture]
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int = 1


FAMILIES = {
    "chain": Family(
        lambda: ChainArchitecture(8, 24, ("conv", "separable") * 4, (3, 3, 3, 5, 3, 3, 5, 3)),
        epochs=4,
    ),
    "cell": Family(
        lambda: CellSpace().random(np.random.default_rng(0)), {"cells": 5, "channels": 12}
    ),
    "nasbench201": Family(
        lambda: NasBench201Architecture(BEST_CELL), {"cells": 3, "channels": 16}
    ),
    "growth": Family(_grown, {"gate": True}),
    "basic": Family(lambda: StageArchitecture((3, 3, 3)), epochs=4),
    "bottleneck": Family(lambda: StageArchitecture((2, 2, 2), block="bottleneck")),
    "nasnet": Family(lambda: StageArchitecture((1, 1, 1), block="nasnet")),
}


def network_of(name: str, images: Images, folder: Path) -> Path:
    """The folder of a trained network of a family."""
    family = FAMILIES[name]
    trained.retrain(
        family.make(),
        images,
        TrainSettings(epochs=family.epochs, lr=0.05),
        folder / name,
        network=family.network,
        seed=0,
        origin={"benchmark": "exports"},
        device=torch.device("cpu"),
    )
    return folder / name


def compared(network: Path, form: str, images: Images, folder: Path) -> dict[str, Any]:
    """A row: the difference, the size and the time of a fresh process."""
    made = export(network, form, folder / form / forms.NAMES[form])
    real = images.test_images[:IMAGES]
    given, answers = folder / "images.npy", folder / "answers.npy"
    np.save(given, real.numpy())
    command = [RUNTIME, form, made.files[0], given, answers, REPEATS]
    done = subprocess.run(
        [sys.executable, *map(str, command)], check=True, capture_output=True, text=True
    )
    expected = optnas.load(network).probabilities(real).numpy()
    found = np.load(answers)
    differences = (found[:IMAGES] - expected, found[IMAGES:] - expected[:1])
    return {
        "difference": max(float(np.abs(each).max()) for each in differences),
        "bytes": made.bytes,
        "milliseconds": json.loads(done.stdout.splitlines()[-1])["milliseconds"],
        "notes": list(made.notes),
    }


def quantised(network: Path, folder: Path) -> dict[str, Any]:
    """What 8 bits cost."""
    made = export(network, "onnx", folder / "onnx" / "model-int8.onnx", int8=True)
    return dataclasses.asdict(made)


class Depthwise(nn.Module):
    """Four depthwise convolutions of 64 channels on 32 x 32 pixels."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        layers = (nn.Conv2d(64, 64, kernel, padding=kernel // 2, groups=64) for _ in range(4))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        result: torch.Tensor = self.layers(images)
        return result


def of_kernel(kernel: int, form: str, folder: Path) -> dict[str, Any]:
    """Milliseconds of depthwise convolutions."""
    example = torch.randn(2, 64, 32, 32, generator=torch.Generator().manual_seed(0))
    path = folder / f"depthwise-{kernel}" / forms.NAMES[form]
    path.parent.mkdir(parents=True, exist_ok=True)
    forms.write(form, Depthwise(kernel).eval(), example, path, "{}")  # type: ignore[arg-type]
    given, answers = folder / "images.npy", folder / "answers.npy"
    np.save(given, example.numpy())
    command = [RUNTIME, form, path, given, answers, REPEATS]
    done = subprocess.run(
        [sys.executable, *map(str, command)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(rows: dict[str, dict[str, Any]], folder: Path, options: argparse.Namespace) -> str:
    """The tables, in Markdown."""
    head = " | ".join(options.forms)
    lines = [f"| | parameters | multiply-adds | {head} |"]
    lines.append("|---" * (len(options.forms) + 3) + "|")
    for family in options.families:
        d = describe(folder / family)
        assert d is not None
        cells = [_cell(rows[f"{family}, {form}"]) for form in options.forms]
        lines.append(
            f"| {family} | {d.params:,} | {d.multiply_adds / 1e6:.1f} M | {' | '.join(cells)} |"
        )
    lines += ["", "| 8 bits | accuracy | as float32 | same answer | size | ms |"]
    lines.append("|---" * 6 + "|")
    for family in QUANTISED:
        found = rows.get(f"{family}, int8")
        if found is not None:
            whole = rows[f"{family}, onnx"]
            lines.append(
                f"| {family} | {found['quantised_accuracy']:.4f} | {found['accuracy']:.4f} "
                f"| {found['agreement']:.4f} | {found['bytes'] / whole['bytes']:.2f} of float32's "
                f"| {found['milliseconds']:.2f} |"
            )
    runtimes = _runtimes(options)
    lines += ["", f"| ms of depthwise convolutions | {' | '.join(runtimes)} |"]
    lines.append("|---" * (len(runtimes) + 1) + "|")
    for kernel in KERNELS:
        cells = [f"{rows[f'{kernel}x{kernel}, {form}']['milliseconds']:.2f}" for form in runtimes]
        lines.append(f"| {kernel} x {kernel} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _runtimes(options: argparse.Namespace) -> list[str]:
    """The forms that are no torch."""
    return [form for form in options.forms if form != "python"]


def _cell(found: dict[str, Any]) -> str:
    size, time = found["bytes"] / 1000, found["milliseconds"]
    return f"{found['difference']:.0e}, {size:,.0f} kB, {time:.2f} ms"


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="Folder of the images.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of what comes of it.")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--forms", nargs="+", choices=forms.FORMS, default=list(forms.FORMS))
    parser.add_argument("--samples", type=float, default=0.04)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    rows: dict[str, dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else {}

    def add(name: str, make: Callable[[], dict[str, Any]]) -> None:
        if name not in rows:
            rows[name] = make()
            path.write_text(json.dumps({"about": about(), "rows": rows}, indent=1) + "\n")
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)

    data = {"name": "cifar10", "root": str(options.data), "samples": options.samples}
    images = load_images(DataSettings(**data), seed=0)
    for family in options.families:
        network = network_of(family, images, folder)
        for form in options.forms:
            add(
                f"{family}, {form}",
                lambda n=network, f=form: compared(n, f, images, folder / "made"),
            )
        if family in QUANTISED and "onnx" in options.forms:
            add(f"{family}, int8", lambda n=network: quantised(n, folder / "made"))
    for kernel in KERNELS:
        for form in _runtimes(options):
            add(
                f"{kernel}x{kernel}, {form}",
                lambda k=kernel, f=form: of_kernel(k, f, folder / "made"),
            )
    print(report(rows, folder, options))


if __name__ == "__main__":
    main()
