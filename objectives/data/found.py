"""A data set as it was found: images with their classes, and splits where it says them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from optnas.objectives.data.image_files import Pixels
from optnas.objectives.data.membership import OPEN, ROWS
from optnas.objectives.data.names import SPLITS


@dataclasses.dataclass(frozen=True, eq=False)
class FoundImages:
    """Images whose splits are said, or follow from what they hold.

    Args:
        pixels: uint8 (N, C, H, W).
        rows: (N,) of `optnas.objectives.data.membership.ROWS`; a split may be open.
        names: The name of every image in the data set.
        class_names: One name per class.
        place: Where the images are.
        about: What else is to be said: fields of `optnas.objectives.data.reading.Reading`.
    """

    pixels: Pixels
    rows: np.ndarray
    names: Sequence[str]
    class_names: tuple[str, ...]
    place: str
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def rows_of(
    contents: Sequence[str] | np.ndarray,
    samples: Sequence[str] | np.ndarray,
    names: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    splits: Sequence[str | None],
) -> np.ndarray:
    """The rows of a `FoundImages`, of columns; a split that is None is open."""
    rows = np.zeros(len(names), ROWS)
    rows["content"], rows["samples"] = contents, samples
    rows["name"] = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
                    for name in names]  # fmt: skip
    rows["label"] = labels
    rows["split"] = [OPEN if split is None else SPLITS.index(split) for split in splits]
    return rows
