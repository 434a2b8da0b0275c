"""What a trained network is and how good: for programs, and as a card for people."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from optnas.errors import UserError
from optnas.objectives.kept.preprocessing import Preprocessing

NETWORK = "network.json"
ENSEMBLE = "ensemble.json"

D = TypeVar("D")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a trained network is and how good: the contents of ``network.json``.

    Accuracies are fractions; ``multiply_adds`` are for one image; ``data_sha256`` is of the
    training and test images and their labels; ``preprocessing`` is None of networks that
    version 0.1.0 kept.
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
        return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        reason = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
    except OSError as error:
        reason = str(error.strerror)
    raise UserError(f"{path}: not the description of {what}: {reason}")


def card(name: str, d: Description) -> str:
    """A page about the network in the folder ``name``, in Markdown."""
    origin = "\n".join(f"| {name} | {value} |" for name, value in d.origin.items())
    train = ", ".join(f"{name} {value}" for name, value in d.train.items())
    unseen = _unseen(d.chosen_by_test)
    height_width = " x ".join(str(side) for side in d.input_shape[1:])
    return f"""# Image classifier found by architecture search

Test accuracy **{d.test_accuracy:.4f}** on {d.test_images} images {unseen}

| | |
|---|---|
| input | {d.input_shape[0]} channels, {height_width} pixels |
| classes | {len(d.class_names)}: {", ".join(d.class_names)} |
| parameters | {d.params:,} |
| multiply-adds per image | {d.multiply_adds:,} |
| trained | {d.epochs} epochs on {d.train_images} images, {d.train_seconds:.0f} s |
| training accuracy, augmented images | {d.train_accuracy:.4f} |
{origin}

Architecture, in the space `{d.space}`:

```json
{json.dumps(d.architecture)}
```

Training: {train}, seed {d.seed}. Versions: {d.versions}.

```python
import optnas

model = optnas.load({name!r})  # this folder
logits = model(images)  # uint8, shape (N, {", ".join(map(str, d.input_shape))})
```
"""


def ensemble_card(name: str, d: EnsembleDescription) -> str:
    """A page about the ensemble in the folder ``name``, in Markdown."""
    members = "\n".join(
        f"| [{number}]({number}/README.md) | {accuracy:.4f} |"
        for number, accuracy in enumerate(d.member_accuracies, start=1)
    )
    return f"""# Ensemble of image classifiers found by architecture search

Test accuracy **{d.test_accuracy:.4f}** on {d.test_images} images {_unseen(d.chosen_by_test)}
The answer is the mean of the probabilities of {len(d.member_accuracies)} networks with together
{d.params:,} parameters and {d.multiply_adds:,} multiply-adds per image.

| network | test accuracy alone |
|---|---|
{members}

```python
import optnas

model = optnas.load({name!r})  # this folder
logits = model(images)  # uint8 images as they are
```
"""


def _unseen(chosen_by_test: bool) -> str:
    if chosen_by_test:
        return "by which the search\nchose the network: too good to be a test accuracy."
    return "that neither the search nor the\ntraining saw, measured once."
