"""Partial least squares: how important features are for telling classes apart.

The regression is that of scikit-learn's `PLSRegression`, which needs all samples at once and is
here fitted to any number of them, in as many passes as it has components, and one more.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optnas.objectives.importance.feature_selection import Array, checked_features, checked_labels

Piece = tuple[NDArray[np.floating[Any]], NDArray[np.int64]]
"""Some samples: features (n, p), and labels (n,) from 0 to the number of classes - 1."""
Chunks = Callable[[], Iterable[Piece]]
"""All samples in pieces, the same at every call."""

_ROWS = 1024
# scikit-learn's, for the singular vectors of a regression.
_POWER_STEPS = 500
_POWER_TOLERANCE = 1e-6
# Correlations below this are rounding: nothing is left to explain.
_NOTHING = 1e-12


def pls_vip(features: ArrayLike, labels: ArrayLike, components: int = 2) -> Array:
    """Variable importance in projection (VIP) of partial least squares.

    A partial least squares regression of the one-hot labels on the features, both standardised,
    projects the features on a few components. A feature's importance is the root mean square of
    its weights, each component counting as much as it explains of the labels. The mean square
    over the features is always 1: a high mean says that importance is spread evenly.

    Source: Mehmood et al. 2012, section 2.2; Stage-Wise NAS, section III and its code.

    Args:
        features: Shape (n, p), n at least 2.
        labels: Shape (n,): integers, of at least two classes.
        components: Number of components, at least 1. Fewer are used where no correlation is left.

    Returns:
        Shape (p,). Constant features have 0, but count as features of the projection; without any
        correlation all others are equal.

    Raises:
        ValueError: If a shape or value is out of range or not finite.
    """
    values = checked_features(features)
    classes, indices = checked_labels(labels, len(values))
    # Whatever the units, no square overflows or vanishes; powers of two change no digit.
    powers = -np.frexp(np.maximum(values.max(axis=0), -values.min(axis=0)))[1]

    def pieces() -> Iterator[Piece]:
        for first in range(0, len(values), _ROWS):
            rows = slice(first, first + _ROWS)
            yield np.ldexp(values[rows].astype(np.float64), powers), indices[rows]

    return streamed_vip(pieces, classes, components)


def streamed_vip(chunks: Chunks, classes: int, components: int = 2) -> Array:
    """VIP in one pass over the samples for their scale, and one for every component.

    A pass needs the samples one by one, and between two passes only their cross-products with
    the labels are known: no memory grows with the square of the number of features.
    """
    if components < 1:
        raise ValueError(f"`components` must be greater than or equal to 1: {components}.")
    scale, cross = _cross_products(chunks, classes)
    if not cross.shape[1]:
        raise ValueError("`labels` must hold at least two classes.")
    directions: list[Array] = []
    rotations: list[Array] = []
    loadings: list[Array] = []
    explained: list[float] = []
    while len(explained) < components and np.abs(cross).max(initial=0.0) > _NOTHING:
        direction = _direction(cross)
        # What the components so far hold of a sample is taken from it.
        rotation = direction.copy()
        for before, loading in zip(rotations, loadings, strict=True):
            rotation -= (loading @ direction) * before
        square, x_loading, y_loading = _loadings(chunks, scale, rotation)
        cross -= square * np.outer(x_loading, y_loading)
        directions.append(direction)
        rotations.append(rotation)
        loadings.append(x_loading)
        explained.append(square * float(y_loading @ y_loading))
    changing = scale.changing
    scores = np.zeros(len(changing))
    shares = np.full(len(cross), 1 / max(1, len(cross)))
    if explained:
        shares = np.average(np.square(directions), axis=0, weights=explained)
    scores[changing] = np.sqrt(len(changing) * shares)
    return scores


@dataclasses.dataclass(frozen=True)
class _Scale:
    """How samples are standardised: to columns of mean 0 and norm 1.

    Args:
        changing: (p,): which features are not constant; the others are left out.
        mean: (p,).
        norm: (q,): norms of the centred features that are not constant.
        counts: (K,): samples of every class.
    """

    changing: NDArray[np.bool_]
    mean: Array
    norm: Array
    counts: Array

    def features(self, values: NDArray[np.floating[Any]]) -> Array:
        """Some samples (n, p), standardised: (n, q)."""
        centred: Array = values.astype(np.float64)
        centred -= self.mean
        return centred[:, self.changing] / self.norm

    def by_class(self, sums: Array) -> Array:
        """Products (..., r) of the standardised one-hot labels with a column, of its class sums.

        Args:
            sums: (..., K): sums of the column's values over the samples of every class.
        """
        shares = self.counts / self.counts.sum()
        # A label that all samples have, or none, tells nothing.
        informative = (shares > 0) & (shares < 1)
        norms = np.sqrt((self.counts * (1 - shares))[informative])
        centred = sums - shares * sums.sum(-1, keepdims=True)
        products: Array = centred[..., informative] / norms
        return products


def _cross_products(chunks: Chunks, classes: int) -> tuple[_Scale, Array]:
    """The scale of the samples, and the products (q, r) of their features and labels."""
    counts = np.zeros(classes)
    origin = low = high = sums = squares = np.empty(0)
    for values, labels in chunks():
        if not counts.any():
            # Sums from the first sample on, no farther from the mean than the deviations allow.
            origin = values[0].astype(np.float64)
            low = high = origin
            sums, squares = np.zeros((len(origin), classes)), np.zeros(len(origin))
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        moved = values.astype(np.float64)
        moved -= origin
        squares += np.einsum("ij,ij->j", moved, moved)
        for label in np.unique(labels):
            sums[:, label] += moved[labels == label].sum(0)
        counts += np.bincount(labels, minlength=classes)
    mean = sums.sum(1) / counts.sum()
    squares -= counts.sum() * mean**2
    changing = (high > low) & (squares > 0)
    norm = np.sqrt(squares[changing])
    scale = _Scale(changing, origin + mean, norm, counts)
    return scale, scale.by_class(sums[changing]) / norm[:, None]


def _direction(cross: Array) -> Array:
    """Weights (q,), of norm 1, of the features whose projection goes best with the labels.

    The first left singular vector of ``cross``, by the power method as scikit-learn's
    `PLSRegression` has it, start and tolerance included; it would need all samples at once.
    """
    start = int(np.argmax(np.abs(cross).max(0) > _NOTHING))
    direction: Array = cross[:, start] / np.linalg.norm(cross[:, start])
    for _ in range(_POWER_STEPS):
        before = direction
        direction = cross @ (cross.T @ direction)
        direction /= np.linalg.norm(direction)
        if ((direction - before) ** 2).sum() < _POWER_TOLERANCE:
            break
    return direction


def _loadings(chunks: Chunks, scale: _Scale, rotation: Array) -> tuple[float, Array, Array]:
    """Of the projection (n,) on ``rotation``: its square, and the loadings (q,) and (r,)."""
    square, products = 0.0, np.zeros(len(rotation))
    sums = np.zeros(len(scale.counts))
    for values, labels in chunks():
        features = scale.features(values)
        scores = features @ rotation
        square += float(scores @ scores)
        products += scores @ features
        sums += np.bincount(labels, scores, len(sums))
    return square, products / square, scale.by_class(sums) / square
