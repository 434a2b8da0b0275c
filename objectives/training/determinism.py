"""Bitwise repeatable operations, where they are asked for."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Bitwise repeatable operations inside, on CUDA too; as before afterwards.

    The switch belongs to the whole process. cuBLAS reads ``CUBLAS_WORKSPACE_CONFIG`` when it
    starts, so enter this before the first work on a GPU.

    Args:
        enabled: False changes nothing.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    memory: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        memory.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # A tenth of a step of a chain on a CPU; no network here reads what it has not written.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        memory.fill_uninitialized_memory = before[3]
