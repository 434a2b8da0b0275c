"""Faces split by people: those to learn from, those to judge by, those to test with."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import Pixels, joined, taken
from optnas.objectives.data.images import Images, find_dataset
from optnas.objectives.data.splits import RawImages
from optnas.objectives.faces.pairs import checked_fraction
from optnas.seeds import derive_seed

HELD_OUT = 0.2
"""Fraction of the people who are held out, for each purpose, unless it is said otherwise."""


@dataclasses.dataclass(frozen=True, eq=False)
class FaceImages(Images):
    """Images whose splits have no person in common.

    ``train_labels`` number the people of ``class_names``; those of the other two splits number
    their own people, from 0.

    Args:
        validation_names: One name per person of the validation split.
        test_names: One name per person of the test split.
        held_out: Number or fraction of the people whom `split` takes to judge candidates by.
        prepared: How files became the images.
    """

    validation_names: tuple[str, ...] = ()
    test_names: tuple[str, ...] = ()
    held_out: int | float = HELD_OUT
    prepared: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def preparation(self) -> dict[str, Any]:
        """How files became the images, as far as it is known."""
        return self.prepared

    @property
    def mean(self) -> tuple[float, ...]:
        """A half, whatever the images are, as in the published recipe."""
        return (0.5,) * self.in_channels

    @property
    def std(self) -> tuple[float, ...]:
        """A half, whatever the images are."""
        return (0.5,) * self.in_channels

    def split(self, *, test: int | float, seed: int) -> "FaceImages":
        """Hold people out of those to learn from: ``held_out`` are drawn, to judge candidates by.

        Args:
            test: Number or fraction of people to test with: the last ones, in every study.
            seed: Decides who is drawn; nothing else does.

        Raises:
            DataError: If too few are left.
        """
        people = self.classes
        last = people - checked_fraction("test_identities", test, people)
        held = checked_fraction("validation", self.held_out, last)
        drawn = np.random.default_rng(derive_seed("held-out identities", seed)).permutation(last)
        parts = [np.sort(drawn[held:]), np.sort(drawn[:held]), np.arange(last, people)]
        (images, labels, names), validated, tested = (self._of(part) for part in parts)
        return dataclasses.replace(
            self,
            train_images=images,
            train_labels=labels,
            class_names=names,
            validation_images=validated[0],
            validation_labels=validated[1],
            validation_names=validated[2],
            test_images=tested[0],
            test_labels=tested[1],
            test_names=tested[2],
        )

    def with_validation_in_training(self) -> "FaceImages":
        """For final training: everybody but those to test with is learnt from."""
        labels = self.validation_labels + self.classes
        return dataclasses.replace(
            self,
            train_images=joined(self.train_images, self.validation_images),
            train_labels=torch.cat((self.train_labels, labels)),
            class_names=self.class_names + self.validation_names,
            validation_images=taken(self.validation_images, slice(0)),
            validation_labels=self.validation_labels[:0],
            validation_names=(),
        )

    def _of(self, people: np.ndarray) -> tuple[Pixels, torch.Tensor, tuple[str, ...]]:
        """The training images of some people, who are numbered anew."""
        number = torch.full((self.classes,), -1)
        number[torch.from_numpy(people)] = torch.arange(len(people))
        labels = number[self.train_labels]
        chosen = torch.nonzero(labels >= 0).flatten()
        names = tuple(self.class_names[person] for person in people)
        return taken(self.train_images, chosen), labels[chosen], names


def load_faces(settings: DataSettings, seed: int, folder: Path | None = None) -> FaceImages:
    """All images of a data set, none of them held out yet.

    Args:
        settings: Which images. ``samples`` is a fraction of the people; ``validation`` is for
            :meth:`FaceImages.split`.
        seed: Decides which people ``samples`` leaves.
        folder: Where modules are looked for; None is the current folder.

    Raises:
        DataError: If the data cannot be found or read.
    """
    if settings.validation == "test":
        raise DataError(
            "`validation`: faces are judged by people of their own: give a number or a fraction."
        )
    images, labels, names, prepared = _everything(settings, folder)
    recipe = Augmentation(flip=True)
    if settings.augment is not None:
        recipe = recipe.restricted(settings.augment, min(images.shape[2:]))
    none, nobody = taken(images, slice(0)), labels[:0]
    faces = FaceImages(
        images,
        labels,
        none,
        nobody,
        none,
        nobody,
        names,
        recipe,
        settings=settings,
        seed=seed,
        held_out=HELD_OUT if settings.validation is None else settings.validation,
        prepared=prepared,
    )
    people = np.arange(faces.classes) if settings.classes is None else np.array(settings.classes)
    if people.max() >= faces.classes or len(np.unique(people)) < len(people):
        raise DataError(f"`classes` must be different indices from 0 to {faces.classes - 1}.")
    if settings.samples < 1:
        count = max(2, round(settings.samples * len(people)))
        rng = np.random.default_rng(derive_seed("samples", seed))
        people = np.sort(rng.permutation(people)[:count])
    if len(people) == faces.classes and settings.classes is None:
        return faces
    images, labels, names = faces._of(people)
    return dataclasses.replace(faces, train_images=images, train_labels=labels, class_names=names)


def _everything(
    settings: DataSettings, folder: Path | None
) -> tuple[Pixels, torch.Tensor, tuple[str, ...], dict[str, Any]]:
    """All images of a data set, whatever splits it has, their people, these people's names, and
    how files became the images."""
    dataset = find_dataset(settings.name, folder or Path.cwd())
    dataset.check(settings)
    found = dataset.load(settings)
    if not isinstance(found, RawImages):
        labels = torch.from_numpy(found.rows["label"].astype(np.int64))
        return found.pixels, labels, found.class_names, found.about.get("preparation", {})
    images, labels = found.train_images, found.train_labels
    if len(found.test_labels):
        images, labels = joined(images, found.test_images), torch.cat((labels, found.test_labels))
    return images, labels, found.class_names, {"reading": 1} if settings.reading == 1 else {}
