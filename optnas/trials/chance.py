"""Whether an accuracy is more than a guess, and how far it may be from the truth."""

from collections.abc import Sequence


def interval(correct: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share of which ``correct`` of ``images`` were seen.

    Source: Wilson 1927, without the correction for continuity, as SciPy has it.
    """
    from scipy.stats import binomtest

    found = binomtest(correct, images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def chance_level(counts: Sequence[int]) -> float:
    """The accuracy of who always names the largest class.

    Args:
        counts: Images per class, some.
    """
    return max(counts) / sum(counts)


def is_chance(accuracy: float, counts: Sequence[int]) -> bool:
    """Whether an accuracy on such images could be that of a guess."""
    images = sum(counts)
    low, _ = interval(round(accuracy * images), images)
    return low <= chance_level(counts)
