"""A user's own images in arrays, as a Python function returns them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optnas.config.settings import DataSettings
from optnas.extensions.importing import PluginError, load_reference, modules_of
from optnas.objectives.data import legacy
from optnas.objectives.data.errors import DataError, some
from optnas.objectives.data.found import FoundImages, rows_of
from optnas.objectives.data.names import TEST, class_name, is_text, ordered
from optnas.objectives.data.splits import RawImages
from optnas.units import shown

_LAYOUTS = {"NHW": 3, "NHWC": 4, "NCHW": 4}
_WANTED = "uint8 of shape (N, H, W), (N, H, W, C) or (N, C, H, W)"


def load_function(settings: DataSettings, folder: Path) -> FoundImages | RawImages:
    """The images that ``module:function`` returns; see `load_arrays`.

    Args:
        settings: The function's name, and what else is said.
        folder: Where its module is looked for, unless it is installed.

    Raises:
        DataError: If the function cannot be called or returns something else.
    """
    try:
        function = load_reference("data set", settings.name, folder)
    except PluginError as error:
        raise DataError(f"`{settings.name}` failed: {error}") from error
    with modules_of(folder):  # It may import its neighbours when it runs.
        return images_of(function, settings)


def images_of(function: Callable[[], Any], settings: DataSettings) -> FoundImages | RawImages:
    """The images that a function returns, which takes no arguments: see `load_arrays`.

    Raises:
        DataError: If the function cannot be called or returns something else.
    """
    try:
        returned = function()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise DataError(f"`{settings.name}` failed: {type(error).__name__}: {error}") from error
    if settings.reading == 1:
        return legacy.load_arrays(returned, settings.name)
    return load_arrays(returned, settings)


def load_arrays(returned: Any, settings: DataSettings) -> FoundImages:
    """The images that a function returned: training images and labels, test images and labels.

    Args:
        returned: Four arrays, tensors or lists: uint8 images (N, H, W), (N, H, W, C) or
            (N, C, H, W), and labels (N,) or (N, 1), integers or names.
        settings: The function's name, and `layout` and `channels` where the shape leaves them
            open.

    Raises:
        DataError: If it is something else.
    """
    name = settings.name
    if not isinstance(returned, tuple | list) or len(returned) != 4:
        raise DataError(
            f"`{name}` must return (train_images, train_labels, test_images, test_labels)."
        )
    images = [
        _images(returned[place], f"{part}_images of `{name}`", settings)
        for place, part in ((0, "train"), (2, "test"))
    ]
    if images[0].shape[1:] != images[1].shape[1:]:
        raise DataError(
            f"Training and test images of `{name}` differ in shape: "
            f"{tuple(images[0].shape[1:])} and {tuple(images[1].shape[1:])} (C, H, W)."
        )
    parts = [
        _labels(returned[place], len(pixels), f"{part}_labels of `{name}`")
        for place, part, pixels in ((1, "train", images[0]), (3, "test", images[1]))
    ]
    order = _classes(parts[0], parts[1], name)
    places = {value: place for place, value in enumerate(order)}
    pixels = torch.cat(images)
    digests = [_digest(image) for image in pixels.numpy()]
    splits = [None] * len(images[0]) + [TEST] * len(images[1])
    names = [
        *(f"training image {i}" for i in range(len(images[0]))),
        *(f"test image {i}" for i in range(len(images[1]))),
    ]
    labels = [places[value] for part in parts for value in part]
    rows = rows_of(digests, digests, names, labels, splits)
    height, width = pixels.shape[2:]
    about = {"sizes": ((width, height, len(pixels)),), "modes": {"uint8": len(pixels)}}
    return FoundImages(pixels, rows, names, tuple(map(str, order)), name, about)


def _classes(train: list[Any], test: list[Any], name: str) -> list[Any]:
    """The classes in order.

    Raises:
        DataError: If there are too few, or test images are of others.
    """
    values = set(train)
    kinds = [{type(value) for value in part} for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"`{name}` has names for labels in one part and integers in the other: "
            f"{train[0]!r} and {test[0]!r} come first; give both alike."
        )
    if len(values) < 2 or not values.issuperset(test):
        raise DataError(
            f"`{name}` must have two or more classes in its training labels and no other ones in "
            f"its test labels: {some(_in_order(values), 20)} and {some(_in_order(set(test)), 20)}."
        )
    return _in_order(values)


def _digest(image: np.ndarray) -> str:
    header = f"{image.dtype.str} {image.shape}".encode()
    return hashlib.sha256(header + image.tobytes()).hexdigest()[:32]


def _in_order(values: set[Any]) -> list[Any]:
    """Numbers by their size, names as people count."""
    if all(isinstance(value, int) for value in values):
        return sorted(values)
    return list(ordered(map(str, values)))


def _array(values: Any, what: str) -> np.ndarray:
    try:
        if isinstance(values, Tensor):
            return values.detach().cpu().numpy()
        if np.ma.is_masked(values):
            raise DataError(f"{what} must have no masked values; say what is there by `.filled()`")
        return np.asarray(values)
    except DataError:
        raise
    except Exception as error:  # lists of several lengths, sparse tensors, own classes
        raise DataError(f"{what} must be an array: {error}") from None


def _images(values: Any, what: str, settings: DataSettings) -> Tensor:
    array = _array(values, what)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape:
        raise DataError(f"{what} must be {_WANTED}: {array.dtype} of shape {array.shape}.")
    layout = settings.layout or _layout(array, what, settings.channels)
    if _LAYOUTS[layout] != array.ndim:
        raise DataError(f"{what} must have the layout {layout}, as said: shape {array.shape}.")
    if layout == "NHW":
        array = array[:, None]
    elif layout == "NHWC":
        array = np.moveaxis(array, 3, 1)
    allowed = (1, 3) if settings.channels is None else (settings.channels,)
    if array.shape[1] not in allowed:
        wanted = " or ".join(map(str, allowed))
        unless = "" if settings.channels else ", unless `channels` says otherwise"
        raise DataError(
            f"{what} must have {wanted} channels{unless}: {array.shape[1]} in the layout {layout}."
        )
    return torch.from_numpy(np.array(array, order="C"))


def _layout(array: np.ndarray, what: str, channels: int | None) -> str:
    """Told by where 1 or 3, or the channels that were said, stand in the shape."""
    if array.ndim == 3:
        return "NHW"
    allowed = (1, 3) if channels is None else (channels,)
    first, last = array.shape[1] in allowed, array.shape[3] in allowed
    if first == last:
        why = "could be both (N, H, W, C) and (N, C, H, W): say `layout: NHWC` or `layout: NCHW`"
        if not first:
            why = f"has {' or '.join(map(str, allowed))} channels neither last nor first"
            why += ": say `channels`" if channels is None else ""
        raise DataError(f"{what}: the shape {array.shape} {why}.")
    return "NCHW" if first else "NHWC"


def _labels(values: Any, count: int, what: str) -> list[int] | list[str]:
    array = _array(values, what)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape == (count,):
        if array.dtype.kind in "iu":
            return [int(value) for value in array]
        texts = array.tolist()
        if array.dtype.kind in "OUST" and all(isinstance(text, str | bytes) for text in texts):
            return [_name(text, what) for text in texts]
        if array.dtype.kind == "O" and all(type(value) is int for value in texts):
            return texts  # type: ignore[no-any-return]
    hint = " Scores per class are no labels: take their argmax." if array.ndim == 2 else ""
    raise DataError(
        f"{what} must be {count} integers or names, one per image: {array.dtype} of shape "
        f"{array.shape}.{hint}"
    )


def _name(text: str | bytes, what: str) -> str:
    try:
        name = class_name(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError:
        raise DataError(f"{what}: {shown(text)} is no UTF-8 text.") from None
    if not name.strip():
        raise DataError(f"{what}: there is an empty name.")
    if not is_text(name):
        raise DataError(f"{what}: {shown(repr(name))} is no text.")
    return name
