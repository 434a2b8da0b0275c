"""How face recognition is measured: pairs in ten folds, TAR at FAR, templates, ranks.

All is numpy; embeddings come from wherever they may.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

THRESHOLDS: Floats = np.arange(400) / 100
"""The thresholds that the ten-fold protocol tries on squared distances: 0.00 to 3.99."""


class FoldAccuracy(NamedTuple):
    """What came of the ten-fold protocol.

    Args:
        mean: Mean of the folds' accuracies, a fraction.
        folds: Accuracy of every fold.
        thresholds: The threshold that was applied to every fold.
    """

    mean: float
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]

    @property
    def deviation(self) -> float:
        """Standard deviation of the folds' accuracies, divided by their number."""
        return float(np.std(self.folds))


class RocPoint(NamedTuple):
    """One way to decide: pairs with at least the score ``threshold`` are accepted.

    Args:
        tar: True accept rate: the fraction of genuine pairs that are accepted.
        far: False accept rate: the fraction of impostor pairs that are accepted.
        threshold: Least score; infinite where no pair is accepted.
    """

    tar: float
    far: float
    threshold: float


def ten_fold_accuracy(
    distances: npt.ArrayLike, same: npt.ArrayLike, folds: int = 10
) -> FoldAccuracy:
    """Accuracy on pairs, each fold judged with the threshold that is best on the others.

    The pairs are cut into consecutive folds as they come, the first ones a pair longer where
    their number asks for it. A pair is said to be of one person if its distance is less than the
    threshold; of equally good thresholds the least is taken.

    Source: the protocol of LFW (Huang et al. 2007), with the thresholds that ArcFace's and
    AdaFace's code try.

    Args:
        distances: Squared distances of unit embeddings, (N,), in [0, 4].
        same: Whether a pair is of one person, (N,).
        folds: Number of folds, 2 to N.

    Raises:
        ValueError: If the shapes differ, a distance is not finite, or there are too few pairs.
    """
    distances, same = _scores("distances", distances), np.asarray(same, dtype=bool)
    if same.shape != distances.shape:
        raise ValueError(
            f"`distances` and `same` must be as long as each other: {distances.shape} and "
            f"{same.shape}."
        )
    if not 2 <= folds <= len(distances):
        raise ValueError(f"{folds} folds need at least as many pairs: {len(distances)}.")
    bounds = np.array_split(np.arange(len(distances)), folds)
    sizes = np.array([len(fold) for fold in bounds])
    correct = np.stack([_correct(distances[fold], same[fold]) for fold in bounds])
    # The first of equal counts: argmax takes it.
    best = np.argmax(correct.sum(0) - correct, axis=1)
    accuracies = correct[np.arange(folds), best] / sizes
    return FoldAccuracy(
        float(accuracies.mean()), tuple(accuracies.tolist()), tuple(THRESHOLDS[best].tolist())
    )


def _correct(distances: Floats, same: npt.NDArray[np.bool_]) -> Indices:
    """Number of pairs that every threshold decides correctly."""
    below = [
        np.searchsorted(np.sort(part), THRESHOLDS) for part in (distances[same], distances[~same])
    ]
    return np.asarray(below[0] + np.count_nonzero(~same) - below[1], dtype=np.int64)


