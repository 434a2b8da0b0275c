"""An epoch of training beside the loop that people write, network by network.

    python benchmarks/epoch.py [--data FOLDER] [--device cuda] [--threads 2] [--quick] [--output F]

The rival is the shape of Optuna's PyTorch example: a `DataLoader` with 2 workers, torchvision's
transforms on single images, torch's own memory format, float32 and optimiser, `.item()` in every
step. Both sides train the same network from the same weights on the same images with the same
recipe and judge it after the epoch.
"""

import argparse
import atexit
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Cases, Row, alternate, arguments, contest, measure
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from optnas.config.settings import DataSettings, TrainSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import DataError, Images, load_images
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.determinism import deterministic_algorithms
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import (
    Architecture,
    CellArchitecture,
    ChainArchitecture,
    GrowthSpace,
    StageArchitecture,
)

WORKERS = 2
# Rivals that are our own epoch with a switch of the recipe set otherwise.
SWITCHES = {"eager": {"graphs": False}, "deterministic": {"deterministic": True}}
# DARTS's second-order cell.
_NORMAL = (
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 1), ("skip_connect", 0)),
    (("skip_connect", 0), ("dil_conv_3x3", 2)),
)
_REDUCE = (
    (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
    (("max_pool_3x3", 0), ("skip_connect", 2)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
)


def chain(depth: int, width: int) -> ChainArchitecture:
    """A chain of separable 3x3 convolutions."""
    return ChainArchitecture(depth, width, ("separable",) * depth, (3,) * depth)


Network = tuple[Architecture, dict[str, Any]]
"""An architecture, and the options of its builder."""

NETWORKS: dict[str, Network] = {
    "chain (10, 64)": (chain(10, 64), {}),
    "chain (26, 46)": (chain(26, 46), {}),
    "growth, initial": (GrowthSpace().initial(), {}),
    "DARTS, 8 cells of 16": (CellArchitecture(_NORMAL, _REDUCE), {"cells": 8, "channels": 16}),
    "ResNet (6, 6, 6)": (StageArchitecture((6, 6, 6)), {}),
}
# Left out where it must be quick.
SLOW = {
    ("cifar10", name) for name in ("chain (26, 46)", "growth, initial", "DARTS, 8 cells of 16")
}
# Shape of the images; training and validation images used on a CPU.
DATA = {
    "digits": ((1, 8, 8), 1150, 288),
    "fashion_mnist": ((1, 28, 28), 512, 128),
    "cifar10": ((3, 32, 32), 512, 128),
}


def images_of(name: str, root: Path | None, *, whole: bool) -> tuple[Images, str]:
    """A data set, or pictures of random pixels in its shape where it is not there.

    Args:
        name: A name of ``DATA``.
        root: Where data sets are.
        whole: Whether all of it is used; else a part.

    Returns:
        The images, and what they are.
    """
    shape, train, validation = DATA[name]
    try:
        settings = DataSettings(name=name, root=None if root is None else str(root))
        images, kind = load_images(settings, 0), "real"
    except DataError:
        images, kind = _random_images(shape, train, validation), "random pixels"
    return images if whole else part(images, train, validation), kind


def _random_images(shape: tuple[int, int, int], train: int, validation: int) -> Images:
    generator = torch.Generator().manual_seed(0)

    def some(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
        return pixels, torch.randint(10, (count,), generator=generator)

    recipe = Augmentation(padding=shape[1] // 8, flip=True, cutout=shape[1] // 2)
    classes = tuple(map(str, range(10)))
    return Images(*some(train), *some(validation), *some(10), classes, recipe)


def part(images: Images, train: int, validation: int) -> Images:
    """The first training and validation images."""
    return Images(
        images.train_images[:train],
        images.train_labels[:train],
        images.validation_images[:validation],
        images.validation_labels[:validation],
        images.test_images[:10],
        images.test_labels[:10],
        images.class_names,
        images.augmentation,
    )


def built(network: Network, images: Images, seed: int = 0) -> torch.nn.Module:
    """A network with the weights that both sides begin with."""
    architecture, options = network
    generator = torch.Generator().manual_seed(seed)
    return build_model(architecture, images.input_shape, images.classes, generator, **options)


def training(
    network: Network,
    images: Images,
    device: str,
    threads: int,
    precision: str,
    epochs: int = 1000,
    seed: int = 0,
    **settings: Any,
) -> Trainer:
    """Our training, not begun, with switches of `TrainSettings`."""
    torch.set_num_threads(threads)
    switches = {"precision": precision, "threads": threads, **settings}
    recipe = TrainSettings.model_validate(switches)
    model = built(network, images, seed).to(device)
    return Trainer(model, images.to(device), recipe, epochs=epochs, seed=seed)


def product(network: Network, images: Images, *what: Any, **settings: Any) -> Callable[[], float]:
    """Our epoch, of a `training` of these; it returns the validation accuracy."""
    trainer = training(network, images, *what, **settings)
    # As while an objective trains.
    memory = contextlib.ExitStack()
    memory.enter_context(kept_memory())
    atexit.register(memory.close)

    def epoch() -> float:
        with deterministic_algorithms(trainer.settings.deterministic):
            return trainer.train_epoch().validation_accuracy or 0.0

    return epoch


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's data sets give them: a PIL image, transformed one by one."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Any) -> None:
        self._images = images.permute(0, 2, 3, 1).numpy()
        self._labels = labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        pixels = self._images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self._transform(image), self._labels[index]


class Cutout:
    """The transform of DARTS's code: a square of zeros around a random pixel."""

    def __init__(self, length: int) -> None:
        self._half = length // 2

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[1:]
        mask = np.ones((height, width), np.float32)
        y, x = np.random.randint(height), np.random.randint(width)  # noqa: NPY002  # As there.
        mask[max(0, y - self._half) : y + self._half, max(0, x - self._half) : x + self._half] = 0
        return image * torch.from_numpy(mask).expand_as(image)


def loaders(images: Images, batch_size: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """The loaders that people write, for training and for validation."""
    from torchvision import transforms

    recipe, side = images.augmentation, images.input_shape[1]
    last = [transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]
    random = [transforms.RandomCrop(side, padding=recipe.padding)] if recipe.padding else []
    random += [transforms.RandomHorizontalFlip()] if recipe.flip else []
    cut = [Cutout(recipe.cutout)] if recipe.cutout else []
    train = transforms.Compose([*random, *last, *cut])
    return (
        DataLoader(
            Pictures(images.train_images, images.train_labels, train),
            batch_size=batch_size,
            shuffle=True,
            num_workers=WORKERS,
        ),
        DataLoader(
            Pictures(images.validation_images, images.validation_labels, transforms.Compose(last)),
            batch_size=batch_size,
            num_workers=WORKERS,
        ),
    )


def plain(
    network: Network,
    images: Images,
    device: str,
    threads: int,
    epochs: int = 1000,
    seed: int = 0,
) -> Callable[[], float]:
    """The epoch of the loop that people write; it returns the validation accuracy."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    recipe = TrainSettings()
    train_loader, valid_loader = loaders(images, recipe.batch_size)
    model = built(network, images, seed).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def epoch() -> float:
        model.train()
        losses = 0.0
        for data, target in train_loader:
            data, target = data.to(device), target.to(device)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(data), target)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or float("inf"))
            optimizer.step()
            losses += loss.item()
        scheduler.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for data, target in valid_loader:
                data, target = data.to(device), target.to(device)
                correct += model(data).argmax(1).eq(target).sum().item()
        return correct / len(valid_loader.dataset)  # type: ignore[arg-type]

    return epoch


def compared(network: str, data: str, options: Any) -> Row:
    """Both sides' epochs, in turn."""
    images, kind = images_of(data, options.data, whole=options.device != "cpu")
    if options.quick:
        images = part(images, *((384, 96) if data == "digits" else (128, 32)))
    what = (NETWORKS[network], images, options.device)
    ours = (product, *what, options.threads, options.precision)
    theirs: tuple[Any, ...] = (plain, *what, options.rival_threads)
    if options.rival in SWITCHES:
        theirs = (functools.partial(product, **SWITCHES[options.rival]), *ours[1:])
    with contest(ours, theirs, options.workers) as sides:
        threads = f"{options.threads} and {options.rival_threads}"
        notes = {"images": f"{len(images.train_images)}, {kind}", "threads": threads}
        if options.workers > 1:
            notes["workers"] = str(options.workers)
        return alternate(*sides, options.repeats, **notes)


def cases(options: Any) -> Cases:
    """Every comparison that the options ask for."""
    for data in options.sets:
        for network in options.networks:
            if options.quick and (data, network) in SLOW:
                continue
            make = functools.partial(compared, network, data, options)
            yield f"{network}, {data}; {options.rival}", make


def training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that train."""
    default = torch.get_num_threads()
    parser.add_argument("--data", type=Path, help="Folder of the data sets, as torchvision's.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=default, help="Ours.")
    parser.add_argument("--rival-threads", type=int, default=default, help="The plain loop's.")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16.")


def options_of(words: list[str] | None = None) -> Any:
    """The options of the command line.

    ``--quick`` leaves out Fashion-MNIST, ``SLOW`` and most images; and one thread each is
    disturbed least by other programs, because threads wait for one another.
    """
    parser = arguments(__doc__)
    training_arguments(parser)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--workers", type=int, default=1, help="Ours that train at once; then an epoch's share."
    )
    parser.add_argument("--rival", choices=["plain loop", *SWITCHES], default="plain loop")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sets", nargs="+", choices=DATA, default=list(DATA))
    options = parser.parse_args(words)
    if options.quick:
        options.sets, options.repeats = ["digits", "cifar10"], 2
        options.threads = options.rival_threads = 1
    return options


def main() -> None:
    """Measure, and print a table."""
    options = options_of()
    measure(cases(options), options.output, options.device)


if __name__ == "__main__":
    main()
