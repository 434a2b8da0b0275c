"""Statistics of rankings and comparisons, as pure functions of arrays."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]
Interval = tuple[float, float]
"""The lower and the upper end."""

LEVEL = 0.95
"""The confidence of every interval."""


def spearman(a: ArrayLike, b: ArrayLike) -> Values:
    """Spearman's rank correlation; ties get their mean rank.

    Source: EcoNAS, equation 1.

    Args:
        a: Shape (..., n).
        b: The same shape.

    Returns:
        Shape (...); NaN where one of the two is constant.
    """
    ranks = (stats.rankdata(values, axis=-1) for values in (a, b))
    return _cosine(*(rank - rank.mean(axis=-1, keepdims=True) for rank in ranks))


def kendall(a: ArrayLike, b: ArrayLike) -> Values:
    """Kendall's tau-b.

    Args:
        a: Shape (..., n).
        b: The same shape.

    Returns:
        Shape (...); NaN where one of the two is constant.
    """
    values = (np.asarray(side, float) for side in (a, b))
    orders = (np.sign(side[..., :, None] - side[..., None, :]) for side in values)
    return _cosine(*(order.reshape(*order.shape[:-2], -1) for order in orders))


def _cosine(a: Values, b: Values) -> Values:
    """The cosine of the angle between vectors of shape (..., n)."""
    norms = np.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=-1) / norms)


def bootstrap(
    statistic: Callable[[Values, Values], Values],
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
) -> Interval:
    """Percentile bootstrap interval of a statistic of pairs, at ``LEVEL``.

    Args:
        statistic: Takes two arrays of shape (m, n) to one of shape (m,).
        a: The pairs' first values, shape (n,).
        b: The pairs' second values, shape (n,).
        seed: Seed of the resampling.
        resamples: How often the n pairs are drawn with replacement. Resamples whose statistic
            is NaN do not count; if none is left, both ends are NaN.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    n = len(first)
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    # In parts, because a statistic may need n * n numbers for each resample.
    parts = np.array_split(drawn, max(1, resamples * n * n // 1_000_000))
    values = np.concatenate([statistic(first[part], second[part]) for part in parts])
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike) -> Interval:
    """Student's t interval of the mean of ``values``, shape (n,), at ``LEVEL``.

    Both ends are the mean itself if there is one value only, or all are equal.
    """
    sample = np.asarray(values, float)
    mean = float(sample.mean())
    if sample.size < 2:
        return mean, mean
    error = float(sample.std(ddof=1)) / sample.size**0.5
    half = float(stats.t.ppf((1 + LEVEL) / 2, sample.size - 1)) * error
    return mean - half, mean + half


def retained(original: ArrayLike, reduced: ArrayLike, top: int, among: int) -> int:
    """How many of the best ``top`` by ``original`` are among the best ``among`` by ``reduced``.

    Of equal values the earlier is better.

    Source: EcoNAS, section 4.1 and figure 9.

    Args:
        original: Accuracies in the original setting, shape (n,).
        reduced: Accuracies of the same networks in the reduced setting, shape (n,).
        top: Number of good networks.
        among: Number of networks kept.
    """
    best = np.argsort(-np.asarray(original, float), kind="stable")[:top]
    kept = np.argsort(-np.asarray(reduced, float), kind="stable")[:among]
    return len(np.intersect1d(best, kept))


def greater_p_value(values: ArrayLike, baseline: ArrayLike) -> float:
    """One-sided p-value of the Mann-Whitney U test.

    The alternative is that ``values``, shape (n,), are stochastically greater than ``baseline``,
    shape (m,). Exact where n or m is at most 8 and no values are equal; else the normal
    approximation.
    """
    return float(stats.mannwhitneyu(values, baseline, alternative="greater").pvalue)


def relative_improvement(accuracy: float, random_accuracies: ArrayLike) -> float:
    """RI = 100 (Acc_m - Acc_r) / Acc_r in percent, Acc_r being the mean of random networks.

    Source: Yang et al., *NAS evaluation is frustratingly hard*, section 3; used in *Efficient
    Global Neural Architecture Search*, section 4.

    Args:
        accuracy: Accuracy of the network that the method found.
        random_accuracies: Accuracies of random networks, shape (n,), with a mean above 0.
    """
    mean = float(np.mean(np.asarray(random_accuracies, float)))
    return 100 * (accuracy - mean) / mean


def best_so_far(
    costs: Sequence[float],
    values: Sequence[float],
    at: ArrayLike,
    scores: Sequence[float] | None = None,
) -> Values:
    """The greatest value that was had for a cost.

    Args:
        costs: What had been spent when each value was had, ascending, shape (n,).
        values: The values, shape (n,); ``-inf`` for a result that does not count.
        at: Costs to answer for, shape (m,).
        scores: What is said of each instead of its value, shape (n,): the score of the first
            greatest value.

    Returns:
        Shape (m,); NaN where no value was had yet.
    """
    had = np.concatenate([[-np.inf], np.asarray(values, float)])
    best = np.maximum.accumulate(had)
    which = np.maximum.accumulate(
        np.where(had > np.append(-np.inf, best[:-1]), range(len(had)), 0)
    )
    reported = had if scores is None else np.concatenate([[np.nan], np.asarray(scores, float)])
    found = which[np.searchsorted(np.asarray(costs, float), np.asarray(at, float), side="right")]
    return np.where(found == 0, np.nan, reported[found])


def paired_p_value(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of pairs, shape (n,) each.

    Pairs that are equal say nothing; 1 if all are.
    """
    differences = np.asarray(a, float) - np.asarray(b, float)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, so that one below .05 is one time in 20 by chance.

    Source: Holm 1979, *A Simple Sequentially Rejective Multiple Test Procedure*.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values, float)[order] * factors)
    return [float(p) for p in np.minimum(corrected, 1)]


def mean_ranks(
    values: ArrayLike, *, seed: int, resamples: int = 1000
) -> list[tuple[float, Interval]]:
    """The mean rank of every column among the columns, 1 being the greatest value.

    Args:
        values: Shape (rows, columns); a row is what was compared at once. Equal values share
            the mean of their ranks; NaN is the worst.
        seed: Seed of the resampling.
        resamples: How often the rows are drawn with replacement.

    Returns:
        For every column the mean and its percentile bootstrap interval at ``LEVEL``.
    """
    filled = np.nan_to_num(np.asarray(values, float), nan=-np.inf, neginf=-np.inf)
    ranks = stats.rankdata(-filled, axis=1)
    drawn = np.random.default_rng(seed).integers(len(ranks), size=(resamples, len(ranks)))
    low, high = np.quantile(ranks[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    means = ranks.mean(axis=0)
    return [(float(m), (float(a), float(b))) for m, a, b in zip(means, low, high, strict=True)]
