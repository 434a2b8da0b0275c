"""The trained networks of a study, as their folders describe them, with how each was tested.

Whoever wrote a folder may have written anything: what is read is checked, and names no file.
"""

import dataclasses
import glob
import io
import warnings
from pathlib import Path
from typing import Annotated, Any

import pydantic
from annotated_types import Ge

from optnas.errors import first_line
from optnas.study.folders import network_folder
from optnas.study.opening import OpenStudy
from optnas.trials.chance import interval

MISTAKES = "mistakes.png"
"""The file of a network's folder that has the images of its worst mistakes, one below another."""
_LARGEST_FILE = 1 << 25
_GREATEST_SIDE = 128
_CONFIG = pydantic.ConfigDict(allow_inf_nan=False)
_Number = Annotated[float, pydantic.AllowInfNan(True)]


@pydantic.dataclasses.dataclass(frozen=True, config=_CONFIG)
class ClassScore:
    """How good a network is at one class; see `optnas.objectives.kept.judgement`."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@pydantic.dataclasses.dataclass(frozen=True, config=_CONFIG)
class Mistake:
    """An image that was taken for another class, and how sure the network was of that."""

    image: str | int
    label: str
    named: str
    probability: float


@pydantic.dataclasses.dataclass(frozen=True, config=_CONFIG)
class Judgement:
    """How good a network is on its test images; see `optnas.objectives.kept.judgement`."""

    accuracy: float
    top_5: float | None
    balanced_accuracy: float
    macro_f1: float
    chance: float
    is_chance: bool
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]

    @pydantic.model_validator(mode="after")
    def _square(self) -> "Judgement":
        classes = len(self.classes)
        if [len(row) for row in self.confusion] != [classes] * classes:
            raise ValueError("the confusion matrix must have a row and a column for every class")
        if any(count < 0 for row in self.confusion for count in row):
            raise ValueError("the confusion matrix must count")
        return self

    def value(self, metric: str) -> float | None:
        """What the search maximised, of the test images; None if it is none of theirs."""
        known = ("accuracy", "top_5", "balanced_accuracy", "macro_f1")
        found: float | None = getattr(self, metric) if metric in known else None
        return found


@pydantic.dataclasses.dataclass(frozen=True, config=_CONFIG)
class Tested:
    """A network, or an ensemble, that was trained and tested.

    Args:
        test_accuracy: The share of the test images that it is right on; of a face network NaN,
            unless its first set of pairs gave one.
        test_images: How many there are.
        chosen_by_test: Whether the search chose it by these images.
        params: Parameters.
        multiply_adds: For one image.
        data_sha256: Of the images it was trained and tested on.
        origin: Where its architecture comes from.
        epochs: How long it was trained; None of an ensemble.
        train_seconds: What that took; None of an ensemble.
        device: What it was trained on; empty where nobody says it.
        train_images: Images it was trained on; None of an ensemble.
        member_accuracies: Of an ensemble: those of its networks alone.
        judgement: How good it is by class; None of what version 0.1.0 kept.
        verification: Of a face network: what every set of test pairs gave.
    """

    test_accuracy: _Number
    test_images: Annotated[int, Ge(1)]
    chosen_by_test: bool
    params: int
    multiply_adds: int
    data_sha256: str
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    train_seconds: float | None = None
    train_images: int | None = None
    device: str = ""
    member_accuracies: tuple[float, ...] = ()
    judgement: Judgement | None = None
    verification: dict[str, dict[str, _Number]] = dataclasses.field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _share(self) -> "Tested":
        if not self.verification and not 0 <= self.test_accuracy <= 1:
            raise ValueError("the test accuracy must be a share")
        return self

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the test accuracy (Wilson)."""
        return interval(round(self.test_accuracy * self.test_images), self.test_images)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A network in its folder, with its trainings.

    Args:
        name: What it is called on the page.
        folder: Where the first training lies.
        trainings: All of them; the first one is what the page tells of.
        is_known: Whether it is a known network to compare with, and was not found.
    """

    name: str
    folder: Path
    trainings: tuple[Tested, ...]
    is_known: bool = False

    @property
    def first(self) -> Tested:
        """The training that the page tells of."""
        return self.trainings[0]

    def mistakes(self) -> list[bytes]:
        """The images of its worst mistakes, written anew; none where they were not kept."""
        judgement = self.first.judgement
        number = 0 if judgement is None else len(judgement.mistakes)
        return _tiles(self.folder / MISTAKES, number) if number else []


def kept_networks(handle: OpenStudy) -> list[Kept]:
    """What `optnas retrain` made of a study: the networks found, an ensemble, known networks.

    Only what was trained and tested on the same images as the first one is beside it.

    Args:
        handle: The study.
    """
    base = network_folder(handle)
    found = _kept("the network found", Path(base))
    if found is None:
        return []
    others = [_kept(f"next found, {number}", Path(f"{base}-{number}")) for number in range(2, 10)]
    beside = [_kept("ensemble of these", Path(f"{base}-ensemble"), "ensemble.json")]
    prefix = f"{base}-reference-"
    for folder in sorted(glob.glob(f"{glob.escape(prefix)}*")):
        name = folder.removeprefix(prefix)
        if "-repeat-" not in name:
            beside.append(_kept(name, Path(folder), is_known=True))
    alike = [
        each
        for each in (*others, *beside)
        if each is not None and each.first.data_sha256 == found.first.data_sha256
    ]
    return [found, *alike]


def _kept(
    name: str, folder: Path, file: str = "network.json", *, is_known: bool = False
) -> Kept | None:
    first = described(folder / file)
    if first is None:
        return None
    repeats = []
    for number in range(2, 100):
        repeat = described(Path(f"{folder}-repeat-{number}") / file)
        if repeat is None or repeat.data_sha256 != first.data_sha256:
            break
        repeats.append(repeat)
    return Kept(name, folder, (first, *repeats), is_known)


def described(path: Path) -> Tested | None:
    """The description in a file; None if there is none, and with a warning if it is no such.

    Args:
        path: The file.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError("it is too large")
        return pydantic.TypeAdapter(Tested).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{path} is left out, it describes no network: {first_line(error)}", stacklevel=2
        )
        return None


def _tiles(path: Path, number: int) -> list[bytes]:
    """The square images in a file, each as PNG or JPEG, whichever is smaller."""
    from PIL import Image

    try:
        if path.stat().st_size > _LARGEST_FILE:
            return []
        with Image.open(path, formats=["PNG"]) as sheet:
            side = sheet.width
            if not 0 < side <= _GREATEST_SIDE or sheet.height != side * number:
                return []
            pixels = sheet.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    corners = [(0, side * place, side, side * (place + 1)) for place in range(number)]
    return [_written(pixels.crop(corner)) for corner in corners]


def _written(picture: Any) -> bytes:
    shown = picture.crop(picture.getchannel("A").getbbox()).convert("RGB")
    written: list[bytes] = []
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 85})):
        buffer = io.BytesIO()
        shown.save(buffer, kind, **options)
        written.append(buffer.getvalue())
    return min(written, key=len)
