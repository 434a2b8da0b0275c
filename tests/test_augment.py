"""Crop, flip and cutout: what is drawn, and what it does to each image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optnas.objectives.data.augment import Augmentation, augment_and_normalise, draw, normalise

# 99.99% quantiles of the chi-square distribution by degrees of freedom.
CHI_SQUARE = {1: 15.1, 4: 23.5, 7: 29.9, 8: 31.8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(seed))


def reference(image, drawn, augmentation, mean, std):
    """One image by loops and slices, in the order of the papers' code."""
    top, left, flip, middle_y, middle_x = drawn
    pad = augmentation.padding
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    height, width = augmentation.output_shape(*image.shape[1:])
    result = padded[:, top : top + height, left : left + width]
    if augmentation.flip and flip:
        result = result[:, :, ::-1]
    result = result.astype(np.float32)
    for channel in range(len(result)):
        result[channel] *= np.float32(1 / (255 * std[channel]))
        result[channel] += np.float32(-mean[channel] / std[channel])
    for y in range(height):
        for x in range(width):
            half = augmentation.cutout // 2
            inside_y = middle_y - half <= y < middle_y - half + augmentation.cutout
            if inside_y and middle_x - half <= x < middle_x - half + augmentation.cutout:
                result[:, y, x] = 0
    return result


def chi_square(values: torch.Tensor, bins: int) -> float:
    counts = np.bincount(values.numpy(), minlength=bins)
    expected = counts.sum() / bins
    return float(((counts - expected) ** 2 / expected).sum())


@st.composite
def augmentations(draw_from) -> Augmentation:
    padding = draw_from(st.integers(0, 3))
    return Augmentation(
        padding=padding,
        size=draw_from(st.none() | st.integers(1, 5 + 2 * padding)),
        flip=draw_from(st.booleans()),
        cutout=draw_from(st.integers(0, 6)),
    )


@settings(max_examples=60, deadline=None)
@given(augmentations(), st.sampled_from((1, 3)), st.integers(0, 2**32))
def test_equal_to_the_naive_reference_given_the_same_draws(augmentation, channels, seed):
    images = pictures(7, channels, 5, 6, seed)
    mean, std = (0.3, 0.5, 0.1)[:channels], (0.2, 1.0, 0.7)[:channels]
    draws = draw(7, 5, 6, augmentation, generator(seed))
    result = augment_and_normalise(images, draws, augmentation, mean, std)
    for i in range(7):
        expected = reference(images[i].numpy(), draws[i].tolist(), augmentation, mean, std)
        assert np.array_equal(result[i].numpy(), expected)


