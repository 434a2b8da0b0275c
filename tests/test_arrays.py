"""Arrays that a function returns: layouts, channels, labels."""

import numpy as np
import pytest
import torch

from optnas.config.settings import DataSettings
from optnas.objectives.data.arrays import images_of, load_arrays
from optnas.objectives.data.errors import DataError
from optnas.objectives.data.reading import concerns


def returned(shape, labels=None, count=12):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (count, *shape), dtype=np.uint8)
    y = np.arange(count) % 2 if labels is None else labels
    return x, y, x[:4], y[:4]


def loaded(values, **keys):
    return load_arrays(values, DataSettings(name="mine:load", **keys))


@pytest.mark.parametrize(
    ("shape", "keys", "expected"),
    [
        ((8, 9), {}, (1, 8, 9)),
        ((8, 9, 1), {}, (1, 8, 9)),
        ((8, 9, 3), {}, (3, 8, 9)),
        ((1, 8, 9), {}, (1, 8, 9)),
        ((3, 8, 9), {}, (3, 8, 9)),
        ((3, 8, 24), {}, (3, 8, 24)),
        ((3, 8, 3), {"layout": "NCHW"}, (3, 8, 3)),
        ((3, 8, 3), {"layout": "NHWC"}, (3, 3, 8)),
        ((1, 8, 3), {"layout": "NHWC"}, (3, 1, 8)),
        ((4, 8, 9), {"channels": 4}, (4, 8, 9)),
        ((8, 9, 12), {"channels": 12}, (12, 8, 9)),
        ((8, 9, 2), {"channels": 2, "layout": "NHWC"}, (2, 8, 9)),
        ((3, 3), {}, (1, 3, 3)),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda x: x.tolist()])
def test_layouts_are_told_by_their_shape_or_said(shape, keys, expected, kind):
    values = returned(shape)
    if kind not in (np.asarray, torch.from_numpy):
        # Lists of numbers are int64, which is no picture.
        with pytest.raises(DataError, match="must be uint8"):
            loaded((kind(values[0]), *values[1:]), **keys)
        return
    found = loaded((kind(values[0]), values[1], kind(values[2]), values[3]), **keys)
    assert tuple(found.pixels.shape[1:]) == expected
    axis = {"NCHW": (0, 1, 2), "NHWC": (2, 0, 1)}.get(keys.get("layout", ""))
    if axis is not None:
        assert np.array_equal(found.pixels[0].numpy(), values[0][0].transpose(axis))


@pytest.mark.parametrize(
    ("shape", "keys", "message"),
    [
        ((3, 8, 3), {}, "could be both"),
        ((1, 8, 3), {}, "say `layout: NHWC` or `layout: NCHW`"),
        ((1, 28, 1), {}, "could be both"),
        ((8, 9, 4), {}, "1 or 3 channels neither last nor first: say `channels`"),
        ((8, 9, 4), {"layout": "NHWC"}, "must have 1 or 3 channels, unless `channels`"),
        ((8, 9, 3), {"channels": 4}, "has 4 channels neither"),
        ((8, 9), {"channels": 3}, "must have 3 channels"),
        ((8, 9, 3), {"layout": "NHW"}, "must have the layout NHW"),
        ((64,), {}, "must be uint8 of shape"),
        ((2, 8, 8, 3), {}, "must be uint8 of shape"),
        ((0, 8), {}, "must be uint8 of shape"),
    ],
)
def test_ambiguous_and_other_layouts_are_refused(shape, keys, message):
    with pytest.raises(DataError, match=message):
        loaded(returned(shape), **keys)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        *(
            (np.array([10, 2] * 6, dtype), ("2", "10"))
            for dtype in (np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64)
        ),
        (torch.tensor([10, 2] * 6, dtype=torch.int32), ("2", "10")),
        ([[10], [2]] * 6, ("2", "10")),
        ([-1, 3] * 6, ("-1", "3")),
        (["n10", "n2"] * 6, ("n2", "n10")),
        (np.array(["dog", "cat"] * 6), ("cat", "dog")),
        (np.array(["dog", "cat"] * 6, dtype=object), ("cat", "dog")),
        (np.array([[b"dog"], [b"cat"]] * 6), ("cat", "dog")),
        (["cafe\u0301", "bar"] * 6, ("bar", "caf\u00e9")),
        (np.array([10, 2] * 6, dtype=object), ("2", "10")),
    ],
)
def test_labels_are_numbers_names_or_one_column(labels, names):
    found = loaded(returned((5, 6), labels))
    assert found.class_names == names
    assert found.rows["label"][:2].tolist() == [1, 0] if names[0] != "-1" else [0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(12)[:, :2], "take their argmax"),
        ([0.0, 1.0] * 6, "integers or names"),
        ([True, False] * 6, "integers or names"),
        ([None, "a"] * 6, "integers or names"),
        ([0, 1] * 5, "12 integers or names"),
        (["", "a"] * 6, "empty name"),
        ([[0, 1]] * 12, "integers or names"),
        (np.array([b"\xff", b"a"] * 6), "no UTF-8"),
        ([1] * 12, "two or more classes"),
    ],
)
def test_other_labels_are_refused(labels, message):
    x = returned((5, 6))[0]
    with pytest.raises(DataError, match=message):
        loaded((x, labels, x, labels))


