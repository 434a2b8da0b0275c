"""Data sets with a test set of their own: which classes and how many images are used."""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data.dividing import chosen_classes
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import taken
from optnas.objectives.data.splits import RawImages, draw_stratified
from optnas.seeds import derive_seed


def class_indices(raw: RawImages, settings: DataSettings) -> tuple[int, ...]:
    classes = settings.classes or ()
    if settings.reading == 1 and not any(isinstance(name, str) for name in classes):
        return tuple(int(index) for index in classes)
    return tuple(chosen_classes(raw.class_names, classes))


def only_classes(raw: RawImages, classes: tuple[int, ...]) -> RawImages:
    known = len(raw.class_names)
    if len(set(classes)) != len(classes) or max(classes) >= known:
        raise DataError(
            f"`classes` must be different indices from 0 to {known - 1}: {list(classes)}."
        )
    new_label = torch.full((known,), -1)
    new_label[list(classes)] = torch.arange(len(classes))
    train_labels, test_labels = new_label[raw.train_labels], new_label[raw.test_labels]
    return RawImages(
        taken(raw.train_images, train_labels >= 0),
        train_labels[train_labels >= 0],
        taken(raw.test_images, test_labels >= 0),
        test_labels[test_labels >= 0],
        tuple(raw.class_names[index] for index in classes),
    )


def sampled(raw: RawImages, fraction: float, seed: int) -> RawImages:
    count = round(fraction * len(raw.train_labels))
    with about("samples"):
        chosen = draw_stratified(raw.train_labels, count, derive_seed("samples", seed))
    return dataclasses.replace(
        raw,
        train_images=taken(raw.train_images, chosen),
        train_labels=raw.train_labels[chosen],
    )


@contextlib.contextmanager
def about(key: str) -> Iterator[None]:
    """Name the key of the study file that an error is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"`{key}`: {error}") from None


def validation_count(
    asked: int | float | None, default: int | float, raw: RawImages, full_size: int
) -> int:
    size = len(raw.train_labels)
    if asked is None:
        # A default number belongs to the whole set: it shrinks with what is left of the set.
        fraction = default if isinstance(default, float) else default / full_size
        return max(len(raw.class_names), round(fraction * size))
    return round(asked * size) if isinstance(asked, float) else asked
