"""Feature selection on graphs: inf-FS and il-FS."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

# Features are looked at in blocks: a float64 copy of all of them could be gigabytes.
_ROWS = 1024
_COLUMNS = 256
# Edges below this are rounding.
_NOTHING = 1e-12


def infinite_feature_selection(
    features: ArrayLike, alpha: float = 0.5, factor: float = 0.9
) -> Array:
    """Importance by infinite feature selection (inf-FS), which does not look at the classes.

    Features are the nodes of a graph whose edges are heavy between features that vary much and
    whose ranks are not correlated. A feature's importance is the weight of all walks that begin
    at it, of any length; it grows with the number of features.

    Source: Roffo, Melzi and Cristani 2015, section 2; what varies how much is compared between
    the features as they are, as in their code.

    Args:
        features: Shape (n, p), n at least 2.
        alpha: Weight of the standard deviations in an edge, from 0 to 1; the rest is the
            correlation's.
        factor: Weight of one step more, in (0, 1), relative to that at which the sum diverges.

    Returns:
        Shape (p,). Constant features have 0.

    Raises:
        ValueError: If a shape or value is out of range or not finite.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"`alpha` must be from 0 to 1: {alpha}.")
    _check_factor(factor)
    values = _in_one_unit(checked_features(features))
    # Exact: ranks are multiples of 1/2, far below 2**23.
    return infinite_in_place(values, np.empty(values.shape, np.float32), alpha, factor)


def infinite_latent_feature_selection(
    features: ArrayLike, labels: ArrayLike, factor: float = 0.99
) -> Array:
    """Importance by infinite latent feature selection (il-FS), which looks at the classes.

    For every feature, each sample is one of three tokens: nearer to the mean of its own class
    than to the others', farther from it, or unclear. The probability that the feature is
    relevant maximises the likelihood of its tokens, where a relevant feature yields near and an
    irrelevant one far ones. An edge of the graph is the probability that both its ends are
    relevant, and a feature's importance the weight of all walks that begin at it.

    Source: Roffo et al. 2017, section 3. What the paper leaves open follows its code, with two
    differences: a sample's squared distance is compared with the mean over the other classes, so
    that it means the same for any number of classes; and with three tokens the likelihood has
    its maximum in closed form, so that nothing is iterated.

    Args:
        features: Shape (n, p), n at least 2.
        labels: Shape (n,): integers, of at least two classes.
        factor: Weight of one step more, in (0, 1), relative to that at which the sum diverges.

    Returns:
        Shape (p,). Constant features have 0.

    Raises:
        ValueError: If a shape or value is out of range or not finite.
    """
    _check_factor(factor)
    values = _in_one_unit(checked_features(features))
    classes, indices = checked_labels(labels, len(values))
    relevance = np.concatenate(
        [_relevance(block, indices, classes) for _, block in _column_blocks(values)]
    )
    relevance[np.ptp(values, axis=0) == 0] = 0.0
    # The graph is the outer product of `relevance` with itself, so its walks sum up at once.
    squares = relevance @ relevance
    if squares == 0:
        return relevance
    scores: Array = relevance * relevance.sum() / squares * factor / (1 - factor)
    return scores


def infinite_in_place(
    values: NDArray[np.floating], ranks: NDArray[np.float32], alpha: float, factor: float
) -> Array:
    """Infinite feature selection for which the caller provides the memory.

    Args:
        values: The features, (n, p).
        ranks: Shape (n, p), overwritten; may be ``values`` itself.
        alpha: As in :func:`infinite_feature_selection`.
        factor: Likewise.
    """
    count, width = values.shape
    deviation = np.empty(width)
    for columns, block in _column_blocks(values):
        deviation[columns] = block.std(axis=0, ddof=1) * (np.ptp(block, axis=0) > 0)
        ranks[:, columns] = rankdata(block, axis=0)
    correlation = np.zeros((width, width))
    for first in range(0, count, _ROWS):
        centred = ranks[first : first + _ROWS].astype(np.float64) - (count + 1) / 2
        correlation += centred.T @ centred
    changing = np.flatnonzero(deviation)
    scores = np.zeros(width)
    if not len(changing):
        return scores
    deviation, correlation = deviation[changing], correlation[np.ix_(changing, changing)]
    norms = np.sqrt(np.diagonal(correlation))
    correlation /= np.multiply.outer(norms, norms)
    deviation -= deviation.min()
    deviation /= deviation.max() or 1.0
    edges = alpha * np.maximum.outer(deviation, deviation)
    edges += (1 - alpha) * np.maximum(0, 1 - np.abs(correlation))
    radius = np.linalg.eigvalsh(edges)[-1]
    if radius > _NOTHING:
        system = np.eye(len(edges)) - factor / radius * edges
        scores[changing] = np.linalg.solve(system, np.ones(len(edges))) - 1
    return scores


def checked_features(features: ArrayLike) -> NDArray[np.floating]:
    """``features`` as a table of floats, (n, p).

    Raises:
        ValueError: If it is not, or a value is not finite.
    """
    values = np.asarray(features)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
        raise ValueError(
            "`features` must have a row for each of two samples or more and a column for each of "
            f"one feature or more: shape {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError("`features` must be finite.")
    return values


def checked_labels(labels: ArrayLike, count: int) -> tuple[int, NDArray[np.int64]]:
    """The number of classes, and the labels (count,) as numbers from 0.

    Raises:
        ValueError: If the shape is another, or there is one class only.
    """
    values = np.asarray(labels)
    if values.shape != (count,):
        raise ValueError(f"`labels` must have the shape ({count},): {values.shape}.")
    names, indices = np.unique(values, return_inverse=True)
    if len(names) < 2:
        raise ValueError("`labels` must hold at least two classes.")
    return len(names), indices


def _in_one_unit(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The features, none greater than 1: their squares neither overflow nor vanish all."""
    if values.dtype == np.float32:
        return values  # Squared in float64.
    scaled: Array = np.ldexp(values, -np.frexp(np.abs(values).max())[1])
    return scaled


def _relevance(values: Array, labels: NDArray[np.int64], classes: int) -> Array:
    """The probability that each of some features is relevant: (n, b) values, (b,) results."""
    members = np.eye(classes)[labels]
    means = members.T @ values / members.sum(axis=0)[:, None]
    own = (values - means[labels]) ** 2
    others = (values**2 * classes - 2 * values * means.sum(0) + (means**2).sum(0) - own) / (
        classes - 1
    )
    total = own + np.maximum(others, 0.0)
    near, far = (3 * own < total).sum(axis=0), (3 * own > 2 * total).sum(axis=0)
    result: Array = np.where(near + far > 0, near / np.maximum(near + far, 1), 0.5)
    return result


def _column_blocks(values: NDArray[np.floating]) -> Iterator[tuple[slice, Array]]:
    for first in range(0, values.shape[1], _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        yield columns, values[:, columns].astype(np.float64)


def _check_factor(factor: float) -> None:
    if not 0 < factor < 1:
        raise ValueError(f"`factor` must be greater than 0 and less than 1: {factor}.")
