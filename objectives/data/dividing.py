"""From a data set as it was found to three splits, and the reading that says what they are."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optnas.config.settings import DataSettings
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.found import FoundImages
from optnas.objectives.data.image_files import Pixels, digest_of_parts, taken
from optnas.objectives.data.membership import (
    OPEN,
    TEST,
    TEST_SHARE,
    TRAIN,
    VALIDATION,
    Membership,
    Shares,
    divide,
    narrowed,
)
from optnas.objectives.data.reading import Reading, concerns, digest_of, split_counts, twins_of
from optnas.objectives.data.splits import RawImages


@dataclasses.dataclass(frozen=True, eq=False)
class Divided:
    """Images and labels of the three splits, and what was read."""

    parts: tuple[tuple[Pixels, Tensor], tuple[Pixels, Tensor], tuple[Pixels, Tensor]]
    class_names: tuple[str, ...]
    reading: Reading
    test_names: tuple[str, ...]


def divided(
    found: FoundImages,
    settings: DataSettings,
    default_validation: int | float,
    seed: int,
    known: Membership | None = None,
) -> Divided:
    """The chosen classes, split by what the images hold, as the settings say.

    Args:
        found: The data set.
        settings: What is wanted of it.
        default_validation: Images held out where the settings do not say how many.
        seed: The seed of the study.
        known: What the study has seen before.

    Raises:
        DataError: If it cannot be split as asked.
    """
    remarks = list(found.about.get("remarks", ()))
    found = _with_classes(found, settings.classes)
    rows, names = found.rows, found.names
    splits = _divided_rows(found, settings, default_validation, seed, known, remarks)
    rows = rows.copy()
    rows["split"] = splits
    membership = Membership(rows, found.class_names)
    used = _narrowed(rows, splits, settings, seed)
    counts = split_counts(rows["label"][used], splits[used], len(found.class_names))
    reading = Reading(
        name=settings.name,
        place=found.place,
        class_names=found.class_names,
        counts=counts,
        shape=(int(found.pixels.shape[1]), int(found.pixels.shape[2]), int(found.pixels.shape[3])),
        digest=digest_of(membership),
        twins=twins_of(rows, splits, names),
        membership=membership.joined(known),
        **{
            **found.about,
            "remarks": tuple(dict.fromkeys((*remarks, *concerns(found.class_names, counts)))),
        },
    )
    # In an order of what they hold: renamed files change nothing.
    order = used[np.lexsort((rows["content"][used], rows["samples"][used], rows["label"][used]))]
    labels = rows["label"].astype(np.int64)
    parts = []
    for split in (TRAIN, VALIDATION, TEST):
        chosen = order[splits[order] == split]
        index = torch.from_numpy(chosen)
        parts.append((taken(found.pixels, index), torch.from_numpy(labels[chosen])))
    tested = tuple(names[index] for index in order[splits[order] == TEST])
    return Divided((parts[0], parts[1], parts[2]), found.class_names, reading, tested)


def _divided_rows(
    found: FoundImages,
    settings: DataSettings,
    default: int | float,
    seed: int,
    known: Membership | None,
    remarks: list[str],
) -> np.ndarray:
    rows = found.rows.copy()
    named_splits = set(rows["split"].tolist()) - {OPEN}
    if VALIDATION in named_splits and settings.validation is not None:
        raise DataError(
            f"`validation`: the data set has validation images of its own "
            f"({int((rows['split'] == VALIDATION).sum()):,}); leave the key out."
        )
    asked = default if settings.validation is None else settings.validation
    validation = 0 if isinstance(asked, str) or VALIDATION in named_splits else asked
    tested = 0.0 if TEST in named_splits else TEST_SHARE
    if tested or validation:
        rows["split"][rows["split"] == TRAIN] = OPEN
    shares = Shares(tested, validation)
    try:
        return divide(rows, found.class_names, shares, seed, known, remarks)
    except DataError as error:
        if isinstance(settings.validation, int | float):
            raise DataError(f"`validation`: {error}") from None
        raise


def _narrowed(
    rows: np.ndarray, splits: np.ndarray, settings: DataSettings, seed: int
) -> np.ndarray:
    """The indices of the images that are used: all test images, of the others the samples."""
    if settings.samples == 1:
        return np.arange(len(rows))
    sizes = {split: int((splits == split).sum()) for split in (TRAIN, VALIDATION)}
    total = round(settings.samples * (sizes[TRAIN] + sizes[VALIDATION]))
    is_number = isinstance(settings.validation, int)
    held = sizes[VALIDATION] if is_number else round(settings.samples * sizes[VALIDATION])
    if sizes[VALIDATION]:
        held = max(held, len(np.unique(rows["label"][splits == VALIDATION])))
    try:
        parts = [
            narrowed(rows, splits, split, count, seed)
            for split, count in ((TRAIN, total - held), (VALIDATION, held))
            if sizes[split]
        ]
    except DataError as error:
        raise DataError(f"`samples`: {error}") from None
    return np.concatenate((*parts, np.flatnonzero(splits == TEST)))


def chosen_classes(class_names: tuple[str, ...], classes: Sequence[int | str]) -> list[int]:
    """The places of the classes that were chosen, by name or by index.

    A number is a name where all names are numbers, as 2 and 10 of ``2, 10, 30``.

    Raises:
        DataError: If they are not different classes of the data set.
    """
    places: dict[int | str, int] = {name: place for place, name in enumerate(class_names)}
    numbers = {int(name): i for i, name in enumerate(class_names) if _is_number(name)}
    if len(numbers) == len(class_names):
        places.update(numbers.items())
    else:
        places.update((place, place) for place in range(len(class_names)))
    chosen = [places.get(name, -1) for name in classes]
    if -1 in chosen or len(set(chosen)) < len(chosen):
        known = ", ".join(class_names[:20])
        raise DataError(
            f"`classes` must be different indices from 0 to {len(class_names) - 1} or different "
            f"names: {list(classes)}; the classes are {known}"
            f"{', ...' if len(class_names) > 20 else ''}."
        )
    return chosen


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii()


def _with_classes(found: FoundImages, classes: Sequence[int | str] | None) -> FoundImages:
    if classes is None:
        return found
    chosen = chosen_classes(found.class_names, classes)
    new_label = np.full(len(found.class_names), -1)
    new_label[chosen] = np.arange(len(chosen))
    labels = new_label[found.rows["label"]]
    kept = np.flatnonzero(labels >= 0)
    rows = found.rows[kept]
    rows["label"] = labels[kept]
    return dataclasses.replace(
        found,
        pixels=taken(found.pixels, torch.from_numpy(kept)),
        rows=rows,
        names=[found.names[int(index)] for index in kept],
        class_names=tuple(found.class_names[place] for place in chosen),
    )


def reading_of_known(
    raw: RawImages,
    place: str,
    name: str,
    parts: Sequence[Tensor],
    digest: str,
    shape: torch.Size,
    settings: DataSettings,
) -> Reading:
    """The reading of a data set that is known by name, or read by the rules of version 0.1.

    Args:
        raw: The set, with the chosen classes.
        place: Where it is.
        name: What it is called.
        parts: The labels of the three splits.
        digest: Of the images and labels.
        shape: That of the images (N, C, H, W).
        settings: What was asked for.
    """
    classes = len(raw.class_names)
    counts = {
        split: tuple(torch.bincount(labels, minlength=classes).tolist())
        for split, labels in zip(("train", "validation", "test"), parts, strict=True)
    }
    total = len(raw.train_labels) + len(raw.test_labels)
    _, channels, height, width = shape
    return Reading(
        name=name,
        place=place,
        class_names=raw.class_names,
        counts=counts,
        shape=(channels, height, width),
        digest=digest,
        sizes=((width, height, total),),
        modes={"uint8": total},
        preparation={"reading": 1} if settings.reading == 1 else {},
    )


def digest_of_known(raw: RawImages) -> str:
    """Digest of the images and labels of a data set and the names of its classes."""
    parts = (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels)
    return digest_of_parts(parts, repr(raw.class_names).encode())
