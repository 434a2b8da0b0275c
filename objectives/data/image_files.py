"""Images that stay in their files, and are read when they are looked at."""

import copy
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optnas.objectives.data.crops import cropped
from optnas.objectives.data.decoding import Depths, Framing, Unreadable, finished, read

# Reading is mostly decoding, which lets other threads work.
_READERS = ThreadPoolExecutor(thread_name_prefix="optnas-images")


def decode(
    path: str | Path,
    framing: Framing | int,
    channels: int | None = None,
    depths: Depths | None = None,
    crop: int | None = None,
) -> np.ndarray:
    """One image as uint8 (channels, size, size).

    Args:
        path: The file.
        framing: Height and width to which it is resized, or all that is to be said of that.
        channels: 1 for grayscale, 3 for RGB; None takes 1 for what is gray.
        depths: How deep the samples of its data set are. Default: 16 bits, floats in [0, 1].
        crop: The seed of a random crop, instead of the whole image.

    Raises:
        OSError: If it cannot be read as an image.
    """
    if isinstance(framing, int):
        framing = Framing(framing)
    try:
        picture = read(path, framing, crop=crop, digests=False)
    except Unreadable as error:
        raise OSError(str(error)) from error
    if channels is None:
        channels = 1 if picture.values.ndim == 2 else 3
    return finished(picture, framing, depths or Depths(), channels)


class ImageFiles:
    """Images in files, where else a uint8 tensor (N, C, H, W) would be.

    Indexing reads: ``files[indices]`` and ``files[start:stop]`` are tensors on the device of the
    files. Threads read and decode side by side.

    Args:
        paths: The files.
        channels: 1 for grayscale, 3 for RGB; images are converted.
        size: Height and width in pixels to which every image is resized.
        read: Reads a file as uint8 (channels, size, size), and may raise OSError.
        contents: A digest of every file.

    Raises:
        OSError: When it is read, if a file is not an image any more.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        channels: int,
        size: int,
        *,
        read: Callable[..., np.ndarray] | None = None,
        contents: np.ndarray | None = None,
    ) -> None:
        # An array of strings takes a fraction of the memory of a million paths.
        self._paths = np.array([os.fspath(path) for path in paths])
        self._channels = channels
        self._size = size
        self.device = torch.device("cpu")
        self._read = read or functools.partial(decode, framing=size)
        self._contents = contents

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def shape(self) -> torch.Size:
        """Number of images, channels, height and width."""
        return torch.Size((len(self), self._channels, self._size, self._size))

    @property
    def names(self) -> tuple[str, ...]:
        """The paths."""
        return tuple(self._paths.tolist())

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        return self._gathered(self._begin(chosen))

    def each(
        self, choices: Iterable[Tensor], seeds: Iterable[Tensor] | None = None
    ) -> Iterator[Tensor]:
        """The images of one choice after the other, the next being read in the meantime.

        Args:
            choices: Indices (n,) of images.
            seeds: For each choice the seeds (n,) of random crops; None reads whole images.
        """
        before: list[Future[np.ndarray]] | None = None
        asked = zip(choices) if seeds is None else zip(choices, seeds, strict=True)
        for each in asked:
            begun = self._begin(*each)
            if before is not None:
                yield self._gathered(before)
            before = begun
        if before is not None:
            yield self._gathered(before)

    def subset(self, chosen: Tensor | slice) -> "ImageFiles":
        """These of the files, by index or by mask, unread."""
        result = copy.copy(self)
        result._paths = self._paths[_index(chosen)]
        if self._contents is not None:
            result._contents = self._contents[_index(chosen)]
        return result

    def joined(self, other: "ImageFiles") -> "ImageFiles":
        """These files and those of ``other``, unread."""
        result = copy.copy(self)
        result._paths = np.concatenate((self._paths, other._paths))
        if self._contents is not None and other._contents is not None:
            result._contents = np.concatenate((self._contents, other._contents))
        return result

    def to(self, device: torch.device | str) -> "ImageFiles":
        """The same files, for a device."""
        result = copy.copy(self)
        result.device = torch.device(device)
        return result

    def fingerprint(self) -> bytes:
        """What tells these files from others, wherever their folders are.

        What they hold and their order count where that was read; else their names, those of their
        folders, their sizes in bytes and their order.
        """
        if self._contents is not None:
            settings = [self._size, self._channels, getattr(self._read, "keywords", {})]
            return hashlib.sha256(repr(settings).encode() + self._contents.tobytes()).digest()
        lines = [f"{self._size} {self._channels}"]
        for path in map(Path, self._paths):
            lines.append(f"{path.parent.name}/{path.name} {path.stat().st_size}")
        return hashlib.sha256("\n".join(lines).encode()).digest()

    def _begin(
        self, chosen: Tensor | slice, seeds: Tensor | None = None
    ) -> list[Future[np.ndarray]]:
        paths = self._paths[_index(chosen)]
        read = functools.partial(self._read, channels=self._channels)
        if seeds is None:
            return [_READERS.submit(read, path) for path in paths]
        crops = zip(paths, seeds.tolist(), strict=True)
        return [_READERS.submit(read, path, crop=seed) for path, seed in crops]

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


def digest_of_parts(parts: Iterable[Pixels], before: bytes = b"") -> str:
    """Checksum of images and labels.

    Of images in files their fingerprints count.

    Args:
        parts: Images and labels.
        before: What is counted before them.
    """
    checksum = hashlib.sha256(before)
    for part in parts:
        checksum.update(repr(tuple(part.shape)).encode())
        if isinstance(part, ImageFiles):
            checksum.update(part.fingerprint())
        else:
            checksum.update(np.ascontiguousarray(part.cpu().numpy()).data)
    return checksum.hexdigest()


def pieces(
    images: Pixels, choices: Iterable[Tensor], seeds: Iterable[Tensor] | None = None
) -> Iterator[Tensor]:
    """The images of one choice of indices after the other, read ahead where they are in files.

    Args:
        images: The images.
        choices: Indices (n,) of images.
        seeds: For each choice the seeds (n,) of random crops; None takes whole images.
    """
    if isinstance(images, ImageFiles):
        return images.each(choices, seeds)
    if seeds is None:
        return (images[chosen] for chosen in choices)
    return (cropped(images[c], s) for c, s in zip(choices, seeds, strict=True))


def _index(chosen: Tensor | slice) -> np.ndarray | slice:
    return chosen if isinstance(chosen, slice) else chosen.cpu().numpy()
