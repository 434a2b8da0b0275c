"""What was decoded and digested before: a bounded folder of arrays, which may always be lost."""

import contextlib
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

BOUND = 10 * 2**30
"""Bytes that the cache takes at most; what was not used for longest goes first."""
_LEFT_OVER = 3600.0
"""Seconds after which nobody still writes a partial file."""
_SPARE = 0.05
"""Share of its disk that the cache leaves free."""
_OWN = ("images-*.np[yz]", "files-*.npy")


def folder() -> Path | None:
    """Where the cache is: in ``$XDG_CACHE_HOME`` or ``~/.cache``; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "optnas"
    try:
        return Path.home() / ".cache" / "optnas"
    except RuntimeError:
        return None


def load(name: str) -> np.ndarray | None:
    """What was kept under a name; None if there is nothing, or nothing whole."""
    base = folder()
    if base is None:
        return None
    path = base / f"{name}.npy"
    try:
        content = np.load(path, allow_pickle=False)
        with contextlib.suppress(OSError):
            os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(content)


def store(name: str, content: np.ndarray) -> None:
    """Keep an array, whole or not at all; a warning says where it could not be kept."""
    base = folder()
    if base is None:
        return
    try:
        base.mkdir(parents=True, exist_ok=True)
        _make_room(base, content.nbytes)
        _write(base / f"{name}.npy", content)
    except OSError as error:
        reason = error.strerror or str(error)
        warnings.warn(f"The images that were read could not be cached: {reason}", stacklevel=2)


def _write(path: Path, content: np.ndarray) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.save(file, content, allow_pickle=False)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise


def _make_room(base: Path, needed: int) -> None:
    """Delete what was not used for longest, and what killed writers left.

    Raises:
        OSError: If there is no room even so.
    """
    for path in base.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER:
                path.unlink()
    kept = []
    for pattern in _OWN:
        for path in base.glob(pattern):
            with contextlib.suppress(OSError):
                stat = path.stat()
                kept.append((stat.st_mtime, stat.st_size, path))
    disk = shutil.disk_usage(base)
    spare = int(_SPARE * disk.total)
    used = sum(size for _, size, _ in kept)
    bound = min(BOUND, used + disk.free - spare)
    if needed > bound:
        raise OSError(f"there is no room for {needed / 2**20:.0f} MiB in {base}")
    for _, size, path in sorted(kept):
        if used + needed <= bound:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        used -= size
