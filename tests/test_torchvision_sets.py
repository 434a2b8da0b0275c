"""Sets that torchvision knows, as small copies of their files."""

import numpy as np
import pytest
from PIL import Image

from optnas.config.settings import DataSettings
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.images import load_images


def load(name, root, **keys):
    return load_images(DataSettings(name=f"torchvision:{name}", root=str(root), **keys), 0)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return lambda side=20: Image.fromarray(rng.integers(0, 255, (side, 24, 3), dtype=np.uint8))


def test_a_set_without_splits_is_split_by_what_it_holds(tmp_path, photos):
    names = ["AnnualCrop", "Forest", "HerbaceousVegetation"]
    for name in names:
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in range(20):
            photos().save(folder / f"{name}_{number}.jpg")
    images = load("EuroSAT", tmp_path)
    assert images.class_names == tuple(names)
    assert images.input_shape == (3, 20, 24)
    assert images.reading.counts["test"] == (4, 4, 4)
    assert images.reading.counts["validation"] == (3, 3, 3)
    sized = load("EuroSAT", tmp_path, size=10, resize="crop")
    assert sized.input_shape == (3, 10, 10)
    assert "cropped in the middle to 10x10" in sized.reading.lines()[2]


def test_official_splits_stay(tmp_path, photos):
    """Imagenette has train and val, in folders; what no set has is split off."""
    for split in ("train", "val"):
        for wnid in ("n01440764", "n02102040", "n02979186"):
            folder = tmp_path / "imagenette2" / split / wnid
            folder.mkdir(parents=True)
            for number in range(10 if split == "train" else 4):
                photos(20 + number % 2).save(folder / f"{number}.JPEG")
    images = load("Imagenette", tmp_path, size=8)
    assert images.reading.counts["validation"][:3] == (4, 4, 4)
    assert images.reading.counts["test"][:3] == (2, 2, 2)


def test_sets_in_mnists_format(tmp_path):
    from tests.test_data import write_mnist

    write_mnist(tmp_path / "MNIST" / "raw", 10, "t10k")
    images = load("MNIST", tmp_path, validation=10)
    assert images.in_channels == 1
    assert images.class_names[0] == "0 - zero"
    assert [sum(images.reading.counts[s]) for s in ("train", "validation", "test")] == [10, 10, 10]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoSuchSet", "torchvision has no data set 'NoSuchSet'"),
        ("VisionDataset", "torchvision has no data set"),
        ("wrap_dataset_for_transforms_v2", "torchvision has no data set"),
        ("SVHN", "cannot be read from .*Set `download: true`"),
        ("EuroSAT", "cannot be read from"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        load(name, tmp_path)


def test_sets_for_other_tasks_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read from"):
        load("VOCSegmentation", tmp_path)
