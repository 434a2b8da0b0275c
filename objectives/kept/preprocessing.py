"""How a network's images were made of files in its training, so that others are made alike."""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from optnas.objectives.data import legacy
from optnas.objectives.data.augment import normalise
from optnas.objectives.data.decoding import (
    Depths,
    Framing,
    Picture,
    Resize,
    finished,
    read,
    read_opened,
)

if TYPE_CHECKING:
    from PIL import Image

_FRACTIONS = 1e-4
"""How far floats may leave [0, 1], as interpolation leaves it."""
_CHANNELS = (1, 2, 3, 4)
_TAKEN = "images in arrays must be uint8, uint16, or floats in [0, 1]"
_DARK = 15.9
"""By how much the greatest of samples may be below white: as 12 bits are to 16."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How pictures of any size and kind become what a network was trained on.

    Args:
        resize: What becomes of pictures that are not of its shape: see `DataSettings.resize`.
        background: Red, green and blue, in 0 to 255, of what shows through and of what is padded.
        integers: The greatest sample of images of more than 8 bits.
        floats: That of images of floats.
        fraction: Share of the sides that is kept in the middle before.
        reading: The rules by which files are decoded; 1 are those of version 0.1.
    """

    # What a later version says besides, nobody here can do.
    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    resize: Resize = "squash"
    background: tuple[int, int, int] = (255, 255, 255)
    integers: float = 65535
    floats: float = 1.0
    reading: Literal[1, 2] = 2
    fraction: float = 1.0

    def read(self, path: str | Path, shape: tuple[int, int, int]) -> np.ndarray:
        """A file as uint8 ``shape`` (C, H, W), by the function that reads training images.

        Raises:
            OSError: If it cannot be read as an image.
        """
        channels, height, width = shape
        _check_channels(channels)
        if self.reading == 1 and height == width:
            return legacy.decode(path, height, channels)
        framing = self._framing(shape)
        return self._finished(read(path, framing), framing, shape, str(path))

    def picture(self, image: "Image.Image", shape: tuple[int, int, int]) -> np.ndarray:
        """An opened image as uint8 ``shape`` (C, H, W).

        Raises:
            ValueError: If its samples are not of the depth of the training's.
        """
        _check_channels(shape[0])
        if 0 in image.size:
            raise ValueError(f"an image of {image.width} x {image.height} pixels shows nothing")
        framing = self._framing(shape)
        return self._finished(read_opened(image, framing), framing, shape, "an image")

    def array(self, values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (H, W) or (H, W, C) in numbers as uint8 ``shape``.

        Args:
            values: uint8, uint16 of the depth of the training's, booleans, or floats in [0, 1].
            shape: Channels, height and width of what is wanted.

        Raises:
            ValueError: If the numbers are others.
        """
        from PIL import Image

        if values.ndim == 2:
            values = values[..., None]
        if _is_sixteen_bits(values) and values.shape[2] == 1 and shape[0] in (1, 3):
            gray = np.ascontiguousarray(values[..., 0], dtype=np.uint16)
            return self.picture(Image.fromarray(gray), shape)
        values = self._bytes_of(values)
        if values.shape == (*shape[1:], shape[0]):
            return np.ascontiguousarray(np.moveaxis(values, 2, 0))
        _check_channels(shape[0])
        plain = values[..., 0] if values.shape[2] == 1 else values
        return self.picture(Image.fromarray(np.ascontiguousarray(plain)), shape)

    def _framing(self, shape: tuple[int, int, int]) -> Framing:
        size = shape[1] if shape[1] == shape[2] else 0
        return Framing(size, self.resize, self.background, self.fraction)

    def _finished(
        self, picture: Picture, framing: Framing, shape: tuple[int, int, int], name: str
    ) -> np.ndarray:
        channels, height, width = shape
        kind = picture.facts["mode"].item()[:1]
        if kind in (b"I", b"F"):
            limit = self.integers if kind == b"I" else self.floats
            _check_depth(float(picture.facts["low"]), float(picture.facts["top"]), limit, name)
        pixels = finished(picture, framing, Depths(self.integers, self.floats), channels)
        return pixels if height == width else _squashed(pixels, height, width)

    def _bytes_of(self, values: np.ndarray) -> np.ndarray:
        """Samples as uint8."""
        if values.dtype == np.uint8:
            return values
        if values.dtype == np.bool_:
            return np.where(values, 255, 0).astype(np.uint8)
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{_TAKEN}: {values.dtype}")
        low, high = float(values.min()), float(values.max())
        rounded: np.ndarray
        if _is_sixteen_bits(values):
            _check_depth(low, high, self.integers, "an image")
            rounded = np.rint(values * (255 / self.integers)).astype(np.uint8)
            return rounded
        if values.dtype.kind == "f" and low >= -_FRACTIONS and high <= 1 + _FRACTIONS:
            rounded = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
            return rounded
        raise ValueError(f"{_TAKEN}: {values.dtype} with values from {low:.4g} to {high:.4g}")


def normalised(
    images: Tensor, shape: tuple[int, int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Images as a network takes them, of uint8 ones or of floats in [0, 1].

    Args:
        images: (N, C, H, W).
        shape: Channels, height and width of its images.
        mean: Mean of every channel of its training images, in [0, 1].
        std: Their standard deviations.

    Raises:
        ValueError: If the images are others. What is compiled or exported does not look.
    """
    if not torch.compiler.is_compiling():
        _check_images(images, shape)
    return normalise(images if images.dtype == torch.uint8 else images * 255, mean, std)


def _check_images(images: Tensor, shape: tuple[int, int, int]) -> None:
    """Refuse what a network was not trained on.

    Args:
        images: What somebody gives it.
        shape: Channels, height and width of its images.

    Raises:
        ValueError: If it is not uint8, or floats in [0, 1], of shape (N, C, H, W). The message
            says what it is.
    """
    got = _described(images)
    is_known = isinstance(images, Tensor) and images.layout == torch.strided
    is_known = is_known and (
        images.dtype == torch.uint8
        or (images.dtype.is_floating_point and images.dtype.itemsize > 1)
    )
    if is_known and images.ndim == 4 and tuple(images.shape[1:]) == shape:
        if images.dtype == torch.uint8 or not images.numel() or images.is_meta:
            return
        low, high = (value.item() for value in images.detach().aminmax())
        if math.isfinite(low + high) and low >= -_FRACTIONS and high <= 1 + _FRACTIONS:
            return
        got += f" with values from {low:.4g} to {high:.4g}"
    channels, height, width = shape
    raise ValueError(
        "this network takes uint8, or floats in [0, 1], of shape "
        f"(N, {channels}, {height}, {width}), and got {got}. "
        "`model.predict` takes images of any size as files, arrays or PIL images."
    )


def _described(images: Any) -> str:
    if not isinstance(images, Tensor):
        return f"a {type(images).__name__}"
    kind = "" if images.layout == torch.strided else f"{images.layout} "
    return f"{kind}{images.dtype} of shape {tuple(images.shape)}".replace("torch.", "")


def single_images(
    values: np.ndarray, shape: tuple[int, int, int], *, first: bool
) -> list[np.ndarray] | np.ndarray:
    """An array as images (H, W) or (H, W, C); a list of them if it holds several.

    The channels are the axis of 1 to 4 numbers, at the end or before height and width; what has
    the network's own shape is taken for that.

    Args:
        values: The array.
        shape: Channels, height and width of the network's images.
        first: Whether channels come first where both is possible, as in torch.

    Raises:
        ValueError: If the array has no such shape, or it cannot be told which.
    """
    channels, height, width = shape
    if values.ndim == 2 and 0 not in values.shape:
        return values
    if values.ndim == 3 and 0 not in values.shape:
        if values.shape[1:] == (height, width) and values.shape[0] != channels:
            return list(values)
        place = _channel_axis(values.shape, shape, first)
        return list(values) if place is None else np.moveaxis(values, place, -1)
    if values.ndim == 4 and 0 not in values.shape[1:]:
        place = _channel_axis(values.shape[1:], shape, first)
        if place is not None:
            return list(np.moveaxis(values, place + 1, -1))
    raise ValueError(
        f"an array of shape {values.shape} is no image (H, W), (H, W, C) or (C, H, W), nor "
        "several (N, H, W), (N, H, W, C) or (N, C, H, W)"
    )


def _channel_axis(
    axes: tuple[int, ...], shape: tuple[int, int, int], first: bool
) -> Literal[0, 2] | None:
    channels, height, width = shape
    begins, ends = axes == shape, axes == (height, width, channels)
    if begins == ends:
        known = (*_CHANNELS, channels)
        begins, ends = axes[0] in known, axes[2] in known
    if begins and ends:
        return 0 if first else 2
    return 0 if begins else 2 if ends else None


def _is_sixteen_bits(values: np.ndarray) -> bool:
    return values.dtype.kind == "u" and values.dtype.itemsize == 2


def _check_depth(low: float, top: float, limit: float, name: str) -> None:
    """Refuse samples beyond those of the training, and say of what is nearly black to it.

    Raises:
        ValueError: If there are some.
    """
    if low < 0 or top > limit:
        raise ValueError(
            f"its samples go from {low:g} to {top:g}, and those that the network learnt from, "
            f"from 0 to {limit:g}: scale them alike, or to 8 bits"
        )
    if 0 < top < limit / _DARK:
        warnings.warn(
            f"{name}: its samples end at {top:g}, and white is {limit:g} to the network, to "
            "which this is nearly black; if it should not be, scale it to 8 bits.",
            stacklevel=2,
        )


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(
            f"this network takes images of {channels} channels, which no picture has: give arrays "
            "of its own shape"
        )


def _squashed(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    from PIL import Image

    size, rule = (width, height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(p).resize(size, rule)) for p in pixels])


def preprocessing_of(preparation: dict[str, Any]) -> Preprocessing:
    """That of a data set's reading; what it does not say is as nobody said it."""
    known = dict(preparation)
    if "background" in known:
        red, green, blue = known["background"]
        known["background"] = (int(red), int(green), int(blue))
    return Preprocessing(**known)
