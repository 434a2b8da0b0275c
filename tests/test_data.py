"""Data sets: loading, narrowing, splitting, and the messages when that cannot be done."""

import gzip
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from optnas.config import plugins
from optnas.config.settings import DataSettings
from optnas.extensions.importing import load_entry
from optnas.objectives.data import scanning
from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import DATASETS, DataError, Images, load_images
from optnas.objectives.data.splits import draw_stratified, hold_out

SHARED = Path(__file__).parents[2] / "shared"


def load(seed: int = 0, **keys) -> Images:
    return load_images(DataSettings(**keys), seed)


def rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


# Splits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=8), st.data())
def test_stratified_choices_keep_the_shares(sizes, data):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    count = data.draw(st.integers(len(sizes), len(labels)))
    chosen = draw_stratified(labels, count, seed=1)
    assert len(set(chosen.tolist())) == count
    got = np.bincount(labels[chosen], minlength=len(sizes))
    assert got.min() >= 1
    # A class raised to one image takes its surplus from the largest ones.
    assert (got <= np.maximum(1, np.ceil(np.array(sizes) * count / len(labels)))).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=5), st.integers(0, 3))
def test_held_out_images_are_disjoint_and_all_classes_stay(sizes, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    kept, held = hold_out(labels, len(sizes), seed)
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert set(labels[kept].tolist()) == set(labels[held].tolist()) == set(range(len(sizes)))


def test_a_class_of_one_image_cannot_be_on_both_sides():
    with pytest.raises(DataError, match="leaves none of class 1"):
        hold_out(torch.tensor([0] * 10 + [1]), 3, seed=0)


# Digits


def test_digits_are_split_by_class():
    images = load(name="digits")
    sizes = [len(x) for x in (images.train_labels, images.validation_labels, images.test_labels)]
    assert sizes == [1150, 288, 359]
    assert images.input_shape == (1, 8, 8)
    assert (images.classes, images.in_channels) == (10, 1)
    assert images.class_names == tuple("0123456789")
    assert images.augmentation == Augmentation(padding=1)
    assert images.train_images.dtype == torch.uint8
    assert images.train_images.max() == 255
    for labels in (images.train_labels, images.validation_labels, images.test_labels):
        assert labels.dtype == torch.int64
        shares = torch.bincount(labels) / len(labels)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_equal_seeds_split_equally_and_the_test_set_never_changes():
    first, again, other = load(name="digits"), load(name="digits"), load(1, name="digits")
    assert torch.equal(first.validation_images, again.validation_images)
    assert not torch.equal(first.validation_images, other.validation_images)
    assert torch.equal(first.test_images, other.test_images)
    everything = [
        *rows(first.train_images),
        *rows(first.validation_images),
        *rows(first.test_images),
    ]
    assert len(everything) == len(set(everything)) == 1797


def test_mean_and_deviation_are_those_of_the_training_split():
    images = load(name="digits")
    pixels = images.train_images.double() / 255
    assert images.mean == pytest.approx((pixels.mean().item(),))
    assert images.std == pytest.approx((pixels.std(correction=0).item(),))
    assert images.to("cpu").mean == images.mean


@pytest.mark.parametrize(("asked", "count"), [(100, 100), (0.5, 719), (None, 288)])
def test_validation_is_a_number_or_a_fraction(asked, count):
    images = load(name="digits", validation=asked)
    assert len(images.validation_labels) == count
    assert len(images.train_labels) == 1438 - count


def test_validation_by_the_test_set_warns():
    with pytest.warns(UserWarning, match="judged by the test set") as caught:
        images = load(name="digits", validation="test")
    assert len(caught) == 1
    assert torch.equal(images.validation_images, images.test_images)
    assert len(images.train_labels) == 1438
    final = images.with_validation_in_training()
    assert len(final.train_labels) == 1438


def test_final_training_takes_the_validation_split_in():
    images = load(name="digits")
    final = images.with_validation_in_training()
    assert len(final.train_labels) == 1438
    assert len(final.validation_labels) == len(final.validation_images) == 0
    assert torch.equal(final.test_images, images.test_images)
    assert final.mean != images.mean


def test_classes_are_relabelled_in_the_order_given():
    images = load(name="digits", classes=(7, 3))
    full = load(name="digits")
    assert images.class_names == ("7", "3")
    assert rows(images.test_images[images.test_labels == 0]) == rows(
        full.test_images[full.test_labels == 7]
    )
    assert set(images.train_labels.tolist()) == set(images.validation_labels.tolist()) == {0, 1}


def test_samples_narrow_the_training_set_only():
    images = load(name="digits", samples=0.25)
    assert len(images.train_labels) + len(images.validation_labels) == round(1438 / 4)
    assert len(images.validation_labels) == 72
    assert len(images.test_labels) == 359
    assert torch.bincount(images.train_labels).min() > 20


def test_augmentations_can_be_chosen():
    assert load(name="digits", augment=()).augmentation == Augmentation()
    chosen = load(name="digits", augment=("flip", "crop")).augmentation
    assert chosen == Augmentation(padding=1, flip=True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "fashion-mnist"}, r"Did you mean `fashion_mnist`\? Known: digits, fashion"),
        ({"name": "zzz"}, "There is no data set `zzz`. Known: "),
        (
            {"name": "digits", "classes": (0, 10)},
            "`classes` must be different indices from 0 to 9",
        ),
        ({"name": "digits", "classes": (1, 1)}, "`classes` must be different indices"),
        ({"name": "digits", "validation": 1438}, "`validation`: Cannot hold out 1438 of 1438"),
        ({"name": "digits", "validation": 9}, "hold out at least 10 and at most 1428"),
        ({"name": "digits", "samples": 0.005}, "`samples`: Cannot choose 7 of 1438"),
        ({"name": "digits", "size": 32}, "`digits` does not take `size`"),
        ({"name": "images"}, "`images` needs `root`"),
        ({"name": "images", "root": "/nowhere"}, "`images` needs `root`.*: /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message(keys, message):
    with pytest.raises(DataError, match=message):
        load(**keys)


def test_every_data_set_has_one_line_of_description():
    assert all(
        dataset.description and "\n" not in dataset.description for dataset in DATASETS.values()
    )


# Files


def write_idx(path: Path, values: np.ndarray, compress: bool = False) -> None:
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
    content = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if compress:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(folder: Path, classes: int, test: str, prefix: str = "", compress: bool = False):
    rng = np.random.default_rng(0)
    written = []
    for part, count in (("train", 20), (test, 10)):
        pictures = rng.integers(256, size=(count * classes // 10, 28, 28))
        labels = np.arange(len(pictures)) % classes
        write_idx(folder / f"{prefix}{part}-images-idx3-ubyte", pictures, compress)
        write_idx(folder / f"{prefix}{part}-labels-idx1-ubyte", labels, compress)
        written.append(torch.from_numpy(pictures.astype(np.uint8)))
    return written


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("name", "folder", "flip"),
    [("fashion_mnist", "FashionMNIST", True), ("kmnist", "KMNIST", False)],
)
def test_mnist_files_are_read_packed_or_not(tmp_path, name, folder, flip, compress):
    written = write_mnist(tmp_path / folder / "raw", 10, "t10k", compress=compress)
    images = load(name=name, root=str(tmp_path), validation=10)
    assert torch.equal(images.test_images[:, 0], written[1])
    assert images.augmentation == Augmentation(padding=4, size=32, flip=flip, cutout=16)
    assert images.classes == 10


def test_emnist_is_turned_upright(tmp_path):
    folder = tmp_path / "EMNIST" / "raw"
    written = write_mnist(folder, 47, "test", prefix="emnist-balanced-")
    images = load(name="emnist_balanced", root=str(tmp_path), validation=47)
    assert torch.equal(images.test_images[:, 0], written[1].mT)
    assert images.classes == 47
    assert images.class_names[10] == "A"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("fashion_mnist", "FashionMNIST/raw"),
        ("kmnist", "KMNIST/raw"),
        ("emnist_balanced", "EMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
    ],
)
def test_missing_files_say_where_they_belong(tmp_path, name, folder):
    with pytest.raises(DataError, match="set `download: true` or put the files there") as caught:
        load(name=name, root=str(tmp_path))
    assert str(tmp_path / folder) in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fashion_mnist", "emnist_balanced", "cifar10"])
def test_a_failed_download_is_a_data_error(tmp_path, name, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match=r"Downloading .* failed"):
        load(name=name, root=str(tmp_path), download=True)


def test_damaged_files_are_named(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    write_mnist(folder, 10, "t10k", compress=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load(name="fashion_mnist", root=str(tmp_path))
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="damaged or incomplete"):
        load(name="cifar10", root=str(tmp_path))


def test_labels_that_do_not_fit_the_images_are_refused(tmp_path):
    folder = tmp_path / "KMNIST" / "raw"
    write_mnist(folder, 10, "t10k")
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(DataError, match="do not fit together"):
        load(name="kmnist", root=str(tmp_path))


@pytest.mark.skipif(not (SHARED / "data/fashion-mnist").is_dir(), reason="needs shared data")
def test_the_real_fashion_mnist(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (SHARED / "data/fashion-mnist").glob("*.gz"):
        (folder / path.name).symlink_to(path)
    images = load(name="fashion_mnist", root=str(tmp_path))
    assert [len(images.train_images), len(images.validation_images)] == [55_000, 5_000]
    assert torch.bincount(images.test_labels).tolist() == [1000] * 10
    assert images.mean == pytest.approx((0.286,), abs=1e-3)
    assert images.std == pytest.approx((0.353,), abs=1e-3)


@pytest.mark.skipif(not (SHARED / "data/cifar10").is_dir(), reason="needs shared data")
def test_the_real_cifar10(tmp_path):
    tool = SHARED / "tools/unpack_cifar10.py"
    subprocess.run([sys.executable, tool, tmp_path], check=True, stdout=subprocess.DEVNULL)
    images = load(name="cifar10", root=str(tmp_path))
    assert images.input_shape == (3, 32, 32)
    assert torch.bincount(images.train_labels).tolist() == [4500] * 10
    assert torch.bincount(images.validation_labels).tolist() == [500] * 10
    assert images.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    assert images.std == pytest.approx((0.247, 0.243, 0.261), abs=1e-3)
    assert images.class_names[3] == "cat"
    narrow = load(name="cifar10", root=str(tmp_path), classes=(0, 1), samples=0.1)
    assert [len(narrow.train_images), len(narrow.validation_images)] == [900, 100]


# Folders of images


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "optnas"


def write_pictures(folder: Path, count: int, mode: str = "RGB", seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = rng.integers(256, size=(12, 9, 3) if mode == "RGB" else (12, 9), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_a_folder_per_class(tmp_path, cache):
    root = tmp_path / "pets"
    write_pictures(root / "cat", 20)
    write_pictures(root / "dog", 10, mode="L", seed=1)
    (root / "cat" / "notes.txt").write_text("not an image")
    images = load(name="images", root=str(root))
    assert images.input_shape == (3, 32, 32)
    assert images.class_names == ("cat", "dog")
    assert torch.bincount(images.test_labels).tolist() == [4, 2]
    assert torch.bincount(images.validation_labels).tolist() == [3, 2]
    assert images.augmentation == Augmentation(padding=4, flip=True, cutout=16)
    gray = images.train_images[images.train_labels == 1]
    assert torch.equal(gray[:, 0], gray[:, 2])


def test_training_and_test_folders(tmp_path, cache):
    for part, names in (("train", "abc"), ("test", "bc")):
        for name in names:
            write_pictures(tmp_path / "x" / part / name, 5, mode="L", seed=ord(name))
    images = load(name="images", root=str(tmp_path / "x"), size=10, validation=3)
    assert images.input_shape == (1, 10, 10)
    assert torch.bincount(images.test_labels).tolist() == [0, 5, 5]
    assert len(images.train_labels) == 12
    write_pictures(tmp_path / "x" / "test" / "z", 1)
    with pytest.raises(DataError, match=r"has classes that .* lacks: \['z'\]"):
        load(name="images", root=str(tmp_path / "x"))


def test_decoded_images_are_cached_until_a_file_changes(tmp_path, cache, monkeypatch):
    root = tmp_path / "pets"
    write_pictures(root / "a", 5)
    write_pictures(root / "b", 5, seed=1)
    first = load(name="images", root=str(root), size=8)
    kinds = sorted(path.name.partition("-")[0] for path in cache.iterdir())
    assert kinds == ["files", "images"]
    monkeypatch.setattr(scanning, "read", lambda *arguments: pytest.fail("decoded again"))
    again = load(name="images", root=str(root), size=8)
    assert torch.equal(first.train_images, again.train_images)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_pictures(root / "a", 5, seed=2)
    changed = load(name="images", root=str(root), size=8)
    assert not torch.equal(first.train_images, changed.train_images)
    assert len(list(cache.iterdir())) == 3  # What is known of the files is replaced.


def test_a_damaged_cache_is_made_anew_and_no_cache_is_no_error(tmp_path, cache, monkeypatch):
    root = tmp_path / "pets"
    write_pictures(root / "a", 5)
    write_pictures(root / "b", 5, seed=1)
    first = load(name="images", root=str(root), size=8)
    for target in cache.iterdir():
        target.write_bytes(target.read_bytes()[:100])
    again = load(name="images", root=str(root), size=8)
    assert torch.equal(first.train_images, again.train_images)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "a" / "0.png"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert torch.equal(
            load(name="images", root=str(root), size=8).train_images, first.train_images
        )


def test_deep_and_transparent_images_keep_their_brightness(tmp_path, cache):
    for name in "ab":
        (tmp_path / "x" / name).mkdir(parents=True)
    for index in range(3):
        deep = np.full((6, 6), 32_768, dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / "x" / "a" / f"{index}.png")
        Image.new("LA", (6, 6), (128, 255)).save(tmp_path / "x" / "b" / f"{index}.png")
    images = load(name="images", root=str(tmp_path / "x"), size=6, validation=2)
    assert images.in_channels == 1
    assert images.train_images.unique().tolist() == [128]
    assert images.std == (1.0,)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/0.png": b"no image", "b/0.png": b""}, r"Cannot read the image .*a/0\.png"),
        ({"a/0.png": b""}, "two or more classes"),
        ({"a/0.png": b"", "b/0.txt": b""}, "No images in .*b"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, cache, files, message):
    for name, content in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True)
        (tmp_path / "x" / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(name="images", root=str(tmp_path / "x"))


# Functions


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write the body of a function `load` of a module of its own; returns the name to use."""
    monkeypatch.chdir(tmp_path)

    def write(body: str) -> str:
        module = f"own_{abs(hash((str(tmp_path), body)))}"
        indented = "\n    ".join(body.splitlines())
        Path(f"{module}.py").write_text(
            f"import numpy as np\nimport torch\n\ndef load():\n    {indented}\n"
        )
        return f"{module}:load"

    return write


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("np.full((30, 6, 7), 9, np.uint8)", (1, 6, 7)),
        ("np.full((30, 6, 7, 3), 9, np.uint8)", (3, 6, 7)),
        ("torch.full((30, 6, 7, 3), 9, dtype=torch.uint8)", (3, 6, 7)),
    ],
)
def test_a_function_of_ones_own(own, expression, shape):
    # Identical images would have to stay together.
    marked = f"x = {expression}\nfor i in range(30): x[i, 1] = i\n"
    name = own(f"{marked}y = [4, 2, 7] * 10\nreturn x, y, x[:3], np.array(y[:3])")
    path = list(sys.path)
    images = load(name=name)
    assert sys.path == path
    assert images.input_shape == shape
    assert images.class_names == ("2", "4", "7")
    assert images.test_labels[images.test_images[:, 0, 1, 0].argsort()].tolist() == [1, 0, 2]
    assert images.train_images[:, :, 2:].unique().tolist() == [9]
    assert images.augmentation == Augmentation(padding=1, flip=True, cutout=3)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1", "must return"),
        ("raise RuntimeError('gone')", "failed: RuntimeError: gone"),
        ("x = np.zeros((4, 5, 5)); return x, [0, 1] * 2, x, [0, 1] * 2", "must be uint8.*float64"),
        ("x = np.zeros((4, 5), np.uint8); return x, [0, 1] * 2, x, [0, 1] * 2", "must be uint8"),
        (
            "x = np.zeros((4, 5, 5), np.uint8); return x, [0, 1], x, [0, 1] * 2",
            "must be 4 integers",
        ),
        ("x = np.zeros((2, 5, 5), np.uint8); return x, [0., 1.], x, [0, 1]", "must be 2 integers"),
        ("x = np.zeros((2, 5, 5), np.uint8); return x, [0, 1], x, [0, 2]", "no other ones"),
        ("x = np.zeros((2, 5, 5), np.uint8); return x, [1, 1], x, [1, 1]", "two or more classes"),
        (
            "x = np.zeros((2, 5, 5), np.uint8); return x, [0, 1], x[:, 1:], [0, 1]",
            "differ in shape",
        ),
    ],
)
def test_functions_that_return_something_else(own, body, message):
    with pytest.raises(DataError, match=message):
        load(name=own(body))


@pytest.mark.parametrize("name", ["no_such_module_:f", "optnas:no_such_function"])
def test_functions_that_do_not_exist(name):
    with pytest.raises(DataError, match=f"`{name}` failed: "):
        load(name=name)


def test_importing_does_not_import_torchvision():
    code = "import sys, optnas.objectives.training.trainer; sys.exit('torchvision' in sys.modules)"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_loading_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(name="digits")


def test_study_files_know_the_same_data_sets():
    """They find the names among the entry points, without torch."""
    faces = {"orl", "recordio"}  # Their room is that of the faces.
    assert {*plugins.names("data"), "module:function", "torchvision:NAME"} == {*DATASETS, *faces}
    for name in plugins.names("data"):
        entry = load_entry("data set", "optnas.data", name)
        assert name in faces or entry is DATASETS[name]
