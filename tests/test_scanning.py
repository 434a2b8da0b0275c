"""The first look at files: once each, cached by path, size and time, bounded, without a home."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from optnas.config.settings import DataSettings
from optnas.objectives.data import cache, scanning
from optnas.objectives.data.decoding import Framing
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.images import load_images
from optnas.objectives.data.listing import by_folders


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "optnas"


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "x" / label).mkdir(parents=True)
        for number in range(30):
            write(tmp_path / "x" / label / f"{number}.png", rng)
    return tmp_path / "x"


def write(path, rng):
    Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path)


def load(root, **keys):
    return load_images(DataSettings(name="images", root=str(root), size=8, **keys), 0)


def looks(monkeypatch):
    """The files that are read from now on."""
    seen = []
    read = scanning.read
    monkeypatch.setattr(scanning, "read", lambda p, f: (seen.append(Path(p).name), read(p, f))[1])
    return seen


def test_files_are_looked_at_once(root, monkeypatch):
    seen = looks(monkeypatch)
    first = load(root)
    assert len(seen) == 60
    seen.clear()
    again = load(root)
    assert seen == []
    assert again.reading == first.reading
    load(root, stream=True)
    assert seen == []


def test_of_a_streamed_set_only_new_files_are_looked_at(root, monkeypatch):
    load(root, stream=True)
    seen = looks(monkeypatch)
    write(root / "a" / "new.png", np.random.default_rng(5))
    load(root, stream=True)
    assert seen == ["new.png"]


def test_a_file_of_the_same_size_and_another_time_is_another_one(root, monkeypatch):
    entry = by_folders(root).entries[0]
    load(root)
    seen = looks(monkeypatch)
    os.utime(entry.path, ns=(0, time.time_ns() - 10**10))
    load(root, stream=True)
    assert seen == [Path(entry.path).name]


def test_a_folder_that_was_moved_has_the_same_pixels(root, tmp_path, monkeypatch):
    first = load(root)
    (tmp_path / "x").rename(tmp_path / "y")
    monkeypatch.setattr(scanning, "_assembled", lambda *arguments: pytest.fail("made again"))
    assert load(tmp_path / "y").reading.digest == first.reading.digest


def test_unreadable_files_are_all_named_and_left_out_up_to_a_share(root):
    (root / "a" / "7.png").write_bytes(b"")
    reading = load(root).reading
    assert reading.unreadable == (("a/7.png", "the file is empty"),)
    assert sum(map(sum, reading.counts.values())) == 59
    with pytest.raises(DataError, match=r"a/7\.png: the file is empty\. `unreadable: refuse`"):
        load(root, unreadable="refuse")
    (root / "a" / "8.png").write_bytes(b"<html>")
    (root / "b" / "9.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"(?s)a/7\.png: .*a/8\.png: .*b/9\.png: .*a 2 of 30"):
        load(root)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_make_no_difference(root, monkeypatch, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(threads), raising=False)
    entries = by_folders(root).entries
    scan = scanning.scan(entries, root, Framing(8), keep=True)
    for entry, pixels in zip(entries, scan.pixels, strict=True):
        expected = np.asarray(Image.open(entry.path).resize((8, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels, expected.transpose(2, 0, 1))


def test_without_a_home_nothing_is_cached(root, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache.folder() is None
    assert load(root).reading.digest == load(root).reading.digest
    monkeypatch.setattr(Path, "expanduser", lambda path: no_home())
    with pytest.raises(DataError, match="needs `root`, a folder for its files"):
        load_images(DataSettings(name="cifar10"), 0)


def test_nothing_partial_is_left_where_the_disk_is_full(place, monkeypatch):
    def full(file, content, **options):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="could not be cached: No space left"):
        cache.store("images-x", np.zeros(10))
    assert list(place.iterdir()) == []


def test_what_a_killed_writer_left_is_removed(place):
    place.mkdir(parents=True)
    old, new = place / "old.part", place / "new.part"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    cache.store("images-x", np.zeros(10))
    assert not old.exists()
    assert new.exists()


def test_the_cache_has_a_bound_and_the_longest_unused_goes_first(place, monkeypatch):
    monkeypatch.setattr(cache, "BOUND", 3000)
    for number, name in enumerate("abc"):
        cache.store(f"images-{name}", np.zeros(100))
        os.utime(place / f"images-{name}.npy", (number, number))
    (place / "data").mkdir()
    (place / "data" / "images-mine.npy").write_bytes(b"x" * 9000)
    assert cache.load("images-a") is not None  # which uses it
    cache.store("images-d", np.zeros(100))
    assert sorted(p.name for p in place.glob("*.npy")) == [f"images-{x}.npy" for x in "acd"]
    with pytest.warns(UserWarning, match="no room"):
        cache.store("images-e", np.zeros(1000))
    assert (place / "data" / "images-mine.npy").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x93NUMPY\x01\x00v\x00"])
def test_a_damaged_cache_is_made_anew(root, place, content):
    first = load(root)
    for path in place.glob("*.npy"):
        path.write_bytes(content)
    assert load(root).reading == first.reading
    assert cache.load("files-nothing") is None
