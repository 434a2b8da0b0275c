"""Memory that a training frees is kept for its next step, and handed back when it ends."""

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Iterator

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

# Blocks from this size on are always the system's: one of them in a hole would waste most.
_LARGEST_KEPT = 256 * 2**20
# What glibc arrives at by itself once a process has freed large blocks; it stops adapting when
# it is told anything.
_USUAL = 32 * 2**20

_lock = threading.Lock()
_inside = 0


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
    """Have the C library keep what the process frees inside, and hand it back afterwards.

    By default glibc hands large blocks back to the system at once, which clears every page of
    them anew for the next step: a tenth to a third of the time of a training on the CPU
    (docs/measurements/speed.md). The switch belongs to the whole process: of trainings in several
    threads the last one hands back. Other C libraries are left as they are.
    """
    global _inside
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _inside += 1
        # Older versions accept no more than the usual.
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) or library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                library.mallopt(_MMAP_THRESHOLD, _USUAL)
                library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
                library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of the process, if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    known = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt"))
    return library if known else None
