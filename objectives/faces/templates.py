"""IJB-B and IJB-C: templates of several images and frames, as InsightFace ships the two sets."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from optnas.objectives.data.errors import DataError
from optnas.objectives.faces.alignment import aligned
from optnas.objectives.faces.encoded import EncodedImages, open_image

KINDS = ("ijbb", "ijbc")


@dataclasses.dataclass(frozen=True, eq=False)
class TemplateSet:
    """Images in templates, and which templates are compared.

    Args:
        name: What it is called in reports.
        images: The images, (N, C, H, W), aligned.
        templates: The template of every image, int64 (N,).
        media: The medium of every image, int64 (N,).
        pairs: The templates of every pair, int64 (P, 2).
        same: Whether a pair is of one person, (P,).
    """

    name: str
    images: EncodedImages
    templates: np.ndarray
    media: np.ndarray
    pairs: np.ndarray
    same: np.ndarray


def is_template_set(folder: Path) -> bool:
    """Whether a folder holds one."""
    return any((folder / "meta" / f"{kind}_face_tid_mid.txt").is_file() for kind in KINDS)


def load_templates(folder: Path, *, channels: int, size: int) -> TemplateSet:
    """A set of templates.

    ``meta/ijbb_face_tid_mid.txt`` names the file, the template and the medium of every image,
    ``meta/ijbb_name_5pts_score.txt`` its five landmarks (and a score, unused), in the same order;
    ``meta/ijbb_template_pair_label.txt`` two templates and whether they are of one person. The
    images lie in ``loose_crop`` and are aligned when they are looked at. So for ``ijbc``.

    Args:
        folder: The folder that holds ``meta`` and ``loose_crop``.
        channels: Channels that are wanted.
        size: Height and width that are wanted.

    Raises:
        DataError: If a file is missing or is not as said.
    """
    kind = next((k for k in KINDS if (folder / "meta" / f"{k}_face_tid_mid.txt").is_file()), "")
    if not kind:
        raise DataError(f"{folder} is no IJB set: it has no meta/ijbb_face_tid_mid.txt.")
    meta = folder / "meta"
    names, numbers = _table(meta / f"{kind}_face_tid_mid.txt", 2)
    faces, points = _table(meta / f"{kind}_name_5pts_score.txt", 11)
    _, labels = _table(meta / f"{kind}_template_pair_label.txt", 3, named=False)
    if names != faces:
        raise DataError(
            f"{meta}: {kind}_face_tid_mid.txt and {kind}_name_5pts_score.txt do not name the same "
            "images in the same order."
        )
    landmarks = points[:, :10].reshape(-1, 5, 2)
    known = np.isin(labels[:, :2], numbers[:, 0])
    if not known.all():
        raise DataError(
            f"{meta}: {kind}_template_pair_label.txt compares the template "
            f"{int(labels[:, :2][~known][0])}, which has no images."
        )

    def read(number: int) -> Image.Image:
        picture = open_image((folder / "loose_crop" / names[number]).read_bytes(), names[number])
        return aligned(picture.convert("RGB"), landmarks[number].tolist(), size)

    images = EncodedImages(
        np.arange(len(names)),
        read,
        channels=channels,
        size=size,
        identity=f"{kind} {len(names)}",
    )
    numbers, labels = numbers.astype(np.int64), labels.astype(np.int64)
    columns = (numbers[:, 0], numbers[:, 1], labels[:, :2], labels[:, 2] == 1)
    return TemplateSet(kind.upper(), images, *columns)


def _table(path: Path, numbers: int, *, named: bool = True) -> tuple[list[str], np.ndarray]:
    """The names at the beginning of a file's lines, and the numbers behind them."""
    try:
        rows = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        names = [row.pop(0) for row in rows] if named else []
        table = np.array(rows, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != numbers:
            raise ValueError("not every line has them")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, ValueError, IndexError) as error:
        what = "a name and " if named else ""
        raise DataError(
            f"{path} should have {what}{numbers} numbers in each line: {error}."
        ) from None
    return names, table
