"""Bitwise repeatable operations, where they are asked for."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from optnas.objectives.training.switches import Switch

# PyTorch reads it once, at the first product of matrices on a GPU, and refuses all repeatable ones
# from then on without it: here nothing has been trained yet.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def deterministic_algorithms(enabled: bool) -> AbstractContextManager[None]:
    """Bitwise repeatable operations inside, on CUDA too; as before afterwards.

    The switch belongs to the whole process, and is on until the last thread has left.

    Args:
        enabled: False changes nothing.
    """
    return _switch() if enabled else nullcontext()


def _switched_on() -> Callable[[], None]:
    """Switch it on; what switches it back."""
    memory: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, memory.fill_uninitialized_memory

    def back() -> None:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        memory.fill_uninitialized_memory = fill

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # A tenth of a step of a chain on a CPU; no network here reads what it has not written.
    memory.fill_uninitialized_memory = False
    return back


_switch = Switch(_switched_on)
