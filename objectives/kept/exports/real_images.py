"""Real images beside which an export is run: those of the training's data, or a folder's."""

import dataclasses
from pathlib import Path

import numpy as np
import pydantic
import torch
from torch import Tensor

from optnas.config.settings import DataSettings
from optnas.errors import UserError
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.image_files import joined
from optnas.objectives.data.images import load_images
from optnas.objectives.kept.descriptions import Description
from optnas.objectives.kept.prediction import Reader, image_files
from optnas.objectives.kept.trained import digest

COMPARED = 100
CALIBRATED = 512
JUDGED = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class RealImages:
    """Images as the network takes them, uint8 (N, C, H, W).

    Args:
        tests: For comparisons, at most 10,000.
        labels: Their classes, int64 (N,); None where nobody knows.
        training: For calibration, at most 512.
    """

    tests: Tensor
    labels: Tensor | None
    training: Tensor


def images_in(folder: Path, reader: Reader) -> RealImages:
    """The images in a folder; what cannot be read is left out.

    Raises:
        UserError: If none can.
    """
    read = []
    for path in image_files(folder)[:CALIBRATED]:
        try:
            read.append(reader(path))
        except (OSError, ValueError):
            continue
    if not read:
        raise UserError(f"{folder} holds no image that can be read")
    pixels = torch.from_numpy(np.stack(read))
    return RealImages(pixels, None, pixels)


def images_of(description: Description, *, unchanged: bool = False) -> RealImages:
    """The images of the training's own data set.

    Args:
        description: Of the network.
        unchanged: Whether they must be those of the training, to the last bit: what is judged by
            its test images must not have been trained on.

    Raises:
        UserError: If the description does not say where they are, or they are not there. Nothing
            that it says is ever imported.
    """
    keys = dict(description.data or {})
    seed = keys.pop("seed", None)
    name = keys.get("name")
    if not isinstance(name, str) or not isinstance(seed, int):
        raise UserError(f"the network does not say what images it learnt from; {_OTHERS}")
    if ":" in name and not name.startswith("torchvision:"):
        raise UserError(f"the images of {name!r} come from a function of your own; {_OTHERS}")
    try:
        settings = DataSettings.model_validate_json(pydantic.TypeAdapter(dict).dump_json(keys))
        changes = {"download": False, **(_ALL_PEOPLE if description.is_face else {})}
        images = load_images(settings.model_copy(update=changes), seed)
    except (pydantic.ValidationError, DataError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the training's images cannot be had ({reason}); {_OTHERS}") from None
    same_names = description.is_face or images.class_names == description.class_names
    same = same_names and images.input_shape == description.input_shape
    if same and unchanged:
        same = digest(images.with_validation_in_training()) == description.data_sha256
    if not same:
        raise UserError(f"the images of {name!r} have become others; {_OTHERS}")
    if description.is_face:
        others = joined(images.validation_images, images.train_images)
        faces = joined(images.test_images, others)[:COMPARED]
        return RealImages(faces, None, faces)
    chosen = torch.randperm(len(images.train_labels), generator=torch.Generator().manual_seed(0))[
        :CALIBRATED
    ]
    return RealImages(
        images.test_images[:JUDGED], images.test_labels[:JUDGED], images.train_images[chosen]
    )


_ALL_PEOPLE = {"validation": None, "classes": None, "samples": 1.0, "augment": None}
_OTHERS = "name a folder of images with --images"
