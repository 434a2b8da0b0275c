"""Whether a network keeps the limits of its study."""

from collections.abc import Mapping

from optuna.trial import Trial
from torch import nn

from optnas.objectives.limits import over_limits
from optnas.objectives.networks.costs import count_params, forward_costs
from optnas.trials.attributes import FAILURE_REASON


def record_costs(
    trial: Trial,
    model: nn.Module,
    input_shape: tuple[int, int, int],
    limits: Mapping[str, int],
) -> bool:
    """Record what a network costs, and hold it to the limits.

    Args:
        trial: The trial.
        model: Its network.
        input_shape: Channels, height and width of an image.
        limits: The greatest costs, of some of them.

    Returns:
        Whether it keeps them.
    """
    costs = {"params": count_params(model), **vars(forward_costs(model, input_shape))}
    for name, cost in costs.items():
        trial.set_user_attr(name, cost)
    broken = over_limits(trial, costs, limits)
    if broken:
        reason = ", ".join(f"{name} {costs[name]} > {limits[name]}" for name in broken)
        trial.set_user_attr(FAILURE_REASON, f"over the limit: {reason}")
    return not broken
