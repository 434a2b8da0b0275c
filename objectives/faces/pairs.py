"""Pairs of images of known people, drawn to judge embeddings by."""

import math

import numpy as np

from optnas.objectives.data.errors import DataError
from optnas.objectives.verification import Indices

FOLDS = 10


def draw_pairs(
    labels: np.ndarray, genuine: int, impostor: int, seed: int
) -> tuple[Indices, Indices]:
    """Different pairs of one person and of two, drawn from all that there are.

    Args:
        labels: The person of every image, (N,).
        genuine: Greatest number of pairs of one person.
        impostor: Greatest number of pairs of two.
        seed: Decides which; nothing else does.

    Returns:
        Indices of images, (G, 2) and (I, 2), in a random order.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    per_person = sizes * (sizes - 1) // 2
    ends = np.cumsum(per_person)
    total = int(ends[-1])
    drawn = rng.choice(total, min(genuine, total), replace=False) if total else np.zeros(0, int)
    person = np.searchsorted(ends, drawn, side="right")
    inside = _unranked(drawn - (ends - per_person)[person]) + starts[person][:, None]
    number = len(labels) * (len(labels) - 1) // 2
    wanted = min(impostor, number - total)
    # Most pairs are of two people; where too few are, all are looked at.
    for size in (min(number, 2 * wanted + 100), number):
        every = _unranked(rng.choice(number, size, replace=False))
        others = every[labels[every[:, 0]] != labels[every[:, 1]]][:wanted]
        if len(others) == wanted:
            break
    return order[inside], others


def fold_pairs(labels: np.ndarray, count: int, seed: int) -> tuple[Indices, np.ndarray]:
    """Pairs for the ten-fold protocol: in every fold as many of one person as of two.

    Args:
        labels: The person of every image, (N,).
        count: Greatest number of pairs.
        seed: Decides which; nothing else does.

    Returns:
        Indices of images (P, 2), fold after fold, and whether a pair is of one person (P,).

    Raises:
        DataError: If there are fewer than ten pairs of one kind.
    """
    genuine, impostor = draw_pairs(labels, count // 2, count // 2, seed)
    each = min(len(genuine), len(impostor)) // FOLDS
    if each == 0:
        raise DataError(
            f"{len(np.unique(labels))} people with {len(labels)} images give {len(genuine)} pairs "
            f"of one person and {len(impostor)} of two; the ten folds need {FOLDS} of each: hold "
            "out more people, or take those with more images."
        )
    folds = [
        part[fold * each : (fold + 1) * each]
        for fold in range(FOLDS)
        for part in (genuine, impostor)
    ]
    same = np.tile(np.repeat([True, False], each), FOLDS)
    return np.concatenate(folds), same


def _unranked(ranks: Indices) -> Indices:
    """The pairs (i, j), i < j, of their numbers in the order (0,1), (0,2), (1,2), (0,3), ..."""
    later = ((1 + np.sqrt(1 + 8 * ranks.astype(np.float64))) / 2).astype(np.int64)
    # Roots of large numbers are rounded.
    later -= later * (later - 1) // 2 > ranks
    later += later * (later + 1) // 2 <= ranks
    return np.stack((ranks - later * (later - 1) // 2, later), axis=1)


def checked_fraction(name: str, asked: int | float, people: int) -> int:
    """A number of people, which is asked for as a number or as a fraction.

    Raises:
        DataError: If it leaves nobody on either side.
    """
    number = round(asked * people) if isinstance(asked, float) else asked
    if not 0 <= number <= people - 2 or math.isnan(asked):
        raise DataError(
            f"`{name}`: cannot hold out {number} of {people} people: two must be left to learn "
            "from."
        )
    return number
