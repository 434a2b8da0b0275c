"""The first look at all files of a data set: each is decoded once, and what is found is kept."""

import dataclasses
import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

from optnas.objectives.data import cache
from optnas.objectives.data.decoding import (
    FACTS,
    GRAY,
    TRANSPARENT,
    Depths,
    Framing,
    Picture,
    Unreadable,
    finished,
    read,
)
from optnas.objectives.data.depths import depths_of
from optnas.objectives.data.listing import Entry

_GROUP = 16
"""Files that a thread decodes at once."""
_VERSION = 1
"""Of the pixels in the cache; another number makes them anew."""

_KNOWN = np.dtype([("name", "S32"), ("bytes", "<i8"), ("time", "<i8"), ("facts", FACTS)])

_Looked = Picture | Unreadable


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """What is known of the files that can be read.

    Args:
        entries: The files.
        facts: (N,) of `FACTS`, a row per file.
        depths: How deep the whole set is.
        channels: 1 if every image is gray, else 3.
        pixels: uint8 (N, C, size, size), where they were asked for.
        unreadable: The files that cannot be read, and why.
        remarks: What was understood of their depths.
    """

    entries: list[Entry]
    facts: np.ndarray
    depths: Depths
    channels: int
    pixels: np.ndarray | None
    unreadable: list[tuple[Entry, str]]
    remarks: list[str]


def scan(entries: Sequence[Entry], root: Path, framing: Framing, *, keep: bool) -> Scan:
    """Look at every file, by as many threads as this process has cores.

    What was found of a file is cached by its path, size and time, and the pixels by what all
    files hold.

    Args:
        entries: The files.
        root: The folder of the data set.
        framing: The size and shape of the pictures.
        keep: Whether the pixels are wanted; else only the facts.

    Raises:
        DataError: If the depth of the images cannot be told.
    """
    place = f"files-{xxhash.xxh3_128_hexdigest(os.fsencode(root.resolve()))}"
    known = _recalled(place, _stamps(entries))
    facts = known["facts"].copy()
    unknown = np.flatnonzero(facts["content"] == b"")
    pictures: dict[int, Picture] = {}
    unreadable: list[tuple[Entry, str]] = []

    def look(chosen: np.ndarray) -> None:
        found = _looks([entries[i].path for i in chosen], framing)
        for index, looked in zip(chosen, found, strict=True):
            if isinstance(looked, Unreadable):
                unreadable.append((entries[index], looked.reason))
                facts[index] = np.zeros((), FACTS)
                continue
            facts[index] = looked.facts
            if keep:
                pictures[int(index)] = looked

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what the facts say too.
        look(unknown)
        sound = facts["content"] != b""
        pixels = _kept_pixels(facts[sound], framing) if keep else None
        if keep and pixels is None:
            look(np.flatnonzero(sound & ~np.isin(np.arange(len(facts)), unknown)))
            sound = facts["content"] != b""
    if (known["facts"] != facts).any():
        known["facts"] = facts
        cache.store(place, known[sound])
    left = [entry for entry, is_sound in zip(entries, sound, strict=True) if is_sound]
    facts = facts[sound]
    depths, remarks = depths_of(facts, [entry.name for entry in left])
    channels = _channels(facts, framing)
    if keep and pixels is None:
        kept = [pictures.pop(int(index)) for index in np.flatnonzero(sound)]
        pixels = _assembled(kept, framing, depths, channels)
        cache.store(_pixels_name(facts, framing), pixels)
    return Scan(left, facts, depths, channels, pixels, unreadable, remarks)


def _channels(facts: np.ndarray, framing: Framing) -> int:
    is_gray = (facts["flags"] & GRAY) != 0
    if not framing.is_gray:
        is_gray &= (facts["flags"] & TRANSPARENT) == 0
    return 1 if is_gray.all() else 3


def _assembled(
    pictures: list[Picture], framing: Framing, depths: Depths, channels: int
) -> np.ndarray:
    pictures.reverse()
    result = np.empty((len(pictures), channels, framing.size, framing.size), np.uint8)
    for row in result:
        row[:] = finished(pictures.pop(), framing, depths, channels)
    return result


def _looks(paths: list[str], framing: Framing) -> Iterator[_Looked]:
    """Every file in order, decoded by threads a little ahead: decoding lets others work."""

    def look(path: str) -> _Looked:
        try:
            return read(path, framing)
        except Unreadable as error:
            return error
        except OSError as error:
            return Unreadable(path, error.strerror or str(error))

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if threads == 1 or len(paths) <= _GROUP:
        yield from map(look, paths)
    else:
        yield from _ahead(look, paths, threads or 1)


def _ahead(look: Callable[[str], _Looked], paths: list[str], threads: int) -> Iterator[_Looked]:
    groups = (paths[i : i + _GROUP] for i in range(0, len(paths), _GROUP))
    waiting: deque[Future[list[_Looked]]] = deque()
    with ThreadPoolExecutor(threads, "optnas-scan") as pool:
        for group in groups:
            waiting.append(pool.submit(lambda group: [look(path) for path in group], group))
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _stamps(entries: Sequence[Entry]) -> np.ndarray:
    """Name, size and time of every file; those that cannot be asked have the size -1."""
    stamps = np.zeros(len(entries), _KNOWN)
    for stamp, entry in zip(stamps, entries, strict=True):
        stamp["name"] = xxhash.xxh3_128_hexdigest(os.fsencode(entry.path))
        try:
            stat = os.stat(entry.path)
            stamp["bytes"], stamp["time"] = stat.st_size, stat.st_mtime_ns
        except OSError:
            stamp["bytes"] = -1
    return stamps


def _recalled(place: str, stamps: np.ndarray) -> np.ndarray:
    """The stamps with the facts of files that are as they were when they were looked at."""
    kept = cache.load(place)
    if kept is None or kept.dtype != _KNOWN or not len(kept):
        return stamps
    kept = kept[np.argsort(kept["name"], kind="stable")]
    at = np.minimum(np.searchsorted(kept["name"], stamps["name"]), len(kept) - 1)
    found = kept[at]
    same = np.logical_and.reduce([found[key] == stamps[key] for key in ("name", "bytes", "time")])
    stamps["facts"][same] = found["facts"][same]
    return stamps


def _kept_pixels(facts: np.ndarray, framing: Framing) -> np.ndarray | None:
    pixels = cache.load(_pixels_name(facts, framing))
    shape = (len(facts), _channels(facts, framing), framing.size, framing.size)
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape != shape:
        return None
    return pixels


def _pixels_name(facts: np.ndarray, framing: Framing) -> str:
    key = repr((_VERSION, dataclasses.astuple(framing), len(facts))).encode()
    checksum = hashlib.sha256(key)
    checksum.update(np.ascontiguousarray(facts["content"]).tobytes())
    return f"images-{checksum.hexdigest()[:32]}"
