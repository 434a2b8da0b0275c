"""Sets of pairs to verify: InsightFace's ``.bin`` files and lists of pairs in text files."""

import dataclasses
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import Pixels
from optnas.objectives.faces.encoded import EncodedImages

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm")


@dataclasses.dataclass(frozen=True, eq=False)
class PairSet:
    """Images, and which of them are compared.

    Args:
        name: What it is called in reports.
        images: The images, (N, C, H, W).
        pairs: Indices of the images of every pair, int64 (P, 2), in the order of their folds.
        same: Whether a pair is of one person, (P,).
    """

    name: str
    images: Pixels
    pairs: np.ndarray
    same: np.ndarray


class _Plain(pickle.Unpickler):
    """Reads bytes, lists, tuples and booleans; whatever names a class or a function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of  # So older pickles write bytes.
        raise DataError(f"it asks for {module}.{name}, which no set of images needs")

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("it refers to something outside of itself")


def _bytes_of(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` is asked for in a pickle of bytes, and nothing else."""
    if not isinstance(text, str) or encoding != "latin1":
        raise DataError("it encodes what is no bytes")
    return text.encode("latin1")


def load_bin(path: Path, *, channels: int, size: int) -> PairSet:
    """A verification set as InsightFace ships it: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW.

    The file is a pickle of two lists: encoded images, two per pair one after the other, and
    whether each pair is of one person. It is read without letting it name any code.

    Args:
        path: The file.
        channels: Channels that are wanted.
        size: Height and width that are wanted.

    Raises:
        DataError: If it cannot be read or holds something else.
    """
    try:
        content = path.read_bytes()
        found = _Plain(io.BytesIO(content), encoding="bytes").load()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # Who knows what a pickle that was made up brings about.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} is no set of pairs: {reason}. Nothing of it was run.") from None
    if not (isinstance(found, tuple | list) and len(found) == 2):
        raise DataError(f"{path} is no set of pairs: it should hold two lists.")
    images, same = found
    if not _all_are(images, bytes) or not _all_are(same, bool) or len(images) != 2 * len(same):
        raise DataError(
            f"{path} is no set of pairs: it should hold a list of encoded images, two for each of "
            "a list of booleans."
        )
    pictures = EncodedImages(
        np.arange(len(images)),
        images.__getitem__,
        channels=channels,
        size=size,
        identity=f"{path.name} {len(content)}",
    )
    pairs = np.arange(len(images)).reshape(-1, 2)
    return PairSet(path.stem, pictures, pairs, np.array(same, dtype=bool))


def load_pairs(path: Path, *, channels: int, size: int) -> PairSet:
    """The pairs that a text file lists, of images in the folders beside it.

    Either LFW's format: a first line of one or two numbers, then ``NAME I J`` for a pair of one
    person and ``NAME I OTHER J`` for one of two, of the files ``NAME/NAME_0001.jpg``. Or ``FILE
    FILE 0`` and ``FILE FILE 1``, paths from the list's own folder, 1 for one person.

    Args:
        path: The file.
        channels: Channels that are wanted.
        size: Height and width that are wanted.

    Raises:
        DataError: If it cannot be read, a line is none of these, or an image is missing.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    files: dict[Path, int] = {}
    pairs: list[tuple[int, int]] = []
    same = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t") if "\t" in line else line.split()
        if not fields or (number == 1 and all(field.isdigit() for field in fields)):
            continue
        pair = _pair(fields, path.parent)
        if pair is None:
            raise DataError(
                f"{path}, line {number}: expected NAME I J, NAME I OTHER J, or FILE FILE and 0 or "
                f"1: {line!r}."
            )
        one, other, is_same = pair
        for file in (one, other):
            if file not in files and not file.is_file():
                raise DataError(f"{path}, line {number}: {file} does not exist.")
            files.setdefault(file, len(files))
        pairs.append((files[one], files[other]))
        same.append(is_same)
    if not pairs:
        raise DataError(f"{path} lists no pairs.")
    images = image_files(list(files), channels=channels, size=size)
    return PairSet(path.stem, images, np.array(pairs, dtype=np.int64), np.array(same, dtype=bool))


def image_files(paths: Sequence[Path], *, channels: int, size: int) -> EncodedImages:
    """Images in files of their own.

    Args:
        paths: The files.
        channels: Channels that are wanted.
        size: Height and width that are wanted.
    """
    return EncodedImages(
        np.arange(len(paths)),
        lambda key: paths[key].read_bytes(),
        channels=channels,
        size=size,
        identity=" ".join(f"{path.parent.name}/{path.name}" for path in paths),
    )


def _pair(fields: list[str], folder: Path) -> tuple[Path, Path, bool] | None:
    match fields:
        case [name, one, other] if one.isdigit() and other.isdigit():
            return _numbered(folder, name, one), _numbered(folder, name, other), True
        case [name, one, person, other] if one.isdigit() and other.isdigit():
            return _numbered(folder, name, one), _numbered(folder, person, other), False
        case [file, another, "0" | "1" as same]:
            return folder / file, folder / another, same == "1"
    return None


def _numbered(folder: Path, name: str, number: str) -> Path:
    stem = folder / name / f"{name}_{int(number):04d}"
    found = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    return next((path for path in found if path.is_file()), stem.with_name(f"{stem.name}.jpg"))


def _all_are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and bool(values) and all(type(v) is kind for v in values)
