"""What a training frees is kept for its next step, and handed back at its end."""

import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from optnas.objectives.training.allocator import kept_memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/statm").exists(),
    reason="needs glibc and /proc",
)

# In a process of its own: what it keeps depends on all that was there before.
SCRIPT = """
    import contextlib, resource, sys
    from pathlib import Path
    import torch
    from optnas.objectives.training.allocator import kept_memory

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def faults():
        counts = []
        for _ in range(10):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(2**25)
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return min(counts)  # Some time passes before the pieces of memory fit.

    torch.set_num_threads(1)
    # Before: a hole in what the library keeps may be found afterwards, too.
    outside = faults()
    with kept_memory():
        with kept_memory():
            pass
        inside = faults()
        kept = resident()
    returned = kept - resident()
    print(inside, returned, outside)
"""


def test_freed_memory_is_kept_inside_only():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], check=True, capture_output=True, text=True
    )
    inside, returned, outside = map(int, done.stdout.split())
    # 128 MiB anew would be 32,768 pages of 4 KiB, or fewer greater ones.
    assert inside < outside / 5
    assert returned > 100 * 2**20


def test_what_is_raised_inside_comes_out():
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