def roc(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """The receiver operating characteristic, a point for every score that occurs.

    Args:
        genuine: Scores of pairs of one person, (N,).
        impostor: Scores of pairs of two, (M,).

    Returns:
        TAR, FAR and thresholds, from the highest threshold down: infinity, which accepts nothing,
        then every score.

    Raises:
        ValueError: If there are none of either, or a score is not finite.
    """
    genuine, impostor = _scores("genuine", genuine), _scores("impostor", impostor)
    if not len(genuine) or not len(impostor):
        raise ValueError("A ROC needs scores of genuine and of impostor pairs.")
    thresholds = np.unique(np.concatenate((genuine, impostor)))[::-1]
    accepted = [
        len(scores) - np.searchsorted(np.sort(scores), thresholds)
        for scores in (genuine, impostor)
    ]
    start = np.zeros(1)
    return (
        np.concatenate((start, accepted[0] / len(genuine))),
        np.concatenate((start, accepted[1] / len(impostor))),
        np.concatenate(([math.inf], thresholds)),
    )


def tar_at_far(
    genuine: npt.ArrayLike,
    impostor: npt.ArrayLike,
    far: float,
    *,
    nearest: bool = False,
    few: bool = False,
) -> RocPoint:
    """True accept rate where at most ``far`` of the impostor pairs are accepted.

    Args:
        genuine: Scores of pairs of one person, (N,); higher is more alike.
        impostor: Scores of pairs of two, (M,).
        far: The false accept rate that is wanted, in [0, 1].
        nearest: Take the point of the ROC whose FAR is nearest, as AdaFace's code does, which may
            exceed ``far``. It takes the corners of the curve alone, as scikit-learn's
            ``roc_curve`` leaves them, and of equally near ones that with the greater FAR.
        few: Answer even if there are fewer impostor pairs than 1 / ``far``.

    Raises:
        ValueError: If ``far`` is out of range, there are too few impostor pairs to tell such a
            rate from none, or the scores are none.
    """
    if not 0 <= far <= 1:
        raise ValueError(f"`far` must be in [0, 1]: {far}.")
    tars, fars, thresholds = roc(genuine, impostor)
    number = np.size(impostor)
    if not few and far * number < 1 - 1e-9 and far > 0:
        raise ValueError(
            f"A FAR of {far:g} needs at least {math.ceil(1 / far - 1e-9):,} impostor pairs: there "
            f"are {number:,}."
        )
    if nearest:
        corners = _corners(tars * np.size(genuine), fars * number)[::-1]
        index = corners[np.argmin(np.abs(fars[corners] - far))]
    else:
        index = np.flatnonzero(fars <= far)[-1]
    return RocPoint(float(tars[index]), float(fars[index]), float(thresholds[index]))


def _corners(accepted: Floats, wrongly: Floats) -> Indices:
    """The points of a ROC, in counts, at which it turns, and its ends."""
    accepted, wrongly = np.rint(accepted), np.rint(wrongly)
    turns = np.diff(accepted[1:], 2).astype(bool) | np.diff(wrongly[1:], 2).astype(bool)
    ends = np.ones(1, dtype=bool)
    inner = np.concatenate((ends, turns, ends)) if len(accepted) > 2 else ends
    return np.flatnonzero(np.concatenate((ends, inner)))


def unit(features: npt.ArrayLike) -> Floats:
    """Vectors (..., E) at length 1; a vector of zeros stays one."""
    vectors = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Floats = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return result


def flip_fused(features: npt.ArrayLike, mirrored: npt.ArrayLike) -> Floats:
    """Unit embeddings (N, E) of images, by those of the images and of their mirror images.

    They are added before anything is normalised: the surer of the two counts more.

    Args:
        features: Embeddings as the network puts them out, (N, E).
        mirrored: Those of the mirror images, (N, E).
    """
    return unit(np.asarray(features, dtype=np.float64) + np.asarray(mirrored, dtype=np.float64))


def squared_distances(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """Squared distances (N,) of vectors (N, E) in pairs."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    return np.asarray(np.square(difference).sum(-1))


def pooled_templates(
    features: npt.ArrayLike, templates: npt.ArrayLike, media: npt.ArrayLike
) -> tuple[npt.NDArray[Any], Floats]:
    """One unit vector for each template: several images and video frames of a person.

    The frames of one medium are averaged, the media added, the sum normalised. The score of two
    templates is their inner product.

    Source: the protocols of IJB-B and IJB-C (Whitelam et al. 2017, Maze et al. 2018), as ArcFace's
    and AdaFace's code pool them.

    Args:
        features: Embeddings as the network puts them out, (N, E): their norms count.
        templates: The template of every image, (N,).
        media: The medium of every image, (N,): numbers of their own within each template.

    Returns:
        The templates in ascending order, (T,), and their vectors, (T, E).

    Raises:
        ValueError: If the lengths differ.
    """
    vectors = np.asarray(features, dtype=np.float64)
    templates, media = np.asarray(templates), np.asarray(media)
    if not len(vectors) == len(templates) == len(media):
        raise ValueError(
            "`features`, `templates` and `media` must be as long as each other: "
            f"{len(vectors)}, {len(templates)} and {len(media)}."
        )
    names, template = np.unique(templates, return_inverse=True)
    _, medium = np.unique(media, return_inverse=True)
    keys, group, sizes = np.unique(
        np.stack((template, medium)), axis=1, return_inverse=True, return_counts=True
    )
    means = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(means, group.reshape(-1), vectors)
    means /= sizes[:, None]
    pooled = np.zeros((len(names), vectors.shape[1]))
    np.add.at(pooled, keys[0], means)
    return names, unit(pooled)


def template(features: npt.ArrayLike, media: npt.ArrayLike) -> Floats:
    """The unit vector (E,) of one template; see :func:`pooled_templates`."""
    same = np.zeros(len(np.asarray(media)), dtype=np.int64)
    _, vectors = pooled_templates(features, same, media)
    return np.asarray(vectors[0])


def identification_rate(
    scores: npt.ArrayLike,
    probes: npt.ArrayLike,
    gallery: npt.ArrayLike,
    ranks: Sequence[int] = (1, 5, 20),
) -> dict[int, float]:
    """Fraction of probes with an image of their person among the best of the gallery.

    Probes of people who are not in the gallery are left out. An image of another that scores just
    as well as the best of the own ones stands before it: so who tells nobody apart finds nobody.

    Args:
        scores: Of every probe with every image of the gallery, (P, G); higher is more alike.
        probes: The person of every probe, (P,). None or a negative number is nobody.
        gallery: The person of every image of the gallery, (G,), or nobody: a distractor.
        ranks: How many images of the gallery count as the best, each 1 or more.

    Returns:
        The rate for every rank.

    Raises:
        ValueError: If the shapes do not fit, a score is not finite, a rank is below 1, or nobody
            of the probes is in the gallery.
    """
    table = np.asarray(scores, dtype=np.float64)
    people, others = (np.asarray(names) for names in (probes, gallery))
    if table.shape != (len(people), len(others)) or not np.isfinite(table).all():
        raise ValueError(
            f"`scores` must be finite, a row for each of {len(people)} probes and a column for "
            f"each of {len(others)} images of the gallery: {table.shape}."
        )
    if any(rank < 1 for rank in ranks):
        raise ValueError(f"`ranks` must be 1 or more: {tuple(ranks)}.")
    own = (people[:, None] == others) & _is_somebody(people)[:, None]
    found = own.any(axis=1)
    if not found.any():
        raise ValueError("None of the probes is of a person in the gallery.")
    best = np.where(own, table, -np.inf).max(axis=1)
    before = np.count_nonzero((table >= best[:, None]) & ~own, axis=1)[found]
    return {rank: float(np.mean(before < rank)) for rank in ranks}


def _is_somebody(people: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if people.dtype.kind in "if":
        return np.asarray(people >= 0)
    return np.array([name is not None and name != "" for name in people], dtype=bool)


def _scores(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite numbers in one dimension: {array.shape}.")
    return array
