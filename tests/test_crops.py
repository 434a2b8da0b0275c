"""Random crops, jitter and the middle of images: what ImageNet's recipe does to its images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from optnas.config.settings import DataSettings
from optnas.objectives.data import jitter
from optnas.objectives.data.augment import Augmentation, draw
from optnas.objectives.data.batches import augmented_chunks
from optnas.objectives.data.crops import crop_box, cropped
from optnas.objectives.data.decoding import Framing
from optnas.objectives.data.image_files import decode
from optnas.objectives.data.images import DataError, load_images
from optnas.objectives.kept.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Two classes of ten smooth pictures of several sizes, as JPEGs."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for index in range(20):
        height, width = (90, 120) if index % 3 else (140, 80)
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        folder = root / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        small.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")
    return root


def test_crops_are_as_those_of_torchvision():
    """The same law: shares of area and of ratio, place, and what never fits."""
    torch.manual_seed(0)
    image = torch.zeros(1, 90, 120)
    ours = np.array([crop_box(90, 120, seed) for seed in range(4000)])
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
            for _ in range(4000)
        ]
    )
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 1.5  # A deviation of 25 over sqrt(4000).
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 1.5
    for height, width in ((10, 400), (400, 10), (1, 1)):
        fallback = transforms.RandomResizedCrop.get_params(
            torch.zeros(1, height, width), (4.0, 5.0), (3 / 4, 4 / 3)
        )
        if height != width:
            assert {crop_box(height, width, seed)[2:] for seed in range(50)} >= {fallback[2:]}
    assert crop_box(90, 120, 7) == crop_box(90, 120, 7)


def test_a_crop_of_a_file_is_that_of_torchvision(photographs):
    path = photographs / "a" / "0.jpg"
    with Image.open(path) as image:
        width, height = image.size
        expected = functional.resized_crop(image, *crop_box(height, width, 5), [32, 32])
    pixels = decode(path, Framing(32), 3, crop=5)
    assert np.array_equal(pixels, np.moveaxis(np.asarray(expected), 2, 0))


def test_crops_in_memory_are_as_those_of_torchvision():
    images = torch.randint(0, 256, (4, 3, 24, 24), generator=torch.Generator().manual_seed(0))
    images, seeds = images.byte(), torch.arange(4)
    for image, crop, seed in zip(images, cropped(images, seeds), seeds, strict=True):
        box = crop_box(24, 24, int(seed))
        expected = functional.resized_crop(image.float(), *box, [24, 24], antialias=True)
        assert (crop.float() - expected).abs().max() <= 0.51


def test_the_middle_is_that_of_imagenets_papers(tmp_path):
    """Resized to 48 of 96 pixels and cut to 42, which are whole pixels here."""
    path, rng = tmp_path / "picture.png", np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = small.resize((128, 96), Image.Resampling.BICUBIC)
    image.save(path)
    expected = functional.center_crop(functional.resize(image, 48, antialias=True), [42, 42])
    pixels = decode(path, Framing(42, "crop", fraction=0.875), 3)
    difference = pixels.astype(int) - np.moveaxis(np.asarray(expected).astype(int), 2, 0)
    assert np.abs(difference).max() <= 1
    squashed = decode(path, Framing(42, fraction=0.875), 3)
    assert not np.array_equal(squashed, decode(path, Framing(42), 3))
    served = Preprocessing(resize="crop", fraction=0.875).read(path, (3, 42, 42))
    assert np.array_equal(served, pixels)


def test_fingerprints_do_not_say_what_is_usual():
    assert repr(Framing(8)) == "Framing(size=8, resize='squash', background=(255, 255, 255))"
    assert "fraction=0.5" in repr(Framing(8, fraction=0.5))
    assert Augmentation(padding=1).said().keys() == {
        *("padding", "size", "flip", "cutout", "resize"),
    }
    assert Augmentation(jitter=0.4).said()["jitter"] == 0.4


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_that_of_torchvision(channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, channels, 6, 7), generator=generator).byte()
    draws = torch.randint(0, jitter.STEPS, (5, jitter.DRAWS), generator=generator)
    result = jitter.jittered(images, draws, 0.4) / 255
    for image, row, found in zip(images.float() / 255, draws, result, strict=True):
        changes = (0.8 * row.double() / (jitter.STEPS - 1) - 0.4).tolist()
        image = functional.adjust_brightness(image, 1 + changes[0])
        image = functional.adjust_contrast(image, 1 + changes[1])
        image = functional.adjust_saturation(image, 1 + changes[2])
        image = functional.adjust_hue(image, changes[3] / 2)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-5)


def test_draws_of_older_recipes_are_the_same():
    recipe = Augmentation(padding=1, flip=True)
    before = draw(9, 8, 8, recipe, torch.Generator().manual_seed(1))
    more = dataclasses.replace(recipe, jitter=0.4)
    after = draw(9, 8, 8, more, torch.Generator().manual_seed(1))
    assert torch.equal(before, after[:, : before.shape[1]])
    assert after.shape[1] == before.shape[1] + 1 + jitter.DRAWS


RECIPE = ("resized_crop", "flip", "jitter")


@pytest.mark.parametrize("stream", [False, True])
def test_an_epoch_shows_crops_and_repeats_itself(photographs, stream):
    settings = DataSettings(
        name="images", root=str(photographs), size=16, stream=stream, augment=RECIPE
    )
    images = load_images(settings, seed=0)
    assert images.augmentation == Augmentation(flip=True, resized_crop=True, jitter=0.4)
    first, again = (
        [x for x, _ in augmented_chunks(images, 4, torch.Generator().manual_seed(2))]
        for _ in range(2)
    )
    assert all(map(torch.equal, first, again))
    other = next(augmented_chunks(images, 4, torch.Generator().manual_seed(3)))[0]
    assert first[0].shape[1:] == other.shape[1:] == (3, 16, 16)
    assert not torch.equal(first[0][:4], other[:4])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"augment": ("crop", "resized_crop")}, "one of crop and resized_crop"),
        ({"augment": ("resized_crop",), "reading": 1}, "resized_crop needs `reading: 2`"),
        ({"resize": "pad", "crop_fraction": 0.5}, "`crop_fraction` is for `resize: crop`"),
    ],
)
def test_what_does_not_go_together_is_refused(photographs, keys, message):
    with pytest.raises((DataError, ValueError), match=message):
        load_images(DataSettings(name="images", root=str(photographs), **keys), seed=0)
