"""Kept face networks at work: are two faces of one person, and whose face is it?"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optnas.errors import UserError
from optnas.objectives.faces.pair_sets import SUFFIXES
from optnas.objectives.kept import trained
from optnas.objectives.kept.embedders import Embedder


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
    found = _loaded(network, device).similarity(one, other, far=far)
    return {**dataclasses.asdict(found), "same": found.same}


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
    kept = _loaded(network, device)
    rate, threshold = kept.threshold(far)
    people = _people(gallery)
    known = kept.vectors([path for _, path in people])
    answers = []
    for photo, row in zip(photos, kept.vectors(photos) @ known.T, strict=True):
        best = int(np.argmax(row))
        nearest, score = people[best][0], float(row[best])
        answers.append(
            {
                "photo": str(photo),
                "person": nearest if score >= threshold else None,
                "nearest": nearest,
                "score": score,
                "threshold": threshold,
                "far": rate,
            }
        )
    return answers


def _loaded(folder: Path, device: str | None) -> Embedder:
    embedder = trained.load(folder, device or "cpu")
    if not isinstance(embedder, Embedder):
        raise UserError(f"{folder} holds no face network, but a classifier.")
    return embedder


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
