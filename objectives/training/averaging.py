"""The moving average of a network's weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """The exponential moving average of the weights and statistics of a network.

    It begins as the network after its first step.

    Args:
        model: The network.
        decay: Share of the average that a step leaves; 0 for none.

    Returns:
        A network like it, `update_parameters` of which is called after every step; None for 0.
    """
    if decay == 0:
        return None
    step = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(model, multi_avg_fn=step, use_buffers=True)
    return average.requires_grad_(False)
