"""The trials on the lower convex hull of cost against error."""

import functools
import math
from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial

from optnas.hull import lower_hull
from optnas.trials.attributes import MULTIPLY_ADDS


def hull_of(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those of the complete ``trials`` on the hull of multiply-adds against error, by cost.

    Trials that do not say what their network costs are left out.
    """
    networks = [
        (trial, (cost, trial.values[0]))
        for trial in trials
        if (cost := cost_of(trial)) is not None and math.isfinite(trial.values[0])
    ]
    return [networks[i][0] for i in cost_hull([point for _, point in networks])]


@functools.lru_cache(maxsize=4)
def remembered_hull(points: tuple[tuple[float, float], ...]) -> list[int]:
    return cost_hull(points)


def cost_hull(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of points (cost, value) on the lower hull, by cost."""
    costs, values = [cost for cost, _ in points], [value for _, value in points]
    # The error is 1 - accuracy; no unit changes the hull, so that percentages do as well.
    whole = max([1.0, *values])
    return lower_hull(costs, [whole - value for value in values])


def cost_of(trial: FrozenTrial) -> float | None:
    """The multiply-adds of a trial's network, or None if it does not say."""
    cost = trial.user_attrs.get(MULTIPLY_ADDS)
    return float(cost) if isinstance(cost, int | float) and 0 <= cost < math.inf else None
