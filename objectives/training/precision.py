"""The numbers that a network computes with."""

import torch


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What a device is to compute with in place of float32; None for nothing else.

    Args:
        precision: ``"auto"``, ``"bfloat16"`` or ``"float32"``.
        device: The device.
    """
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else None
    return torch.bfloat16 if precision == "bfloat16" else None
