"""The image data sets that optnas knows by name."""

import dataclasses
import functools
import gzip
import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data import legacy
from optnas.objectives.data.arrays import load_function
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.folders import DEFAULT_SIZE, load_files
from optnas.objectives.data.found import FoundImages
from optnas.objectives.data.splits import RawImages
from optnas.objectives.data.torchvision_sets import load_torchvision
from optnas.units import shown

DEFAULT_ROOT = "~/.cache/optnas/data"
FUNCTION = "module:function"
TORCHVISION = "torchvision:NAME"
_FILES = ("labels", "resize", "crop_fraction", "background", "unreadable", "channels")
GROUP = "optnas.data"
"""The entry points by which packages offer data sets: each a `Dataset`, or a function."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A known data set and its own defaults.

    Args:
        description: One line for people who choose.
        load: Reads the images that the settings ask for.
        validation: Images held out of the whole training set (a number or a fraction).
        augmentation: The training recipe. Default: by the size of the images.
        resizes: Whether it takes `size` and `stream`.
        takes: Further keys that it takes.
    """

    description: str
    load: Callable[[DataSettings], RawImages | FoundImages]
    validation: int | float
    augmentation: Augmentation | None = None
    resizes: bool = False
    takes: tuple[str, ...] = ()

    def check(self, settings: DataSettings) -> None:
        """Refuse keys that say nothing about this data set.

        Raises:
            DataError: If there is one.
        """
        taken = (*self.takes, *(("size", "stream") if self.resizes else ()))
        for key in ("size", "stream", "layout", *_FILES):
            default = DataSettings.model_fields[key].default
            if key not in taken and getattr(settings, key) != default:
                raise DataError(f"`{settings.name}` does not take `{key}`: leave it out.")


