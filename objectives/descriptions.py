"""What a trained network is and how good: for programs, and as a card for people."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pydantic

from optnas.errors import UserError

NETWORK = "network.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """What a trained network is and how good: the contents of ``network.json``.

    Accuracies are fractions; ``multiply_adds`` are for one image; ``data_sha256`` is of the
    training and test images and their labels.
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


def describe(folder: Path) -> Description | None:
    """What the network in ``folder`` is, or None if there is none.

    Raises:
        UserError: If the description there cannot be read.
    """
    path = folder / NETWORK
    if not path.exists():
        return None
    try:
        return pydantic.TypeAdapter(Description).validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        wrong = error.errors()[0]
        reason = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
    except OSError as error:
        reason = str(error.strerror)
    raise UserError(f"{path}: not the description of a network: {reason}")


def card(name: str, d: Description) -> str:
    """A page about the network in the folder ``name``, in Markdown."""
    origin = "\n".join(f"| {name} | {value} |" for name, value in d.origin.items())
    train = ", ".join(f"{name} {value}" for name, value in d.train.items())
    unseen = "that neither the search nor the\ntraining saw, measured once."
    if d.chosen_by_test:
        unseen = "by which the search\nchose the network: too good to be a test accuracy."
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
