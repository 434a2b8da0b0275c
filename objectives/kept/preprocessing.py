"""How a network's images were made of files in its training, so that others are made alike."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from optnas.objectives.data import legacy
from optnas.objectives.data.decoding import Depths, Framing, Resize, finished, read_opened
from optnas.objectives.data.image_files import decode

if TYPE_CHECKING:
    from PIL import Image

_FRACTIONS = 1e-4
"""How far floats may leave [0, 1], as interpolation leaves it."""
_CHANNELS = (1, 2, 3, 4)


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
        if height != width:
            pixels = decode(path, self._framing(0), channels, self._depths())
            return _squashed(pixels, height, width)
        if self.reading == 1:
            return legacy.decode(path, height, channels)
        return decode(path, self._framing(height), channels, self._depths())

    def picture(self, image: "Image.Image", shape: tuple[int, int, int]) -> np.ndarray:
        """An opened image as uint8 ``shape`` (C, H, W)."""
        channels, height, width = shape
        _check_channels(channels)
        framing = self._framing(height if height == width else 0)
        pixels = finished(read_opened(image, framing), framing, self._depths(), channels)
        return pixels if height == width else _squashed(pixels, height, width)

    def array(self, values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
        """One image (H, W) or (H, W, C) in numbers as uint8 ``shape``.

        Args:
            values: uint8, uint16, booleans, or floats in [0, 1].
            shape: Channels, height and width of what is wanted.

        Raises:
            ValueError: If the numbers are others.
        """
        values = _bytes_of(values)
        if values.ndim == 2:
            values = values[..., None]
        if values.shape == (*shape[1:], shape[0]):
            return np.ascontiguousarray(np.moveaxis(values, 2, 0))
        from PIL import Image

        _check_channels(shape[0])
        plain = values[..., 0] if values.shape[2] == 1 else values
        return self.picture(Image.fromarray(np.ascontiguousarray(plain)), shape)

    def _framing(self, size: int) -> Framing:
        return Framing(size, self.resize, self.background, self.fraction)

    def _depths(self) -> Depths:
        return Depths(self.integers, self.floats)


def check_images(images: Tensor, shape: tuple[int, int, int]) -> None:
    """Refuse what a network was not trained on.

    Args:
        images: What somebody gives it.
        shape: Channels, height and width of its images.

    Raises:
        ValueError: If it is not uint8, or floats in [0, 1], of shape (N, C, H, W). The message
            says what it is.
    """
    got = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
    is_known = images.dtype == torch.uint8 or images.dtype.is_floating_point
    if is_known and images.ndim == 4 and tuple(images.shape[1:]) == shape:
        if images.dtype == torch.uint8 or not images.numel():
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


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """Samples as uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return np.where(values, 255, 0).astype(np.uint8)
    if values.dtype == np.uint16:
        return np.rint(values / 257).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= -_FRACTIONS and high <= 1 + _FRACTIONS:
        rounded: np.ndarray = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        return rounded
    raise ValueError(
        "images in arrays must be uint8, uint16, or floats in [0, 1]: "
        f"{values.dtype} with values from {low:.4g} to {high:.4g}"
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
