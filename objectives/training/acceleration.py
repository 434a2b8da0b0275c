"""What a training does otherwise on CUDA than elsewhere, where its settings let it."""

import importlib.util
import warnings

import torch
from torch import nn

from optnas.config.settings import TrainSettings


def is_accelerated(settings: TrainSettings, device: torch.device) -> bool:
    """Whether a training may compute what PyTorch computes in ways that round otherwise.

    These are kernels of optnas's own, and batches that are filled up to one size.

    Args:
        settings: Its recipe, whose ``kernels`` says so.
        device: Where it trains.
    """
    return settings.kernels == "auto" and device.type == "cuda"


def accelerated(model: nn.Module, settings: TrainSettings, device: torch.device) -> nn.Module:
    """A network, which runs kernels of optnas's own from now on if its training may.

    Args:
        model: The network; it stays the object that it is: see `kernels.networks.use_kernels`.
        settings: The recipe.
        device: Where it trains.

    Warns:
        UserWarning: If it may, and Triton, which compiles them, is not there.
    """
    if not is_accelerated(settings, device):
        return model
    if importlib.util.find_spec("triton") is None:
        warnings.warn(
            "optnas's own kernels need Triton, which is not installed, so PyTorch's are used: "
            "every new width costs seconds. Install `optnas[kernels]`, or say `train: "
            "{kernels: torch}`.",
            stacklevel=2,
        )
        return model
    from optnas.objectives.kernels import use_kernels

    return use_kernels(model, device)
