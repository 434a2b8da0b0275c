"""The papers' trainings on ImageNet, killed and resumed, on 2,000 JPEGs in ImageNet's place.

    python benchmarks/imagenet.py --data FOLDER [--images 2000] [--size 64] [--only ftso]
        [--scratch FOLDER]

FOLDER has CIFAR-10, which is enlarged to JPEGs of 96 pixels in imagenet/train/CLASS and
imagenet/test/CLASS. Every study file of `studies/` that trains on ImageNet is copied beside it and
shortened as `SHORT` says: the searches, the epochs (two), the pixels and the batches; not the
cells, the channels, the stem, the augmentation and the recipe of what is trained. Then

1. the search is run; the stage-wise one, which searches on ImageNet, is killed (SIGKILL) in the
   middle of its second epoch, and run again;
2. `optnas retrain` is killed in the middle of its second epoch, and run again.

With --control the network is trained once more undisturbed, and the weights are compared. Prints a
Markdown table; the figures in docs/measurements/retrain.md come from here.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from PIL import Image

STUDIES = Path(__file__).parents[1] / "studies"
FILES = {
    "ftso": "cifar10_ftso_imagenet.yaml",
    "econas": "cifar10_econas_imagenet.yaml",
    "randgrow": "cifar10_randgrow_imagenet.yaml",
    "stagewise": "imagenet_stagewise.yaml",
}
CIFAR = {"data.samples": 0.01, "data.download": False, "data.validation": 100}
SMALL = {"network.cells": 5, "network.channels": 8, "train.epochs": 1}
SHORT: dict[str, dict[str, Any]] = {
    "ftso": {**CIFAR, **SMALL},
    "econas": {
        **CIFAR,
        "sampler.initial": 2,
        "budget.trials": 2,
        "pruner.epochs": 1,
        "proxy": "c4r4s0e3",
        "retrain.top": 1,
    },
    "randgrow": {
        **CIFAR,
        "train.epochs": 1,
        "train.cycles": 1,
        "train.initial_epochs": 1,
        "budget": {"trials": 2},
    },
    "stagewise": {
        "sampler.iterations": 1,
        "objective.further_epochs": 1,
        "train.epochs": 2,
        "train.batch_size": 64,
        "data.validation": 200,
        "retrain.top": 1,
    },
}
"""Keys of the study files that are said otherwise, so that they take minutes."""
EPOCH_EVENT = '"event": "epoch"'
"""What `optnas run --json` says after every epoch of a trial."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="A folder with CIFAR-10.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--only", choices=FILES, action="append")
    parser.add_argument("--scratch", type=Path, help="Where all of it is kept.")
    parser.add_argument("--control", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        make_images(options.data, scratch / "imagenet", options.images)
        print("| study | network | killed in | resumed, whole | test images |", end="")
        print(" undisturbed |\n|---|---|---|---|---|---|", flush=True)
        for name in options.only or FILES:
            print(transfer(name, scratch, options), flush=True)


def make_images(data: Path, root: Path, count: int) -> None:
    """CIFAR-10 as JPEGs of 96 pixels, a fifth of them for the test."""
    if root.exists():
        return
    from torchvision.datasets import CIFAR10

    images = CIFAR10(str(data))
    taken: dict[int, int] = dict.fromkeys(range(10), 0)
    for image, label in zip(images.data, images.targets, strict=True):
        index = taken[label]
        if index == count // 10:
            continue
        split = "test" if index % 5 == 4 else "train"
        path = root / split / f"class_{label}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=90)
        taken[label] += 1


def transfer(name: str, scratch: Path, options: argparse.Namespace) -> str:
    """A study's search and what it trains on the images, as a line of the table."""
    study = shortened(name, scratch, options)
    run = ["run", str(study)]
    kills = []
    if name == "stagewise":
        torch_weights(scratch / "resnet152.pth")
        kills.append(f"the search, {killed([*run, '--json'], scratch, EPOCH_EVENT)}")
    finish(run, scratch)
    retrain = ["retrain", str(study)]
    kills.append(killed(retrain, scratch, "epoch 1/2"))
    start = time.perf_counter()
    said = finish(retrain, scratch)
    seconds = time.perf_counter() - start
    (tested,) = (line for line in said if line.startswith("test accuracy"))
    folder = Path(
        next(line for line in said if "kept in" in line).split("kept in ")[1].split(";")[0]
    )
    same = ""
    if options.control:
        other = scratch / f"{name}-undisturbed"
        finish([*retrain, "--output", str(other)], scratch)
        same = "equal" if weights_of(folder) == weights_of(other) else "DIFFERENT"
    network, epochs = tested.split("(")[1].split(", ")[:2]
    count = tested.split(" on ")[1].split(" ")[0]
    return (
        f"| `{FILES[name]}` | {network} | {', then '.join(kills)} | {epochs}, {seconds:.0f} s | "
        f"{count} | {same} |"
    )


def shortened(name: str, scratch: Path, options: argparse.Namespace) -> Path:
    """The study file beside the images, with less to do."""
    study = yaml.safe_load((STUDIES / FILES[name]).read_text())
    changes = {**SHORT[name], "retrain.epochs": 2, "retrain.batch_size": 64}
    images = ["data"] if name == "stagewise" else ["retrain.data"]
    for place in images:
        changes |= {f"{place}.size": options.size, f"{place}.validation": 200}
    if name != "stagewise":
        changes["data.root"] = str(options.data.resolve())
    if "warmup_epochs" in study["retrain"]:
        changes["retrain.warmup_epochs"] = 1
    for key, value in changes.items():
        *path, last = key.split(".")
        place = study
        for part in path:
            if not isinstance(place.get(part), dict):
                place[part] = {"name": place[part]} if part in place else {}
            place = place[part]
        place[last] = value
    path = scratch / FILES[name]
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def torch_weights(path: Path) -> None:
    """A ResNet-152 of torchvision, as its published weights are stored, but random."""
    if not path.exists():
        from torchvision.models import resnet152

        torch.manual_seed(0)
        torch.save(resnet152().state_dict(), path)


def killed(arguments: list[str], scratch: Path, first: str) -> str:
    """Kill a command in the middle of the second epoch: after the line that has ``first``."""
    with started(arguments, scratch) as process:
        begun = time.perf_counter()
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if first in line:
                break
        else:
            raise SystemExit(f"optnas {' '.join(arguments)} ended early:\n{''.join(lines)}")
        wait = min(10.0, (time.perf_counter() - begun) / 4)
        time.sleep(wait)
        if process.poll() is not None:
            raise SystemExit(f"optnas {' '.join(arguments)} ended before it was killed")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return f"epoch 2, after {wait:.0f} s of it"


def finish(arguments: list[str], scratch: Path) -> list[str]:
    """Run a command to its end."""
    with started(arguments, scratch) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"optnas {' '.join(arguments)} failed:\n{said}")
    return str(said).splitlines()


@contextlib.contextmanager
def started(arguments: list[str], scratch: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "optnas"), *arguments],
        cwd=scratch,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def weights_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor of a kept network."""
    (path,) = folder.glob("*.safetensors")
    loaded = safetensors.torch.load_file(path)
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}


if __name__ == "__main__":
    main()
