"""The lower convex hull of cost against error, and how RandGrow draws a parent from it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_FINEST = 2**48
"""Three points of floats lie on a line if each coordinate is 1 part in so many away from it."""


def lower_hull(cost: ArrayLike, error: ArrayLike) -> list[int]:
    """The most cost-efficient points: corners of the lower convex hull, while error falls.

    The hull ends at the least error. Of points with equal error the cheapest counts, of points
    with equal cost the one with the least error, of identical points the first. A point on the
    line between two others is no corner.

    Arithmetic is exact. For floats, points count as on a line where the rounding of the numbers
    themselves leaves it open: 0.1, 0.2 and 0.3 are equally far apart, and so are multiples.

    Source: RandGrow, section 2, "Choice of parent models", where collinear points are left open.

    Args:
        cost: Costs in any unit, shape (n,); numbers from 0 upwards.
        error: Errors in any unit, shape (n,); numbers from 0 upwards.

    Returns:
        Indices of the corners, by rising cost and falling error.

    Raises:
        ValueError: If the shapes differ or are not 1-d, or a number is negative or not finite.
    """
    costs, errors = _checked("cost", cost), _checked("error", error)
    if len(costs) != len(errors):
        raise ValueError(
            f"`cost` and `error` must be of equal length: {len(costs)} and {len(errors)}."
        )
    front = _front(costs, errors)
    x, x_rounded = _exact(costs[front])
    y, y_rounded = _exact(errors[front])

    def is_corner(a: int, b: int, c: int) -> bool:
        """Whether b, between a and c in cost, lies below the line between them."""
        below = (y[a] - y[b]) * (x[c] - x[a]) - (y[a] - y[c]) * (x[b] - x[a])
        triples = ((a, b, c), (b, c, a), (c, a, b))
        rounding = x_rounded * sum(x[i] * abs(y[j] - y[k]) for i, j, k in triples)
        rounding += y_rounded * sum(y[i] * abs(x[j] - x[k]) for i, j, k in triples)
        return _FINEST * below > rounding

    hull: list[int] = []
    for point in range(len(front)):
        while len(hull) > 1 and not is_corner(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return [int(front[point]) for point in hull]


def parent_probabilities(cost: ArrayLike, best_probability: float = 0.5) -> NDArray[np.floating]:
    """With which probability each network on the hull becomes a parent.

    The last, the most accurate, has ``best_probability``. The others share the rest in proportion
    to the gap in cost to the next one.

    Source: RandGrow, section 2, "Choice of parent models".

    Args:
        cost: Costs of a hull in its order, shape (n,); in any unit.
        best_probability: From 0 to 1. A single network has 1 in any case.

    Returns:
        Probabilities, shape (n,).

    Raises:
        ValueError: If the costs do not rise, or a number is out of range.
    """
    if not 0 <= best_probability <= 1:
        raise ValueError(
            f"`best_probability` must be a probability, from 0 to 1: {best_probability}."
        )
    costs = _checked("cost", cost)
    if not (costs[1:] > costs[:-1]).all():
        raise ValueError(f"`cost` must rise, as along a hull: {costs.tolist()}.")
    if len(costs) < 2:
        return np.ones(len(costs))
    gaps = np.diff(costs) / (costs[-1] - costs[0])
    return np.append((1 - best_probability) * gaps, best_probability)


def _front(costs: NDArray[np.number], errors: NDArray[np.number]) -> NDArray[np.intp]:
    """Indices of the points that are better than all that cost no more, by rising cost."""
    order = np.lexsort((errors, costs))  # Stable: identical points stay in order.
    ordered = errors[order]
    best = np.minimum.accumulate(ordered)
    is_better = np.append(True, ordered[1:] < best[:-1])[: len(order)]
    front: NDArray[np.intp] = order[is_better]
    return front


def _exact(array: NDArray[np.number]) -> tuple[list[int], bool]:
    """The values as integers in a unit of their own, and whether they had been rounded.

    Every float is an integer times a power of two, and no unit changes a hull.
    """
    ratios = [value.as_integer_ratio() for value in array.tolist()]
    unit = max((denominator for _, denominator in ratios), default=1)
    return [n * (unit // d) for n, d in ratios], array.dtype.kind == "f"


def _checked(name: str, values: ArrayLike) -> NDArray[np.number]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must be a 1-d array of numbers: {values!r}.")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"`{name}` must hold finite numbers from 0 upwards: {values!r}.")
    return array
