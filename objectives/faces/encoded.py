"""Images that stay encoded, in files or in memory, and are decoded when they are looked at."""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import ImageFiles

_READERS = ThreadPoolExecutor(thread_name_prefix="optnas-faces")
FORMATS = ("JPEG", "PNG", "BMP", "PPM")


class EncodedImages(ImageFiles):
    """Encoded images where else a uint8 tensor (N, C, size, size) would be.

    Args:
        keys: A number for each, (N,).
        fetch: The bytes of an image, or the image, by its number.
        channels: 1 for grayscale, 3 for RGB; images are converted.
        size: Height and width in pixels to which every image is resized.
        identity: What tells them from others.

    Raises:
        OSError: When they are looked at, if one is no image.
    """

    def __init__(
        self,
        keys: np.ndarray,
        fetch: Callable[[int], "bytes | Image.Image"],
        *,
        channels: int,
        size: int,
        identity: str,
    ) -> None:
        super().__init__([], channels, size, read=self._decoded)
        self._paths: Any = np.asarray(keys)
        self._fetch = fetch
        self._identity = identity

    def fingerprint(self) -> bytes:
        """What tells these images from others: where they come from, and which they are."""
        key = f"{self._identity} {self._size} {self._channels}"
        return hashlib.sha256(key.encode() + self._paths.tobytes()).digest()

    def _begin(
        self, chosen: torch.Tensor | slice, seeds: torch.Tensor | None = None
    ) -> list[Future[np.ndarray]]:
        if seeds is not None:
            raise DataError("`augment`: faces are aligned, and not cropped: no `resized_crop`.")
        index = chosen if isinstance(chosen, slice) else chosen.cpu().numpy()
        return [_READERS.submit(self._decoded, int(key)) for key in self._paths[index]]

    def _decoded(self, key: int) -> np.ndarray:
        found = self._fetch(key)
        picture = found if isinstance(found, Image.Image) else open_image(found, str(key))
        return pixels(picture, self._channels, self._size)


def open_image(content: bytes, name: str) -> Image.Image:
    """An image of its bytes.

    Args:
        content: The bytes.
        name: What it is called in messages.

    Raises:
        OSError: If they are no image.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        picture.load()
    except (
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise OSError(f"The image {name} cannot be read: {error}") from None
    return picture


def pixels(picture: Image.Image, channels: int, size: int) -> np.ndarray:
    """An image as uint8 (channels, size, size)."""
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    values = np.asarray(picture)
    return values[None] if channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))
