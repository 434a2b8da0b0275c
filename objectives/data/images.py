"""Images to search on: loaded, narrowed, split and ready to be moved to a device."""

import dataclasses
import difflib
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optnas.config.settings import DataSettings
from optnas.extensions.importing import PluginError, entry_names, load_entry
from optnas.objectives.data.arrays import images_of, load_function
from optnas.objectives.data.augment import Augmentation, resized
from optnas.objectives.data.contact import Strip, contact_sheet
from optnas.objectives.data.datasets import (
    DATASETS,
    GROUP,
    TORCHVISION,
    Dataset,
    default_augmentation,
    function_dataset,
)
from optnas.objectives.data.dividing import (
    digest_of_known,
    divided,
    reading_of_known,
)
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import ImageFiles, Pixels, joined, taken
from optnas.objectives.data.narrowing import (
    about,
    class_indices,
    only_classes,
    sampled,
    validation_count,
)
from optnas.objectives.data.reading import Reading, membership_of
from optnas.objectives.data.splits import RawImages, hold_out
from optnas.seeds import derive_seed

__all__ = ["DATASETS", "DataError", "Dataset", "Images", "load_images"]

MOMENT_IMAGES = 10_000
"""Number of images in files from which the mean and the deviation are estimated."""
MOMENT_PIECE = 250
"""How many of them are in memory at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """A data set split for training, choosing and testing.

    Images are uint8 (N, C, H, W), in memory or in files; labels int64 (N,) from 0 to the number
    of classes - 1.

    Args:
        train_images: What candidates learn from.
        train_labels: Their classes.
        validation_images: What candidates are judged by; none after
            `with_validation_in_training`.
        validation_labels: Their classes.
        test_images: For the final network only.
        test_labels: Their classes.
        class_names: One name per class.
        augmentation: The recipe for training images.
        validates_on_test: Whether the validation split is the test set.
        reading: What was read of the data set; None for images that were put together otherwise.
        settings: What was asked for.
        seed: What the splits were drawn with.
        test_names: The names of the test images; None where they have none.
    """

    train_images: Pixels
    train_labels: Tensor
    validation_images: Pixels
    validation_labels: Tensor
    test_images: Pixels
    test_labels: Tensor
    class_names: tuple[str, ...]
    augmentation: Augmentation
    validates_on_test: bool = False
    reading: Reading | None = None
    settings: DataSettings | None = None
    seed: int | None = None
    test_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return int(self.train_images.shape[1])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images as a network sees them when it is evaluated."""
        channels, height, width = self.train_images.shape[1:]
        return channels, *(self.augmentation.resize or (height, width))

    @property
    def preparation(self) -> dict[str, Any]:
        """How files became these images, as far as it is known: see `Reading`."""
        return self.reading.preparation if self.reading else {}

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel of the training split's intensities in [0, 1].

        Of images in files, the first 10,000 of a fixed random order are looked at.
        """
        return tuple(mean for mean, _ in self._moments)

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel, of the same; 1 for a channel that never changes."""
        return tuple(std for _, std in self._moments)

    @functools.cached_property
    def _moments(self) -> tuple[tuple[float, float], ...]:
        # Sums of integers, so that every device finds the same numbers.
        counts = torch.zeros(self.in_channels, 256, dtype=torch.int64)
        for images in self._looked_at():
            for channel in range(self.in_channels):
                pixels = images[:, channel].flatten()
                counts[channel] += torch.bincount(pixels, minlength=256).cpu()
        result = []
        for channel in counts:
            histogram = list(enumerate(channel.tolist()))
            total = sum(count for _, count in histogram)
            first = sum(value * count for value, count in histogram)
            second = sum(value * value * count for value, count in histogram)
            variance = (total * second - first * first) / (255 * total) ** 2
            result.append((first / (255 * total), variance**0.5 or 1.0))
        return tuple(result)

    def _looked_at(self) -> Iterable[Tensor]:
        """The images that the moments are of; those in files a few at a time."""
        images = self.train_images
        if isinstance(images, Tensor):
            return [images]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        return images.each(torch.split(order[:MOMENT_IMAGES], MOMENT_PIECE))

    def contact_sheet(self) -> list[Strip]:
        """Some training images of every class, with and without augmentation."""
        return contact_sheet(
            self.train_images,
            self.train_labels,
            self.class_names,
            self.augmentation,
            (self.mean, self.std),
        )

    def to(self, device: torch.device | str) -> "Images":
        """The same images on a device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), Tensor | ImageFiles)
        }
        return dataclasses.replace(self, **moved)

    def reduced(self, side: Callable[[int], int]) -> "Images":
        """The same images at a lower resolution.

        Training images are resized after they were cropped and flipped, as in EcoNAS's code; the
        others at once.

        Args:
            side: The reduced height or width, of the full one.

        Raises:
            DataError: If the images are in files.
        """
        _, height, width = self.input_shape
        shape = (side(height), side(width))
        return dataclasses.replace(
            self,
            validation_images=_resized_pixels(self.validation_images, shape),
            test_images=_resized_pixels(self.test_images, shape),
            augmentation=dataclasses.replace(self.augmentation, resize=shape),
        )

    def with_validation_in_training(self) -> "Images":
        """For final training: everything but the test set is trained on; nothing is held out.

        `mean` and `std` are those of the larger training split. Test images never enter it,
        even where they served for validation.
        """
        images, labels = self.train_images, self.train_labels
        if not self.validates_on_test:
            images = joined(images, self.validation_images)
            labels = torch.cat((labels, self.validation_labels))
        return dataclasses.replace(
            self,
            train_images=images,
            train_labels=labels,
            validation_images=taken(self.validation_images, slice(0)),
            validation_labels=self.validation_labels[:0],
            validates_on_test=False,
        )


def _resized_pixels(images: Pixels, shape: tuple[int, int]) -> Tensor:
    if isinstance(images, ImageFiles):
        raise DataError(
            "A proxy of reduced resolution needs the images in memory: leave out `stream`, or "
            "write r0."
        )
    pieces = torch.split(images, 4096)
    return torch.cat([resized(p.float(), shape).round().byte() for p in pieces]).contiguous()


def load_images(
    settings: DataSettings,
    seed: int,
    folder: Path | None = None,
    *,
    known: Mapping[str, Any] | None = None,
) -> Images:
    """Load a data set and split it as the settings say.

    The order is: the chosen classes, then the fraction of the training images, then the
    validation split; of own images the splits come before the fraction. Equal settings and seeds
    give equal splits.

    Args:
        settings: Which images, and how they are split and augmented.
        seed: Decides which training images are used and held out.
        folder: Where the module of a function is looked for that is not installed: the study
            file's folder. None is the current folder.
        known: What a study has recorded of its data (`Reading.record`); the images that it has
            seen stay in their splits.

    Raises:
        DataError: If the data cannot be found or read, or cannot be split as asked.
    """
    dataset = find_dataset(settings.name, folder or Path.cwd())
    dataset.check(settings)
    found = dataset.load(settings)
    if isinstance(found, RawImages):
        return _drawn(found, settings, dataset, seed)
    membership = None if known is None else membership_of(known)
    whole = divided(found, settings, dataset.validation, seed, membership)
    parts = whole.parts
    is_by_test = settings.validation == "test"
    if is_by_test:
        _warn_of_test()
    validation = parts[2] if is_by_test else parts[1]
    augmentation = _augmentation(dataset, settings, parts[0][0])
    return Images(
        *parts[0],
        *validation,
        *parts[2],
        whole.class_names,
        augmentation,
        is_by_test,
        whole.reading,
        settings,
        seed,
        whole.test_names,
    )


def _drawn(raw: RawImages, settings: DataSettings, dataset: Dataset, seed: int) -> Images:
    """A data set with a test set: its validation split is drawn."""
    digest = digest_of_known(raw)
    full_size = len(raw.train_labels)
    if settings.classes is not None:
        raw = only_classes(raw, class_indices(raw, settings))
    if settings.samples < 1:
        raw = sampled(raw, settings.samples, seed)
    augmentation = _augmentation(dataset, settings, raw.train_images)
    if settings.validation == "test":
        _warn_of_test()
        kept: Tensor | slice = slice(None)
        held = raw.test_images, raw.test_labels
    else:
        count = validation_count(settings.validation, dataset.validation, raw, full_size)
        with about("validation"):
            kept, out = hold_out(raw.train_labels, count, derive_seed("validation split", seed))
        held = taken(raw.train_images, out), raw.train_labels[out]
    images, labels = taken(raw.train_images, kept), raw.train_labels[kept]
    is_by_test = settings.validation == "test"
    shown = (labels, held[1][: 0 if is_by_test else None], raw.test_labels)
    place = settings.root or settings.name
    reading = reading_of_known(raw, place, settings.name, shown, digest, images.shape, settings)
    return Images(
        images,
        labels,
        *held,
        raw.test_images,
        raw.test_labels,
        raw.class_names,
        augmentation,
        is_by_test,
        reading,
        settings,
        seed,
        raw.test_images.names if isinstance(raw.test_images, ImageFiles) else None,
    )


def _augmentation(dataset: Dataset, settings: DataSettings, images: Pixels) -> Augmentation:
    side = min(images.shape[2:])
    augmentation = dataset.augmentation or default_augmentation(side)
    if settings.augment is not None:
        augmentation = augmentation.restricted(settings.augment, side)
    if augmentation.resized_crop and settings.reading == 1:
        raise DataError("`augment`: resized_crop needs `reading: 2`.")
    return augmentation


def _warn_of_test() -> None:
    warnings.warn(
        "Candidates are judged by the test set (`validation: test`): the accuracies of the search "
        "are too good to be reported as test accuracies.",
        stacklevel=3,
    )


def find_dataset(name: str, folder: Path) -> Dataset:
    """A data set by its name, or the function of a user's own.

    Args:
        name: As in a study file.
        folder: Where the module of a function is looked for that is not installed.

    Raises:
        DataError: If there is none.
    """
    if name.startswith("torchvision:"):
        return DATASETS[TORCHVISION]
    if ":" in name:
        return function_dataset(functools.partial(load_function, folder=folder))
    try:
        found = load_entry("data set", GROUP, name)
    except PluginError as error:
        raise DataError(str(error)) from error
    if isinstance(found, Dataset):
        return found
    if callable(found):
        return function_dataset(functools.partial(images_of, found))
    if found is not None:
        raise DataError(f"The data set `{name}` must be a `Dataset` or a function: {found!r}.")
    known = list(dict.fromkeys((*DATASETS, *entry_names(GROUP))))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    raise DataError(f"There is no data set `{name}`.{hint} Known: {', '.join(known)}.")
