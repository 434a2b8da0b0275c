"""The ORL (AT&T) faces: 40 people, ten shots of each, from one ``.npz`` file."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data.augment import resized
from optnas.objectives.data.datasets import Dataset
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.splits import RawImages

FILE = "orl_faces.npz"


def load_orl(settings: DataSettings) -> RawImages:
    """The faces by person and shot, none of them for testing.

    Args:
        settings: ``root`` is the file, with the arrays ``images`` (N, H, W) uint8, ``subject`` and
            ``shot`` (N,), or the folder that holds it; ``size`` makes the faces square.

    Raises:
        DataError: If there is no such file, or it is damaged.
    """
    if settings.root is None:
        raise DataError(f"`orl` needs `root`, the file {FILE} or its folder.")
    if settings.stream:
        raise DataError("`orl` does not take `stream`: it is one file; leave it out.")
    path = Path(settings.root).expanduser()
    path = path / FILE if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, subject, shot = (archive[name] for name in ("images", "subject", "shot"))
        if images.ndim != 3 or images.dtype != np.uint8 or subject.shape != images.shape[:1]:
            raise ValueError(f"its images are {images.dtype} {images.shape}")
        order = np.lexsort((shot, subject))
    except FileNotFoundError:
        raise DataError(f"`orl` needs `root`, the file {FILE}: {path} does not exist.") from None
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(f"{path} does not hold the ORL faces: {error}.") from None
    pixels = torch.from_numpy(images[order])[:, None].contiguous()
    if settings.size is not None:
        shape = (settings.size, settings.size)
        pixels = resized(pixels.float(), shape).round().byte().contiguous()
    names, labels = np.unique(subject[order], return_inverse=True)
    people = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    return RawImages(pixels, people, pixels[:0], people[:0], tuple(map(str, names)))


ORL = Dataset(
    "ORL (AT&T) faces: 400 photographs of 40 people, 112x92 grayscale, from a file of yours",
    load_orl,
    validation=0.2,
    resizes=True,
)
