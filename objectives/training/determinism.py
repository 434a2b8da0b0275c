"""Bitwise repeatable operations, where they are asked for."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import torch

_lock = threading.Lock()
_inside = 0
_before: tuple[bool, bool, bool, bool] = (False, False, False, True)


@contextlib.contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Bitwise repeatable operations inside, on CUDA too; as before afterwards.

    The switch belongs to the whole process: of trainings in several threads the first one sets it,
    and the last one sets it back. cuBLAS reads ``CUBLAS_WORKSPACE_CONFIG`` when it starts, so
    enter this before the first work on a GPU.

    Args:
        enabled: False changes nothing.
    """
    global _inside, _before
    if not enabled:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            _before = _switched_on()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _switch_back(*_before)


def _switched_on() -> tuple[bool, bool, bool, bool]:
    """Switch it on; how it was before."""
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
    return before


def _switch_back(enabled: bool, warn_only: bool, benchmark: bool, fill: bool) -> None:
    memory: Any = torch.utils.deterministic
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    memory.fill_uninitialized_memory = fill
