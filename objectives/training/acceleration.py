"""What a training does otherwise on CUDA than elsewhere, where its settings let it."""

import torch

from optnas.config.settings import TrainSettings


def is_accelerated(settings: TrainSettings, device: torch.device) -> bool:
    """Whether a training may compute what PyTorch computes in ways that round otherwise.

    These are kernels of optnas's own, and batches that are filled up to one size.

    Args:
        settings: Its recipe, whose ``kernels`` says so.
        device: Where it trains.
    """
    return settings.kernels == "auto" and device.type == "cuda"
