"""Data sets for classification that torchvision knows: read as it reads them."""

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optnas.config.settings import DataSettings
from optnas.errors import first_line
from optnas.objectives.data.decoding import FACTS, Depths, Framing, Picture, finished, read_opened
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.folders import DEFAULT_SIZE, HOW, framing_of, preparation
from optnas.objectives.data.found import FoundImages, rows_of
from optnas.objectives.data.names import SPLITS, TEST, TRAIN, VALIDATION
from optnas.objectives.data.reading import conversions, sizes_and_modes
from optnas.units import shown

# What the sets call their splits: the first that a set knows is taken.
_SPLIT_NAMES = {
    TRAIN: ("train", "trainval", "train-standard"),
    VALIDATION: ("val", "valid"),
    TEST: ("test",),
}


def load_torchvision(root: Path, settings: DataSettings) -> FoundImages:
    """A set of torchvision, with the splits that it has.

    Its images keep their size where all have one and `size` is not said.

    Args:
        root: Where its files are.
        settings: Its name, ``torchvision:NAME``, and what else is said.

    Raises:
        DataError: If there is no such set, its files are not there, or it is not for
            classification.
    """
    parts = _parts(_class(settings.name), root, settings)
    framing = framing_of(settings)
    if settings.size is None:
        shapes = {image.size for images in parts.values() for image in images.firsts}
        framing = dataclasses.replace(framing, size=0 if len(shapes) == 1 else DEFAULT_SIZE)
    pictures, labels, splits, names = _read(parts, framing, settings.name)
    if len({picture.values.shape[:2] for picture in pictures}) > 1 and not framing.size:
        framing = dataclasses.replace(framing, size=DEFAULT_SIZE)
        pictures, labels, splits, names = _read(parts, framing, settings.name)
    facts = np.array([picture.facts for picture in pictures], FACTS)
    channels = settings.channels or max(p.values.ndim * 2 - 3 for p in pictures)
    pixels = np.stack([finished(picture, framing, Depths(), channels) for picture in pictures])
    class_names = _class_names(next(iter(parts.values())).source, labels)
    rows = rows_of(facts["content"], facts["samples"], names, labels, splits)
    about = {**sizes_and_modes(facts), "converted": tuple(conversions(facts, framing, channels))}
    about["preparation"] = preparation(framing)
    if framing.size:
        about["framing"] = HOW[framing.resize]
    return FoundImages(torch.from_numpy(pixels), rows, names, class_names, str(root), about)


class _Part:
    """One split of a set: images with their labels."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    @property
    def firsts(self) -> list[Any]:
        """Some images, by which the sizes are guessed."""
        images = (self.source[i][0] for i in range(min(8, len(self))))
        return [image for image in images if hasattr(image, "size")]


def _class(name: str) -> type[Any]:
    from torchvision import datasets

    found = getattr(datasets, name.partition(":")[2], None)
    base = datasets.VisionDataset
    if not inspect.isclass(found) or not issubclass(found, base) or found is base:
        raise DataError(
            f"torchvision has no data set {shown(name.partition(':')[2])!r}; its documentation "
            "lists them, such as `torchvision:SVHN`."
        )
    return found


def _parts(cls: type[Any], root: Path, settings: DataSettings) -> dict[str | None, _Part]:
    parameters = inspect.signature(cls.__init__).parameters
    options: dict[str, Any] = {"download": settings.download} if "download" in parameters else {}
    if cls.__name__ == "EMNIST":
        options["split"] = "balanced"
    if "train" in parameters:
        asked: list[tuple[str | None, dict[str, Any]]] = [
            (TRAIN, {"train": True}),
            (TEST, {"train": False}),
        ]
    elif "split" in parameters:
        asked = [(split, {"split": name}) for split in SPLITS for name in _SPLIT_NAMES[split]]
    else:
        asked = [(None, {})]
    parts: dict[str | None, _Part] = {}
    for split, selection in asked:
        if split in parts:
            continue
        try:
            parts[split] = _Part(cls(str(root), **options, **selection))
        except ValueError as error:
            if "split" not in selection or "nknown value" not in str(error):
                raise _missing(settings, root, error) from error
        except Exception as error:  # missing or damaged files, no network, a missing package
            raise _missing(settings, root, error) from error
    if not parts or (TRAIN not in parts and None not in parts):
        raise DataError(f"`{settings.name}` has no training images that can be told.")
    return parts


def _missing(settings: DataSettings, root: Path, error: Exception) -> DataError:
    cure = "" if settings.download else " Set `download: true`, or put its files there."
    return DataError(
        f"`{settings.name}` cannot be read from {shown(root)}: {first_line(error)}.{cure}"
    )


def _read(
    parts: dict[str | None, _Part], framing: Framing, name: str
) -> tuple[list[Picture], list[int], list[str | None], list[str]]:
    from PIL import Image

    pictures: list[Picture] = []
    labels: list[int] = []
    splits: list[str | None] = []
    names: list[str] = []
    for split, part in parts.items():
        for index in range(len(part)):
            try:
                image, label = part.source[index][:2]
            except Exception as error:  # a damaged file, in words of a library's own
                raise DataError(f"`{name}`: image {index} cannot be read: {error}") from error
            if isinstance(label, torch.Tensor | np.integer) and np.ndim(label) == 0:
                label = int(label)
            if not isinstance(image, Image.Image) or type(label) is not int or label < 0:
                raise DataError(
                    f"`{name}` is not for classification: expected an image and the number of "
                    f"its class, and it gives {type(image).__name__} and {type(label).__name__}."
                )
            pictures.append(read_opened(image, framing))
            labels.append(label)
            splits.append(split)
            names.append(f"{split or 'image'}/{index}")
    return pictures, labels, splits, names


def _class_names(source: Any, labels: Sequence[int]) -> tuple[str, ...]:
    named = getattr(source, "classes", None) or getattr(source, "categories", None) or ()
    if len(named) > max(labels):
        firsts = (name[0] if isinstance(name, tuple) and name else name for name in named)
        return tuple(str(name) for name in firsts)
    return tuple(str(number) for number in range(max(labels) + 1))
