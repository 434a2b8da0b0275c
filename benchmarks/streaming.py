"""Images read while they are trained on, against torchvision's reference loop.

    python benchmarks/streaming.py [--data FOLDER] [--images 2000] [--loaders 2] [--repeats 3]
        [--train] [--output FILE]

An epoch of random resized crops of 224 pixels, mirrored and normalised, out of JPEGs of 500 x 375
pixels: optnas with so many readers, and torch's DataLoader with so many processes over
torchvision's ImageFolder and its reference transforms. Both in turn, each first every other time;
the ratio of processor times counts, child processes included. FOLDER is made of random pictures if
it is not there. --train trains a small network on the images, the same on both sides.
"""

import argparse
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from _harness import Row, Turn, alternate, measure
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
SIDE = 224
BATCH = 64


def make_folder(root: Path, images: int) -> None:
    """Pictures as smooth as photographs: noise of several scales, a fifth of them for the test."""
    for index in range(images):
        split = "test" if index // CLASSES % 5 == 4 else "train"
        path = root / split / f"class_{index % CLASSES}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(index)
        pixels = np.zeros((375, 500, 3))
        for octave in range(1, 7):
            shape = (3 * 2**octave, 4 * 2**octave, 3)
            noise = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
            pixels += np.asarray(noise.resize((500, 375), Image.Resampling.BICUBIC)) / 2**octave
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=90)


def ours(root: Path, loaders: int) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """An epoch of optnas."""
    from concurrent.futures import ThreadPoolExecutor

    from optnas.config.settings import DataSettings
    from optnas.objectives.data import image_files
    from optnas.objectives.data.batches import augmented_chunks, batch_bounds
    from optnas.objectives.data.images import load_images

    image_files._READERS = ThreadPoolExecutor(loaders)
    keys = {"size": SIDE, "stream": True, "augment": ("resized_crop", "flip")}
    images = load_images(DataSettings(name="images", root=str(root), **keys), seed=0)
    images = images.with_validation_in_training()
    _ = images.mean  # Measured once for a whole training.

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for inputs, labels in augmented_chunks(images, BATCH, generator):
            for start, stop in batch_bounds(len(inputs), BATCH):
                yield inputs[start:stop], labels[start:stop]

    return epoch


def theirs(root: Path, loaders: int) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    """An epoch of torchvision's reference."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    shown = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(root / "train"), shown), BATCH, shuffle=True, num_workers=loaders
    )
    return lambda: iter(loader)


def turn(epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]], trains: bool) -> Turn:
    """One epoch, and what it took."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 7, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    start, before, count = time.perf_counter(), _work(), 0
    for inputs, labels in epoch():
        count += len(labels)
        if trains:
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return Turn(time.perf_counter() - start, _work() - before, count)


def _work() -> float:
    import resource

    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(root: Path, loaders: int, repeats: int, *, trains: bool) -> Row:
    """Both sides in turn, after a first turn of each that is not counted."""
    sides = [ours(root, loaders), theirs(root, loaders)]
    counts = set()

    def timed(side: int) -> Turn:
        taken = turn(sides[side], trains)
        counts.add(taken.result)
        return taken

    made = alternate(lambda: timed(0), lambda: timed(1), repeats, loaders=loaders)
    (images,) = counts  # Both have seen as many.
    return dataclasses.replace(made, notes={"images": images, **made.notes})


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="A folder of train/CLASS/*.jpg.")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--loaders", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON file; what it has is not repeated.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = options.data or Path(folder) / "pictures"
        if not root.exists():
            make_folder(root, options.images)
        name = "an epoch with a step" if options.train else "an epoch of images"
        case = functools.partial(
            measured, root, options.loaders, options.repeats, trains=options.train
        )
        result = measure([(name, case)], options.output)[name]
        share = 1 / result.work if result.work else float("nan")
        print(f"\n{name}: {share:.3f} of the processor time, {1 / result.ratio:.3f} of the time")


if __name__ == "__main__":
    main()
