"""RecordIO files (``.rec`` with ``.idx``) as InsightFace ships its face sets: read as a stream.

A file is a row of records. Each part of one begins with a magic number and a word that holds its
kind (3 bits) and its length (29 bits); its bytes follow, filled up to a multiple of four. A record
in which the magic number occurs is cut there. A record of an image begins with a header: the
number of labels, a label, two numbers; then further labels and the encoded image.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from optnas.config.settings import DataSettings
from optnas.objectives.data.datasets import Dataset
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.splits import RawImages
from optnas.objectives.faces.encoded import EncodedImages, open_image

MAGIC = 0xCED7230A
_HEAD = struct.Struct("<II")
_IMAGE = struct.Struct("<IfQQ")
WHOLE, FIRST, MIDDLE, LAST = range(4)
"""Kinds of a record's parts."""


class Record(NamedTuple):
    """An image's record.

    Args:
        labels: Its labels: the identity first.
        content: The encoded image.
    """

    labels: tuple[float, ...]
    content: bytes


class RecordFile:
    """A RecordIO file, of which nothing but the index is in memory.

    Args:
        path: The ``.rec`` file. Its index, of the same name with ``.idx``, is read if it is
            there; else the records are looked for one after the other.

    Attributes:
        offsets: Where every record begins, by its key.

    Raises:
        DataError: If it cannot be read or is torn.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
            self.size = os.fstat(self._file).st_size
            index = path.with_suffix(".idx")
            self.offsets = self._indexed(index) if index.exists() else self._scanned()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from None
        if not self.offsets:
            raise DataError(f"{path} has no records.")
        self.read(max(self.offsets.values()))  # What was torn off is missing at the end.

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int) -> bytes:
        """A record by where it begins.

        Raises:
            DataError: If there is none, or it is torn.
        """
        kind, content, offset = self._part(offset)
        if kind not in (WHOLE, FIRST):
            raise self._torn(offset)
        parts = [content]
        while kind not in (WHOLE, LAST):
            kind, content, offset = self._part(offset)
            if kind not in (MIDDLE, LAST):
                raise self._torn(offset)
            parts.append(content)
        return MAGIC.to_bytes(4, "little").join(parts)

    def record(self, offset: int) -> Record:
        """An image's record by where it begins.

        Raises:
            DataError: If there is none, or it is torn.
        """
        content = self.read(offset)
        if len(content) < _IMAGE.size:
            raise self._torn(offset)
        number, label, _, _ = _IMAGE.unpack_from(content)
        if number == 0:
            return Record((label,), content[_IMAGE.size :])
        end = _IMAGE.size + 4 * number
        if len(content) < end:
            raise self._torn(offset)
        return Record(struct.unpack_from(f"<{number}f", content, _IMAGE.size), content[end:])

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the images' records begin, and their identities, both int64 (N,).

        InsightFace puts a record without an image first, which says how many images follow; the
        records behind these are of identities.

        Raises:
            DataError: If a record is torn.
        """
        keys = sorted(self.offsets)
        first = self.record(self.offsets[keys[0]])
        if not first.content:
            keys = [key for key in keys[1:] if key < int(first.labels[0])]
        offsets = np.array([self.offsets[key] for key in keys], dtype=np.int64)
        identities = np.array([self._identity(int(offset)) for offset in offsets])
        return offsets, identities.astype(np.int64)

    def _identity(self, offset: int) -> float:
        """The first label of a record, without its image."""
        head = os.pread(self._file, _HEAD.size + _IMAGE.size + 4, offset)
        if len(head) < _HEAD.size + _IMAGE.size or _HEAD.unpack_from(head)[0] != MAGIC:
            raise self._torn(offset)
        number, label, _, _ = _IMAGE.unpack_from(head, _HEAD.size)
        if number == 0:
            return float(label)
        if len(head) < _HEAD.size + _IMAGE.size + 4:
            raise self._torn(offset)
        return float(struct.unpack_from("<f", head, _HEAD.size + _IMAGE.size)[0])

    def _part(self, offset: int) -> tuple[int, bytes, int]:
        """Kind and content of one part, and where the next one begins."""
        head = os.pread(self._file, _HEAD.size, offset) if 0 <= offset < self.size else b""
        if len(head) < _HEAD.size:
            raise self._torn(offset)
        magic, word = _HEAD.unpack(head)
        length = word & (1 << 29) - 1
        if magic != MAGIC or offset + _HEAD.size + length > self.size:
            raise self._torn(offset)
        content = os.pread(self._file, length, offset + _HEAD.size)
        if len(content) < length:
            raise self._torn(offset)
        return word >> 29, content, offset + _HEAD.size + -(-length // 4) * 4

    def _indexed(self, index: Path) -> dict[int, int]:
        try:
            rows = [line.split("\t") for line in index.read_text("ascii").splitlines() if line]
            return {int(key): int(offset) for key, offset in rows}
        except ValueError:
            raise DataError(
                f"{index} is no index of {self.path.name}: each line is a key, a tab and an "
                "offset. Remove it, and the records are looked for."
            ) from None

    def _scanned(self) -> dict[int, int]:
        offsets: dict[int, int] = {}
        offset = 0
        while offset < self.size:
            kind, _, following = self._part(offset)
            if kind in (WHOLE, FIRST):
                offsets[len(offsets)] = offset
            offset = following
        return offsets

    def _torn(self, offset: int) -> DataError:
        return DataError(
            f"{self.path} is torn: there is no whole record at byte {offset:,} of {self.size:,}. "
            "Copy or unpack it again."
        )


def load_recordio(settings: DataSettings) -> RawImages:
    """The images of a RecordIO file and their identities, none of them for testing.

    Args:
        settings: ``root`` is the ``.rec`` file or the folder that holds one; ``size`` the height
            and width, by default those of the first image.

    Raises:
        DataError: If there is no such file, or it is torn.
    """
    path = _path(settings)
    file = RecordFile(path)
    offsets, identities = file.images()
    if not len(offsets):
        raise DataError(f"{path} has no images.")
    try:
        first = open_image(file.record(int(offsets[0])).content, "at the beginning")
    except OSError as error:
        raise DataError(f"{path}: {error}") from None
    names, labels = np.unique(identities, return_inverse=True)
    images = EncodedImages(
        offsets,
        lambda offset: file.record(offset).content,
        channels=1 if first.mode == "L" else 3,
        size=settings.size or min(first.size),
        identity=f"{path.name} {file.size}",
    )
    return _all_for_training(images, labels, tuple(map(str, names)), stream=settings.stream)


def _all_for_training(
    images: EncodedImages, labels: np.ndarray, names: tuple[str, ...], *, stream: bool
) -> RawImages:
    import torch

    identities = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    try:
        pixels = images if stream else images[slice(None)]
    except OSError as error:
        raise DataError(str(error)) from None
    none = pixels.subset(slice(0)) if isinstance(pixels, EncodedImages) else pixels[:0]
    return RawImages(pixels, identities, none, identities[:0], names)


def _path(settings: DataSettings) -> Path:
    root = None if settings.root is None else Path(settings.root).expanduser()
    if root is not None and root.is_dir():
        found = sorted(root.glob("*.rec"))
        if len(found) == 1:
            return found[0]
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"`recordio` needs `root`, one .rec file; {root} has: {names}.")
    if root is None or not root.is_file():
        where = "" if root is None else f": {root} does not exist"
        raise DataError(f"`recordio` needs `root`, a .rec file or the folder of one{where}.")
    return root


RECORDIO = Dataset(
    "Faces in a RecordIO file, as InsightFace ships its sets: `root` is the .rec file",
    load_recordio,
    validation=0.2,
    resizes=True,
)
