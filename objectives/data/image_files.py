"""Images that stay in their files, and are read when they are looked at."""

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Reading is mostly decoding, which lets other threads work.
_READERS = ThreadPoolExecutor(thread_name_prefix="optnas-images")


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
        with Image.open(path) as source:
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


class ImageFiles:
    """Images in files, where else a uint8 tensor (N, C, H, W) would be.

    Indexing reads: ``files[indices]`` and ``files[start:stop]`` are tensors on the device of the
    files. Threads read and decode side by side.

    Args:
        paths: The files.
        channels: 1 for grayscale, 3 for RGB; images are converted.
        size: Height and width in pixels to which every image is resized.
        device: Where the images are wanted.

    Raises:
        OSError: When it is read, if a file is not an image any more.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        channels: int,
        size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        # An array of strings takes a fraction of the memory of a million paths.
        self._paths = np.array([os.fspath(path) for path in paths])
        self._channels = channels
        self._size = size
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def shape(self) -> torch.Size:
        """Number of images, channels, height and width."""
        return torch.Size((len(self), self._channels, self._size, self._size))

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        return self._gathered(self._begin(chosen))

    def each(self, choices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of one choice after the other, the next being read in the meantime.

        Args:
            choices: Indices (n,) of images.
        """
        before: list[Future[np.ndarray]] | None = None
        for chosen in choices:
            begun = self._begin(chosen)
            if before is not None:
                yield self._gathered(before)
            before = begun
        if before is not None:
            yield self._gathered(before)

    def subset(self, chosen: Tensor | slice) -> "ImageFiles":
        """These of the files, by index or by mask, unread."""
        result = copy.copy(self)
        result._paths = self._paths[_index(chosen)]
        return result

    def joined(self, other: "ImageFiles") -> "ImageFiles":
        """These files and those of ``other``, unread."""
        result = copy.copy(self)
        result._paths = np.concatenate((self._paths, other._paths))
        return result

    def to(self, device: torch.device | str) -> "ImageFiles":
        """The same files, for a device."""
        result = copy.copy(self)
        result.device = torch.device(device)
        return result

    def fingerprint(self) -> bytes:
        """What tells these files from others, wherever their folders are.

        Their names, those of their folders, their sizes in bytes and their order count, not what
        they hold.
        """
        lines = [f"{self._size} {self._channels}"]
        for path in map(Path, self._paths):
            lines.append(f"{path.parent.name}/{path.name} {path.stat().st_size}")
        return hashlib.sha256("\n".join(lines).encode()).digest()

    def _begin(self, chosen: Tensor | slice) -> list[Future[np.ndarray]]:
        paths = self._paths[_index(chosen)]
        return [_READERS.submit(decode, path, self._size, self._channels) for path in paths]

    def _gathered(self, begun: list[Future[np.ndarray]]) -> Tensor:
        images = np.empty((len(begun), *self.shape[1:]), np.uint8)
        for index, future in enumerate(begun):
            images[index] = future.result()
        return torch.from_numpy(images).to(self.device)


Pixels = Tensor | ImageFiles
"""Images (N, C, H, W), uint8, in memory or in files."""


def taken(images: Pixels, chosen: Tensor | slice) -> Pixels:
    """Some of the images, by index or by mask; those in files stay there."""
    return images.subset(chosen) if isinstance(images, ImageFiles) else images[chosen]


def joined(first: Pixels, second: Pixels) -> Pixels:
    """All images of both, which are in memory or in files alike."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat((first, second))
    if isinstance(first, ImageFiles) and isinstance(second, ImageFiles):
        return first.joined(second)
    raise TypeError("Images in memory and images in files cannot be joined.")


def pieces(images: Pixels, choices: Iterable[Tensor]) -> Iterator[Tensor]:
    """The images of one choice of indices after the other, read ahead where they are in files."""
    if isinstance(images, ImageFiles):
        return images.each(choices)
    return (images[chosen] for chosen in choices)


def _index(chosen: Tensor | slice) -> np.ndarray | slice:
    return chosen if isinstance(chosen, slice) else chosen.cpu().numpy()