def default_augmentation(side: int) -> Augmentation:
    """The recipe for images of ``side`` pixels: the CIFAR one, scaled."""
    return Augmentation(padding=max(1, side // 8), flip=True, cutout=max(1, side // 2))


def _load_digits(settings: DataSettings) -> RawImages:
    rows = _read_digits()
    pixels = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    names = tuple(str(name) for name in range(10))
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    return legacy.split_off_test(torch.from_numpy(pixels), labels, names)


def _read_digits() -> np.ndarray:
    """What ships with scikit-learn: rows (N, 65) of 64 intensities up to 16, and the class.

    Its own file, where it is: scikit-learn takes longer to import than a first epoch takes.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.exists():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack((digits.data, digits.target))


def _load_idx(
    settings: DataSettings,
    *,
    source: str,
    classes: tuple[str, ...],
    prefix: str = "",
    test: str = "t10k",
    transposed: bool = False,
) -> RawImages:
    """A set in MNIST's format, compressed or not, where torchvision downloads it to.

    Read here and not by torchvision, which takes seconds to import and wants to unpack first.
    """
    root = _root(settings)
    folder = root / source / "raw"
    files = [
        folder / f"{prefix}{part}-{kind}-ubyte"
        for part in ("train", test)
        for kind in ("images-idx3", "labels-idx1")
    ]
    if not all(path.exists() or _compressed(path).exists() for path in files):
        options = {"split": "balanced"} if source == "EMNIST" else {}
        _download(settings, source, folder, **options)
    arrays = [torch.from_numpy(_read_idx(path)) for path in files]
    images = [x.mT.contiguous() if transposed else x for x in (arrays[0], arrays[2])]
    labels = [x.to(torch.int64) for x in (arrays[1], arrays[3])]
    for picture, label in zip(images, labels, strict=True):
        if picture.ndim != 3 or label.shape != picture.shape[:1] or label.max() >= len(classes):
            raise DataError(f"The files in {folder} do not fit together: download them again.")
    return RawImages(images[0][:, None], labels[0], images[1][:, None], labels[1], classes)


def _read_idx(path: Path) -> np.ndarray:
    path = path if path.exists() else _compressed(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        dimensions = content[3]
        shape = np.frombuffer(content, ">i4", dimensions, offset=4)
        pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
        return pixels.reshape(shape).copy()
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged ({error}): remove it and set `download: true`, or replace it."
        ) from error


def _compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _load_cifar(settings: DataSettings, *, source: str, folder: str) -> RawImages:
    target = _root(settings) / folder
    if not target.is_dir():
        _download(settings, source, target)
    from torchvision import datasets

    parts = []
    try:
        for train in (True, False):
            part = getattr(datasets, source)(str(_root(settings)), train=train)
            parts.append(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous())
            parts.append(torch.tensor(part.targets))
    except Exception as error:  # bad checksums, unreadable or truncated pickles
        raise DataError(
            f"The files in {target} are damaged or incomplete ({error}): remove the folder and "
            "set `download: true`, or replace it."
        ) from error
    return RawImages(parts[0], parts[1], parts[2], parts[3], tuple(part.classes))


def _root(settings: DataSettings) -> Path:
    try:
        return Path(settings.root or DEFAULT_ROOT).expanduser()
    except RuntimeError:
        raise DataError(
            f"`{settings.name}` needs `root`, a folder for its files: there is no home folder."
        ) from None


def _download(settings: DataSettings, source: str, expected: Path, **options: Any) -> None:
    if not settings.download:
        raise DataError(
            f"`{settings.name}` is not in {expected}: set `download: true` or put the files there."
        )
    from torchvision import datasets

    try:
        getattr(datasets, source)(str(_root(settings)), download=True, **options)
    except Exception as error:  # network, server, disk: torchvision raises many kinds
        raise DataError(
            f"Downloading `{settings.name}` to {expected} failed ({error}): try again with a "
            "network, or put the files there."
        ) from error


def _load_images(settings: DataSettings) -> RawImages | FoundImages:
    root = None if settings.root is None else _root(settings)
    if root is None or not root.is_dir():
        why = "" if root is None else f": {shown(root)} " + (
            "is no folder" if root.exists() else "does not exist"
        )  # fmt: skip
        raise DataError(f"`images` needs `root`, a folder with a folder of images per class{why}.")
    if settings.reading == 1:
        return legacy.load_folder(root, settings.size or DEFAULT_SIZE, stream=settings.stream)
    return load_files(root, settings)


def function_dataset(load: Callable[[DataSettings], RawImages | FoundImages]) -> Dataset:
    """The data set that a function gives."""
    return dataclasses.replace(DATASETS[FUNCTION], load=load)


def _load_torchvision(settings: DataSettings) -> FoundImages:
    return load_torchvision(_root(settings), settings)


_KMNIST = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# The 28x28 sets train on crops of 32 and are judged at 28, as in the authors' code of
# Efficient Global NAS; handwriting is not mirrored.
_ENLARGED = Augmentation(padding=4, size=32, cutout=16)
_CIFAR = Augmentation(padding=4, flip=True, cutout=16)

# What the entry points of the group `optnas.data` name. `optnas list` reads the first text of each
# in this source.
DIGITS = Dataset(
    "1,797 handwritten digits, 8x8 grayscale, 10 classes; ships with scikit-learn",
    _load_digits,
    validation=0.2,
    augmentation=Augmentation(padding=1),
)
FASHION_MNIST = Dataset(
    "Fashion-MNIST: 70,000 pieces of clothing, 28x28 grayscale, 10 classes",
    functools.partial(_load_idx, source="FashionMNIST", classes=_FASHION),
    validation=5000,
    augmentation=dataclasses.replace(_ENLARGED, flip=True),
)
KMNIST = Dataset(
    "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28x28 grayscale, 10 classes",
    functools.partial(_load_idx, source="KMNIST", classes=_KMNIST),
    validation=5000,
    augmentation=_ENLARGED,
)
EMNIST_BALANCED = Dataset(
    "EMNIST Balanced: 131,600 digits and letters, 28x28 grayscale, 47 classes",
    functools.partial(
        _load_idx,
        source="EMNIST",
        classes=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        prefix="emnist-balanced-",
        test="test",
        transposed=True,
    ),
    validation=5000,
    augmentation=_ENLARGED,
)
CIFAR10 = Dataset(
    "CIFAR-10: 60,000 photographs, 32x32 RGB, 10 classes",
    functools.partial(_load_cifar, source="CIFAR10", folder="cifar-10-batches-py"),
    validation=5000,
    augmentation=_CIFAR,
)
CIFAR100 = Dataset(
    "CIFAR-100: 60,000 photographs, 32x32 RGB, 100 classes",
    functools.partial(_load_cifar, source="CIFAR100", folder="cifar-100-python"),
    validation=5000,
    augmentation=_CIFAR,
)
IMAGES = Dataset(
    "Your own images: a folder per class in `root`, resized to `size` (default 32)",
    _load_images,
    validation=0.2,
    resizes=True,
    takes=_FILES,
)
_TORCHVISION_SETS = Dataset(
    "Any classification set of torchvision, such as torchvision:SVHN",
    _load_torchvision,
    validation=0.2,
    takes=("size", "resize", "crop_fraction", "background", "channels"),
)
_FUNCTIONS = Dataset(
    "Your own images: a function that returns training and test images and labels",
    lambda settings: load_function(settings, Path.cwd()),
    validation=0.2,
    takes=("layout", "channels"),
)

DATASETS: dict[str, Dataset] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "kmnist": KMNIST,
    "emnist_balanced": EMNIST_BALANCED,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "images": IMAGES,
    TORCHVISION: _TORCHVISION_SETS,
    FUNCTION: _FUNCTIONS,
}