def test_every_image_has_a_digest_of_its_bytes_shape_and_type():
    x = np.zeros((4, 2, 8), np.uint8)
    first = loaded((x, [0, 1] * 2, x, [0, 1] * 2)).rows["content"]
    other = x.reshape(4, 4, 4)
    second = loaded((other, [0, 1] * 2, other, [0, 1] * 2)).rows["content"]
    assert len(set(first.tolist())) == 1
    assert first[0] != second[0]


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(12, 3, 8, 8).bfloat16(),
        torch.rand(12, 3, 8, 8).to_sparse(),
        torch.empty(12, 3, 8, 8, device="meta", dtype=torch.uint8),
    ],
)
def test_tensors_that_are_no_arrays_are_refused(images):
    with pytest.raises(DataError, match=r"train_images of `mine:load` must be an array"):
        loaded((images, [0, 1] * 6, images, [0, 1] * 6))


@pytest.mark.parametrize("masked", range(4))
def test_masked_values_are_refused(masked):
    values = list(returned((5, 6)))
    values[masked] = np.ma.masked_equal(values[masked], values[masked].flat[0])
    with pytest.raises(DataError, match="must have no masked values"):
        loaded(tuple(values))
    values[masked] = np.ma.array(values[masked].data)  # A mask that hides nothing.
    assert loaded(tuple(values)).pixels.shape == (16, 1, 5, 6)


def test_labels_that_are_names_once_and_numbers_once_are_refused():
    x, y, test, _ = returned((5, 6))
    with pytest.raises(DataError, match=r"names .* and integers .*: '0' and 0 come first"):
        loaded((x, y.astype(str), test, y[:4]))


def test_half_characters_are_no_name():
    x = returned((5, 6))[0]
    labels = ["\ud800", "a"] * 6
    with pytest.raises(DataError, match="is no text"):
        loaded((x, labels, x, labels))


def test_a_function_that_ends_the_program_has_failed():
    def load():
        raise SystemExit(3)

    with pytest.raises(DataError, match="failed: SystemExit: 3"):
        images_of(load, DataSettings(name="mine:load"))


def test_what_to_mind_of_classes():
    counts = {"train": (3, 3, 3), "validation": (0, 0, 0), "test": (1, 0, 1)}
    said = concerns(("Cat", "cat ", "nan"), counts)
    assert [line.partition(":")[0] for line in said] == [
        "the classes 'Cat', 'cat ' differ in case or spaces only",
        "a class is called 'nan'",
        "there is no test image of cat ",
    ]
