"""Memory that a training frees is kept for its next step, and handed back when it ends."""

import ctypes
import functools
import sys
from collections.abc import Callable

from optnas.objectives.training.switches import Switch

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

# Blocks from this size on are always the system's: one of them in a hole would waste most.
_LARGEST_KEPT = 256 * 2**20
# What glibc arrives at by itself once a process has freed large blocks; it stops adapting when
# it is told anything.
_USUAL = 32 * 2**20


def _switched_on() -> Callable[[], None]:
    """Have the C library keep what is freed; what has it hand that back."""
    library = _glibc()
    if library is None:
        return lambda: None
    # Older versions accept no more than the usual.
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) or library.mallopt(_MMAP_THRESHOLD, _USUAL)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)

    def back() -> None:
        library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
        library.malloc_trim(0)

    return back


kept_memory = Switch(_switched_on)
"""Has the C library keep what the process frees inside, and hand it back afterwards.

By default glibc hands large blocks back to the system at once, which clears every page of them
anew for the next step: a tenth to a third of the time of a training on the CPU
(docs/measurements/speed.md). Other C libraries are left as they are.
"""


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of the process, if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    known = all(hasattr(library, name) for name in ("gnu_get_libc_version", "mallopt"))
    return library if known else None
