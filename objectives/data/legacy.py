"""How studies of version 0.1 read their own images: kept, so that they go on as they began."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optnas.objectives.data import cache
from optnas.objectives.data.decoding import FORMATS
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import ImageFiles, Pixels, taken
from optnas.objectives.data.splits import RawImages, hold_out
from optnas.seeds import derive_seed

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
TEST_FRACTION = 0.2


def decode(path: str | Path, size: int, channels: int | None = None) -> np.ndarray:
    """One image as uint8 (channels, size, size).

    Args:
        path: The file.
        size: Height and width to which it is resized.
        channels: 1 for grayscale, 3 for RGB; None takes 1 for what is gray.

    Raises:
        OSError: If it cannot be read as an image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as source:
            image = ImageOps.exif_transpose(source)
            if image.mode.startswith("I"):  # 16 bits; `convert` would clip them to 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            gray = image.mode in ("1", "L", "LA") if channels is None else channels == 1
            image = image.convert("L" if gray else "RGB")
            # PIL's filters widen when they shrink an image, so this is antialiased.
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # whatever a decoder may raise about a damaged file
        raise OSError(f"Cannot read the image {path}: {error}") from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def load_folder(root: Path, size: int, *, stream: bool = False) -> RawImages:
    """Images in one folder per class, resized once and cached, or read when they are needed.

    Either ``root/train/CLASS/*`` with an optional ``root/test/CLASS/*``, or ``root/CLASS/*``.
    Where there is no test folder, a fixed stratified fifth of the images is the test set. The
    images are RGB unless all of them are grayscale, or, where they are streamed, the first of
    every class is.

    Args:
        root: The folder.
        size: Height and width in pixels to which every image is resized.
        stream: Whether the images stay in their files.

    Raises:
        DataError: If the folders do not hold at least two classes of readable images.
    """
    train = root / "train"
    train_files, names = _listing(train if train.is_dir() else root)
    test_files: list[tuple[Path, int]] = []
    if train.is_dir() and (root / "test").is_dir():
        test_files, test_names = _listing(root / "test")
        if unknown := set(test_names) - set(names):
            raise DataError(f"{root / 'test'} has classes that {train} lacks: {sorted(unknown)}.")
        test_files = [(path, names.index(test_names[label])) for path, label in test_files]
    files = train_files + test_files
    labels = torch.tensor([label for _, label in files])
    images: Pixels
    if stream:
        images = _streamed(files, size)
    else:
        images = torch.from_numpy(_cached([path for path, _ in files], root, size))
    if not test_files:
        return split_off_test(images, labels, tuple(names))
    first, second = slice(len(train_files)), slice(len(train_files), None)
    parts = (taken(images, first), labels[first], taken(images, second), labels[second])
    return RawImages(*parts, tuple(names))


def split_off_test(images: Pixels, labels: Tensor, class_names: tuple[str, ...]) -> RawImages:
    """A fixed stratified fifth as the test set: the same for every study of these images."""
    count = max(len(class_names), round(TEST_FRACTION * len(labels)))
    kept, held = hold_out(labels, count, derive_seed("test split"))
    return RawImages(
        taken(images, kept), labels[kept], taken(images, held), labels[held], class_names
    )


def _streamed(files: list[tuple[Path, int]], size: int) -> ImageFiles:
    """The images of a folder, unread but for the first of every class."""
    firsts = {label: path for path, label in reversed(files)}
    try:
        channels = max(decode(path, size).shape[0] for path in firsts.values())
    except OSError as error:
        raise DataError(str(error)) from error
    read = functools.partial(decode, size=size)
    return ImageFiles([path for path, _ in files], channels, size, read=read)


def _listing(folder: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """Every image file with its label, and the names of the classes, both sorted."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise DataError(
            f"Expected a folder of images for each of two or more classes in {folder}."
        )
    files: list[tuple[Path, int]] = []
    for label, path in enumerate(classes):
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise DataError(f"No images in {path}: expected files {', '.join(sorted(SUFFIXES))}.")
        files.extend((file, label) for file in found)
    return files, [path.name for path in classes]


def _cached(paths: list[Path], root: Path, size: int) -> np.ndarray:
    """The decoded images (N, C, size, size), from the cache if no file has changed."""
    listing = []
    for path in paths:
        stat = path.stat()
        listing.append((str(path.relative_to(root)), stat.st_size, stat.st_mtime_ns))
    key = json.dumps([1, str(root.resolve()), size, listing])
    name = f"images-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    images = cache.load(name)
    if images is None:
        images = _decoded(paths, size)
        cache.store(name, images)
    return images


def _decoded(paths: list[Path], size: int) -> np.ndarray:
    try:
        images = [decode(path, size) for path in paths]
    except OSError as error:
        raise DataError(str(error)) from error
    channels = max(image.shape[0] for image in images)
    shape = (channels, size, size)
    return np.stack([np.broadcast_to(image, shape) for image in images])


def load_arrays(returned: Any, name: str) -> RawImages:
    """The images that a function returned: uint8 (N, H, W) or (N, H, W, C), integer labels (N,).

    Args:
        returned: Training images, training labels, test images and test labels.
        name: The function's name.

    Raises:
        DataError: If it is something else.
    """
    if not isinstance(returned, tuple | list) or len(returned) != 4:
        raise DataError(
            f"`{name}` must return (train_images, train_labels, test_images, test_labels)."
        )
    train_images = _images(returned[0], f"train_images of `{name}`")
    test_images = _images(returned[2], f"test_images of `{name}`")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"Training and test images of `{name}` differ in shape: "
            f"{tuple(train_images.shape[1:])} and {tuple(test_images.shape[1:])} (C, H, W)."
        )
    train_labels = _labels(returned[1], len(train_images), f"train_labels of `{name}`")
    test_labels = _labels(returned[3], len(test_images), f"test_labels of `{name}`")
    values = np.unique(train_labels)
    if len(values) < 2 or not np.isin(test_labels, values).all():
        raise DataError(
            f"`{name}` must have two or more classes in its training labels and no other ones in "
            f"its test labels: {values.tolist()} and {np.unique(test_labels).tolist()}."
        )
    relabelled = [
        torch.from_numpy(np.searchsorted(values, x)) for x in (train_labels, test_labels)
    ]
    names = tuple(str(value) for value in values)
    return RawImages(train_images, relabelled[0], test_images, relabelled[1], names)


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _images(values: Any, what: str) -> Tensor:
    array = _array(values)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(
            f"{what} must be uint8 of shape (N, H, W) or (N, H, W, C): {array.dtype} of shape "
            f"{array.shape}."
        )
    if array.ndim == 3:
        array = array[..., None]
    return torch.from_numpy(np.array(np.moveaxis(array, 3, 1), order="C"))


def _labels(values: Any, count: int, what: str) -> np.ndarray:
    array = _array(values)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise DataError(
            f"{what} must be {count} integers, one per image: {array.dtype} of shape "
            f"{array.shape}."
        )
    return array.astype(np.int64)