def test_pieces_of_any_size_give_the_same_images():
    augmentation = Augmentation(padding=2, flip=True, cutout=3)
    images = pictures(50, 3, 9, 9)
    draws = draw(50, 9, 9, augmentation, generator())
    arguments = (augmentation, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    whole = augment_and_normalise(images, draws, *arguments)
    for size in (1, 7, 49):
        pieces = [
            augment_and_normalise(images[i : i + size], draws[i : i + size], *arguments)
            for i in range(0, 50, size)
        ]
        assert torch.equal(torch.cat(pieces), whole)


def test_nothing_on_is_the_identity_but_for_normalisation():
    images = pictures(4, 3, 8, 8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    draws = draw(4, 8, 8, Augmentation(), generator())
    result = augment_and_normalise(images, draws, Augmentation(), mean, std)
    assert torch.equal(result, normalise(images, mean, std))
    assert torch.equal(
        (normalise(images, (0.0,) * 3, (1.0,) * 3) * 255).round().to(torch.uint8), images
    )


def test_normalised_images_have_mean_zero_and_deviation_one():
    images = pictures(64, 1, 8, 8)
    pixels = images.double() / 255
    result = normalise(images, [pixels.mean().item()], [pixels.std(correction=0).item()])
    assert result.mean().item() == pytest.approx(0, abs=1e-6)
    assert result.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_offsets_and_centres_are_uniform_and_flips_fair():
    augmentation = Augmentation(padding=4, flip=True, cutout=2)
    draws = draw(20_000, 8, 8, augmentation, generator())
    for column, bins in enumerate((9, 9, 2, 8, 8)):
        assert draws[:, column].min() == 0
        assert draws[:, column].max() == bins - 1
        assert chi_square(draws[:, column], bins) < CHI_SQUARE[bins - 1]


def test_draws_of_neighbours_and_of_columns_are_independent():
    draws = draw(20_000, 8, 8, Augmentation(padding=4), generator()).double()
    for a, b in (
        (draws[1:, 0], draws[:-1, 0]),
        (draws[:, 0], draws[:, 1]),
        (draws[:, 2], draws[:, 3]),
    ):
        assert abs(np.corrcoef(a.numpy(), b.numpy())[0, 1]) < 0.03


def test_an_enlarged_crop_trains_on_larger_images():
    augmentation = Augmentation(padding=4, size=32)
    draws = draw(1000, 28, 28, augmentation, generator())
    assert draws[:, :2].max() == 4
    assert chi_square(draws[:, 0], 5) < CHI_SQUARE[4]
    result = augment_and_normalise(pictures(1000, 1, 28, 28), draws, augmentation, [0.0], [1.0])
    assert result.shape == (1000, 1, 32, 32)
    # All of the image is inside, whatever the offset.
    assert torch.equal(
        (result.sum((1, 2, 3)) * 255).round(),
        pictures(1000, 1, 28, 28).double().sum((1, 2, 3)).float(),
    )


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_hides_a_square_in_every_channel_unless_the_border_clips_it(side):
    images = torch.full((400, 3, 10, 10), 255, dtype=torch.uint8)
    augmentation = Augmentation(cutout=side)
    draws = draw(400, 10, 10, augmentation, generator())
    result = augment_and_normalise(images, draws, augmentation, (0.2,) * 3, (1.0,) * 3)
    hidden = result == 0
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    area = hidden[:, 0].sum((1, 2))
    inside = ((draws[:, 3:] >= side // 2) & (draws[:, 3:] <= 10 - side + side // 2)).all(1)
    assert (area[inside] == side * side).all()
    assert (area[~inside] < side * side).all()
    assert (area > 0).all()


def test_every_image_is_flipped_by_its_own_draw():
    images = torch.arange(8, dtype=torch.uint8).expand(500, 1, 1, 8).contiguous()
    augmentation = Augmentation(flip=True)
    draws = draw(500, 1, 8, augmentation, generator())
    result = augment_and_normalise(images, draws, augmentation, [0.0], [1.0])
    assert torch.equal(result[:, 0, 0, 0] > result[:, 0, 0, 7], draws[:, 2] == 1)
    assert 180 < int(draws[:, 2].sum()) < 320


def test_leaving_one_out_does_not_change_the_other_draws():
    full = draw(10, 8, 8, Augmentation(padding=1, flip=True, cutout=2), generator())
    less = draw(10, 8, 8, Augmentation(padding=1), generator())
    assert torch.equal(full, less)


def test_equal_seeds_draw_the_same_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    augmentation = Augmentation(padding=1)
    assert torch.equal(
        draw(9, 8, 8, augmentation, generator(3)), draw(9, 8, 8, augmentation, generator(3))
    )
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("start", "names", "expected"),
    [
        (Augmentation(4, 32, True, 16), (), Augmentation()),
        (Augmentation(4, 32, True, 16), ("crop",), Augmentation(4, 32)),
        (Augmentation(4, 32, True, 16), ("flip", "cutout"), Augmentation(0, None, True, 16)),
        (Augmentation(1), ("crop", "flip", "cutout"), Augmentation(1, None, True, 4)),
        (Augmentation(), ("crop",), Augmentation(1)),
    ],
)
def test_restricted_keeps_the_named_ones_and_fills_in_the_rest(start, names, expected):
    assert start.restricted(names, side=8) == expected


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        Augmentation(padding=-1)
    with pytest.raises(ValueError, match="must be some of"):
        Augmentation().restricted(("mixup",), 8)
    with pytest.raises(ValueError, match="does not fit"):
        draw(1, 8, 8, Augmentation(padding=1, size=11), generator())
