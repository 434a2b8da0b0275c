"""Running out of memory, on a device or on the host, and how much was used."""

import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

Piece = TypeVar("Piece")

# On the CPU oneDNN compiles every operation for every shape, and keeps the code of the last 1,024:
# networks of many widths took another 100 MB in 500 trials. Networks of 20 cells, of 18 NASNet
# cells and of 60 layers need about 200 at once.
COMPILED = 256

CAPTURING = threading.Lock()
"""Held while a CUDA graph is captured: PyTorch allows one at a time in a process, and no freeing
of kept memory meanwhile."""

# These texts have no class of their own: main memory, the CUDA runtime and its libraries.
_TEXTS = ("DefaultCPUAllocator", "out of memory", "_ALLOC_FAILED")


def bound_compiled_code() -> None:
    """Have oneDNN keep less of what it compiled, unless the user has said how much.

    Only the first operation of the process on a CPU looks at this.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(COMPILED))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a device or the host has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


def release(error: BaseException, device: torch.device) -> None:
    """Free what was in use where ``error`` was raised, and hand it back to the device.

    An exception keeps the frames that it passed alive, with the graph, the activations and the
    gradients in their variables; so free them before trying again. Frames that still run are left
    as they are.

    Args:
        error: The exception, caught.
        device: What ran out of memory, or the host did.
    """
    traceback.clear_frames(error.__traceback__)
    hand_back(device)


def hand_back(device: torch.device) -> None:
    """Hand memory that nobody uses any more back to a device."""
    gc.collect()
    if device.type == "cuda":
        with CAPTURING:
            torch.cuda.empty_cache()


def in_pieces(
    work: Callable[[int, int], Piece], count: int, size: int, device: torch.device
) -> Iterator[Piece]:
    """Do ``work`` piece by piece, in smaller pieces once one does not fit into memory.

    Args:
        work: Called with the bounds of a piece, (start, stop); called again for the same start
            with a smaller piece.
        count: The pieces make up 0 to ``count``.
        size: Greatest size of a piece, at least 1; halved as often as needed.
        device: Where the work is done.

    Yields:
        What ``work`` returns, piece by piece.

    Raises:
        RuntimeError: If there is not even memory for a piece of size 1; on the host it may be a
            MemoryError.
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            piece = work(start, stop)
        except (RuntimeError, MemoryError) as error:
            if stop - start == 1 or not is_out_of_memory(error):
                raise
            release(error, device)
            size = (stop - start) // 2
            continue
        yield piece
        start = stop


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use: by tensors since `reset_peak_memory` on CUDA, by the process elsewhere.

    Returns:
        None where the system does not tell (Windows, without CUDA).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # There is none on Windows.

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_shared(device: torch.device) -> bool:
    """Whether more than a tenth of a GPU's memory is in use, but not by tensors of this process.

    Its own context takes less than that, of 8 GiB and more.
    """
    held = device_memory(device)
    if held is None:
        return False
    others = held["total_bytes"] - held["free_bytes"] - held["reserved_bytes"]
    return bool(others > held["total_bytes"] / 10)


def gpu_identity(device: torch.device) -> str | None:
    """NVIDIA's identity of a GPU; None for other devices."""
    if device.type != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def device_memory(device: torch.device) -> dict[str, Any] | None:
    """What a GPU's memory holds, whoever uses it, and what of that are this process's tensors.

    Returns:
        ``gpu``: its identity; ``total_bytes`` and ``free_bytes`` of the GPU; ``reserved_bytes``,
        what torch has taken for tensors of this process, and ``peak_bytes``, the most of that
        since `reset_peak_memory`. The context, kernels and libraries come on top of these. None
        for other devices.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu": str(torch.cuda.get_device_properties(device).uuid),
        "total_bytes": total,
        "free_bytes": free,
        "reserved_bytes": torch.cuda.memory_reserved(device),
        "peak_bytes": torch.cuda.max_memory_reserved(device),
    }


def reset_peak_memory(device: torch.device) -> None:
    """Measure from here on what `peak_memory` tells, on CUDA."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
