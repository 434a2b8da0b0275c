"""What a network may cost."""

from collections.abc import Mapping

from optuna.trial import Trial


def over_limits(trial: Trial, costs: Mapping[str, int], limits: Mapping[str, int]) -> list[str]:
    """Set a constraint on a trial for every limit.

    Args:
        trial: The trial.
        costs: What its network costs, by name.
        limits: The greatest costs, of some of the names.

    Returns:
        The names of the limits that are broken.
    """
    for name, limit in limits.items():
        trial.set_constraint(name, float(costs[name] - limit))
    return [name for name, limit in limits.items() if costs[name] > limit]
