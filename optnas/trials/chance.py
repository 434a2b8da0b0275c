"""Whether an accuracy is more than a guess, and how far it may be from the truth."""

import math
import statistics
from collections.abc import Sequence

_LOTS = 1000
_DRAWN_TOGETHER = 50


def interval(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of which ``correct`` of ``images`` were seen.

    Source: Wilson 1927, without the correction for continuity, as SciPy has it, which takes half a
    second to import.
    """
    share, deviations = correct / images, statistics.NormalDist().inv_cdf(0.975)
    doubt = deviations**2 / images
    middle = (share + doubt / 2) / (1 + doubt)
    reach = math.sqrt(doubt * (share * (1 - share) + doubt / 4)) / (1 + doubt)
    return (
        middle - reach if correct else 0.0,
        middle + reach if correct < images else 1.0,
    )


def chance_level(counts: Sequence[int]) -> float:
    """The accuracy of who always names the largest class.

    Args:
        counts: Images per class, some.
    """
    return max(counts) / sum(counts)


def is_chance(value: float, counts: Sequence[int], metric: str = "accuracy") -> bool | None:
    """Whether such a value on such images could be that of a guess.

    A guess names the largest class, or the five largest; of what counts classes alike it names
    every class as often as it occurs, by lot.

    Args:
        value: A fraction.
        counts: Images per class, some.
        metric: Its name in study files.

    Returns:
        None of a metric that is not known here.
    """
    images = sum(counts)
    named = {"accuracy": 1, "top_5": 5}.get(metric)
    if named is not None:
        low, _ = interval(round(value * images), images)
        return low <= sum(sorted(counts)[-named:]) / images
    if metric in ("balanced_accuracy", "macro_f1"):
        return value <= _greatest_by_lot(counts, metric)
    return None


def _greatest_by_lot(counts: Sequence[int], metric: str) -> float:
    """What 39 of 40 who draw lots do not exceed."""
    import numpy as np

    sizes = np.array([count for count in counts if count])
    shares, images = sizes / sizes.sum(), sizes.sum()
    rng, shape = np.random.default_rng(0), (_LOTS, len(sizes))
    if len(sizes) <= _DRAWN_TOGETHER:
        drawn = [rng.multinomial(size, shares, _LOTS) for size in sizes]
        right = np.stack([row[:, place] for place, row in enumerate(drawn)], axis=1)
        named = sum(drawn)
    else:  # Of so many, each hardly depends on the others.
        right = rng.binomial(sizes, shares, shape)
        named = right + rng.binomial(images - sizes, shares, shape)
    found = right / sizes if metric == "balanced_accuracy" else 2 * right / (sizes + named)
    return float(np.quantile(found.mean(1), 0.975))
