"""What a trained network is and how good, for programs."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from optnas.errors import UserError
from optnas.objectives.kept.judgement import Judgement
from optnas.objectives.kept.preprocessing import Preprocessing

NETWORK = "network.json"
ENSEMBLE = "ensemble.json"
LARGEST = 2**28
"""Bytes of a description: a confusion matrix of 5,000 classes."""

D = TypeVar("D")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a trained network is and how good: the contents of ``network.json``.

    Accuracies are fractions; ``multiply_adds`` are for one image; ``data_sha256`` is of the
    training and test images and their labels; ``data`` says where the images came from: keys of
    a study file, and the seed of the splits. ``preprocessing``, ``judgement`` and ``data`` are
    None of networks that version 0.1.0 kept; it did not say the ``device`` of the training either.
    Of a face network, ``verification`` has what every
    set of test pairs gave, and ``thresholds`` the least score at which two faces are taken for
    one person's, by the false accept rate.
    """

    space: str
    architecture: dict[str, Any]
    augmentation: dict[str, Any]
    network: dict[str, Any]
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    params: int
    multiply_adds: int
    train: dict[str, Any]
    epochs: int
    seed: int
    data_sha256: str
    weights_sha256: str
    origin: dict[str, Any]
    test_accuracy: float
    test_images: int
    chosen_by_test: bool
    train_accuracy: float
    train_images: int
    train_seconds: float
    versions: dict[str, str]
    preprocessing: Preprocessing | None = None
    judgement: Judgement | None = None
    data: dict[str, Any] | None = None
    verification: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    device: str = ""

    @property
    def is_face(self) -> bool:
        """Whether it embeds faces, and does not classify."""
        return bool(self.verification)


@dataclasses.dataclass(frozen=True)
class EnsembleDescription:
    """What an ensemble is and how good: the contents of ``ensemble.json``.

    Its members are the networks in the folders 1, 2, ... beside it. ``params`` and
    ``multiply_adds`` are of all together, ``member_accuracies`` those of each alone on the same
    test images.
    """

    weights_sha256: tuple[str, ...]
    member_accuracies: tuple[float, ...]
    test_accuracy: float
    test_images: int
    chosen_by_test: bool
    params: int
    multiply_adds: int
    data_sha256: str
    versions: dict[str, str]
    judgement: Judgement | None = None


def describe(folder: Path) -> Description | None:
    """What the network in ``folder`` is, or None if there is none.

    Raises:
        UserError: If the description there cannot be read.
    """
    return _described(folder / NETWORK, Description, "a network")


def describe_ensemble(folder: Path) -> EnsembleDescription | None:
    """What the ensemble in ``folder`` is, or None if there is none.

    Raises:
        UserError: If the description there cannot be read.
    """
    return _described(folder / ENSEMBLE, EnsembleDescription, "an ensemble")


def _described(path: Path, kind: type[D], what: str) -> D | None:
    if not path.exists():
        return None
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(f"{path}: not the description of {what}: it has {size:,} bytes")
        return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        reason = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
    except OSError as error:
        reason = str(error.strerror)
    raise UserError(f"{path}: not the description of {what}: {reason}")
