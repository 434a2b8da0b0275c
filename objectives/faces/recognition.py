"""Kept face networks at work: are two faces of one person, and whose face is it?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optnas.errors import UserError
from optnas.objectives.faces.encoded import open_image, pixels
from optnas.objectives.faces.pair_sets import SUFFIXES
from optnas.objectives.kept import trained
from optnas.objectives.kept.descriptions import describe
from optnas.objectives.kept.embedders import Embedder


@dataclasses.dataclass(frozen=True)
class _FaceNetwork:
    """A kept network, what it takes, and the score from which faces are one person's."""

    embedder: Embedder
    channels: int
    size: int
    threshold: float
    far: float

    def embeddings(self, paths: Sequence[Path]) -> np.ndarray:
        """Unit embeddings (N, E) of aligned faces in files."""
        found = []
        for start in range(0, len(paths), 64):
            batch = np.stack([self._pixels(path) for path in paths[start : start + 64]])
            device = next(self.embedder.parameters()).device
            with torch.inference_mode():
                found.append(self.embedder(torch.from_numpy(batch).to(device)).double().cpu())
        return torch.cat(found).numpy()

    def _pixels(self, path: Path) -> np.ndarray:
        try:
            return pixels(open_image(path.read_bytes(), str(path)), self.channels, self.size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{path} cannot be read as an image: {reason}") from None


def verify(
    network: Path, one: Path, other: Path, *, far: float | None = None, device: str | None = None
) -> dict[str, Any]:
    """Whether two aligned faces are of one person.

    Args:
        network: A folder that `optnas retrain` wrote.
        one: An image of a face.
        other: Another.
        far: The false accept rate that the threshold was set at; None takes 0.01, or the nearest.
        device: A torch device; None takes the CPU.

    Returns:
        ``score``, the inner product of the embeddings; ``threshold``, ``far`` and ``same``.

    Raises:
        UserError: If the folder holds no face network, it knows no such rate, or an image cannot
            be read.
    """
    kept = _loaded(network, far, device)
    first, second = kept.embeddings([one, other])
    score = float(first @ second)
    return {
        "score": score,
        "threshold": kept.threshold,
        "far": kept.far,
        "same": score >= kept.threshold,
    }


def identify(
    network: Path,
    gallery: Path,
    photos: Sequence[Path],
    *,
    far: float | None = None,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Whose the aligned faces are, of the people in a gallery.

    Args:
        network: A folder that `optnas retrain` wrote.
        gallery: A folder with a folder of images per person.
        photos: Images of faces.
        far: As for `verify`: of comparing with one image of the gallery.
        device: A torch device; None takes the CPU.

    Returns:
        For every photo ``photo``, the ``person`` of the image that is most like it, or None if no
        score reaches the threshold; ``nearest``, that person all the same; ``score``,
        ``threshold`` and ``far``.

    Raises:
        UserError: As `verify`, or if the gallery has nobody.
    """
    kept = _loaded(network, far, device)
    people = _people(gallery)
    known = kept.embeddings([path for _, path in people])
    answers = []
    for photo, row in zip(photos, kept.embeddings(photos) @ known.T, strict=True):
        best = int(np.argmax(row))
        nearest, score = people[best][0], float(row[best])
        answers.append(
            {
                "photo": str(photo),
                "person": nearest if score >= kept.threshold else None,
                "nearest": nearest,
                "score": score,
                "threshold": kept.threshold,
                "far": kept.far,
            }
        )
    return answers


def _loaded(folder: Path, far: float | None, device: str | None) -> _FaceNetwork:
    embedder, description = trained.load(folder, device or "cpu"), describe(folder)
    if not isinstance(embedder, Embedder) or description is None:
        raise UserError(f"{folder} holds no face network, but a classifier.")
    channels, size, _ = description.input_shape
    known = {float(rate): threshold for rate, threshold in embedder.thresholds.items()}
    if not known:
        raise UserError(f"{folder} knows no threshold: it was tested on too few pairs.")
    if far is not None and far not in known:
        rates = ", ".join(f"{rate:g}" for rate in sorted(known))
        raise UserError(f"--far: thresholds were set at {rates}, not at {far:g}.")
    rate = min(known, key=lambda rate: abs(np.log(rate / (far or 0.01))))
    return _FaceNetwork(embedder, channels, size, known[rate], rate)


def _people(gallery: Path) -> list[tuple[str, Path]]:
    """The images of a gallery, and whose they are."""
    if not gallery.is_dir():
        raise UserError(f"{gallery} is no folder; a gallery is a folder with one per person.")
    found = [
        (folder.name, path)
        for folder in sorted(gallery.iterdir())
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise UserError(
            f"{gallery} has no folders with images; put those of each person into one."
        )
    return found
