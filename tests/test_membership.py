"""Splits that follow from the image: exact counts, twins together, known ones for ever."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optnas.objectives.data.errors import DataError
from optnas.objectives.data.membership import (
    OPEN,
    ROWS,
    TEST,
    TRAIN,
    VALIDATION,
    Membership,
    Shares,
    differences,
    divide,
    narrowed,
)


def digest(text):
    return hashlib.sha256(str(text).encode()).hexdigest()[:32].encode()


def rows_of(images, split=OPEN):
    """Rows of (content, class) pairs."""
    rows = np.zeros(len(images), ROWS)
    for row, (content, label) in zip(rows, images, strict=True):
        row["content"] = row["samples"] = digest(content)
        row["name"], row["label"] = digest(f"{label}/{content}"), label
    rows["split"] = split
    return rows


def divided(images, shares=Shares(0.2, 0.2), seed=0, known=None):  # noqa: B008
    rows = rows_of(images)
    names = tuple(f"c{i}" for i in range(int(rows["label"].max()) + 1))
    rows["split"] = divide(rows, names, shares, seed, known, [])
    return Membership(rows, names)


def by_content(membership):
    rows = membership.rows
    return dict(zip(rows["content"].tolist(), rows["split"].tolist(), strict=True))


def images_of(sizes, start=0):
    return [
        (f"{label} {i}", label) for label, size in enumerate(sizes) for i in range(start, size)
    ]


SIZES = st.lists(st.integers(5, 60), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 5))
def test_counts_are_exact_in_every_class(sizes, seed):
    membership = divided(images_of(sizes), seed=seed)
    for label, size in enumerate(sizes):
        own = membership.rows[membership.rows["label"] == label]["split"]
        tests = max(1, int(0.2 * size + 0.5))
        held = max(1, int(0.2 * (size - tests) + 0.5))
        assert [(own == split).sum() for split in (TEST, VALIDATION)] == [tests, held]


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_the_order_of_the_files_and_other_classes_change_nothing(sizes, data):
    images = images_of(sizes)
    shuffled = data.draw(st.permutations(images))
    assert by_content(divided(images)) == by_content(divided(shuffled))
    more = [*images, *((f"new {i}", len(sizes)) for i in range(7))]
    again = by_content(divided(more))
    assert all(again[content] == split for content, split in by_content(divided(images)).items())


@settings(max_examples=80, deadline=None)
@given(SIZES, st.integers(0, 10**6))
def test_one_image_more_moves_one_at_most_over_either_border(sizes, name):
    before = by_content(divided(images_of(sizes)))
    after = by_content(divided([*images_of(sizes), (f"new {name}", 0)]))
    left_test = [c for c, split in before.items() if split == TEST and after[c] != TEST]
    entered = [c for c, split in before.items() if split != TEST and after[c] == TEST]
    assert len(left_test) + len(entered) <= 1
    moved = [c for c, split in before.items() if split != after[c]]
    assert len(moved) <= 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(10, 40), min_size=2, max_size=4), st.data())
def test_known_images_keep_their_split_whatever_comes_and_goes(sizes, data):
    membership = divided(images_of(sizes))
    kept = [image for image in images_of(sizes) if data.draw(st.booleans())]
    kept += [image for image in images_of([6] * len(sizes)) if image not in kept]
    new = [(f"new {i}", data.draw(st.integers(0, len(sizes) - 1))) for i in range(9)]
    later = divided([*new, *kept], known=membership)
    assert all(by_content(later)[digest(c)] == by_content(membership)[digest(c)] for c, _ in kept)
    # Those that were gone come back as what they were.
    everything = divided(images_of(sizes), known=later.joined(membership))
    assert by_content(everything) == by_content(membership)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=12, max_size=40), st.integers(0, 3))
def test_identical_images_stay_together(copies, seed):
    images = [(f"{i}", i % 2) for i, number in enumerate(copies) for _ in range(number)]
    membership = divided(images, seed=seed)
    seen = {}
    for content, split in membership.rows[["content", "split"]].tolist():
        assert seen.setdefault(content, split) == split


def test_the_test_images_are_the_same_for_every_seed_and_the_validation_images_are_not():
    first, second = (by_content(divided(images_of([50, 50]), seed=seed)) for seed in (0, 1))
    tests = [{c for c, split in one.items() if split == TEST} for one in (first, second)]
    held = [{c for c, split in one.items() if split == VALIDATION} for one in (first, second)]
    assert tests[0] == tests[1]
    assert held[0] != held[1]


def test_a_number_of_validation_images_is_exact():
    rows = divided(images_of([30, 20, 50]), Shares(0, 17)).rows
    assert (rows["split"] == VALIDATION).sum() == 17
    assert (rows["split"] == TEST).sum() == 0


@pytest.mark.parametrize(
    ("sizes", "shares", "message"),
    [
        ([10, 2], Shares(0.2, 0.2), r"too few images for 3 splits.*c1 \(2\)"),
        ([10, 1], Shares(0.0, 0.2), r"too few images for 2 splits"),
        ([10, 10], Shares(0.0, 1), "Cannot hold out 1 of 20"),
        ([10, 10], Shares(0.2, 16), "Cannot hold out 16 of 16"),
        ([30, 2], Shares(0.0, 30), "leaves none of class c1"),
    ],
)
def test_classes_too_small_for_a_split_are_refused_with_the_cure(sizes, shares, message):
    with pytest.raises(DataError, match=message):
        divided(images_of(sizes), shares)


def test_small_classes_and_identical_ones_are_said():
    remarks = []
    images = [*images_of([20, 3]), *[("same", 2)] * 6]
    rows = rows_of(images)
    splits = divide(rows, ("a", "b", "c"), Shares(0.2, 0.2), 0, None, remarks)
    assert sorted(splits[20:23].tolist()) == [TRAIN, VALIDATION, TEST]
    assert remarks[0] == "classes with very few images to divide: b (3)"
    assert remarks[1].startswith("c: fewer different images than splits")


def test_samples_are_a_share_of_every_class_and_grow_within_each_other():
    membership = divided(images_of([40, 20]))
    rows = membership.rows
    few, many = (set(narrowed(rows, rows["split"], TRAIN, n, 0).tolist()) for n in (12, 24))
    assert few < many
    assert np.bincount(rows["label"][list(many)]).tolist() == [16, 8]


def test_a_membership_survives_storage_and_nothing_else_does():
    membership = divided(images_of([9, 9]))
    again = Membership.decoded(membership.encoded(), membership.class_names)
    assert (again.rows == membership.rows).all()
    for content in (b"", b"x", membership.encoded()[:-9], membership.encoded()[5:]):
        with pytest.raises(ValueError, match="no list of images"):
            Membership.decoded(content, membership.class_names)
    with pytest.raises(ValueError, match="unknown splits or classes"):
        Membership.decoded(membership.encoded(), ("only one",))


def changed(edit):
    before = divided(images_of([9, 9]))
    rows = before.rows.copy()
    names, rows = edit(rows)
    return differences(before, Membership(rows, names or before.class_names))


def test_differences_are_told_by_their_kind():
    def fewer(rows):
        return None, rows[3:]

    def more(rows):
        return None, np.concatenate((rows, rows_of([("x", 0), ("y", 1)], TRAIN)))

    def other(rows):
        rows["content"][:2] = [digest("x"), digest("y")]
        return None, rows

    def relabelled(rows):
        rows["label"][:4] = 1
        return None, rows

    def renamed(rows):
        return ("c0", "zebra"), rows

    def moved(rows):
        rows["split"][rows["split"] == TEST] = TRAIN
        return None, rows

    assert changed(lambda rows: (None, rows)) == []
    assert changed(lambda rows: (None, rows[::-1])) == []
    assert changed(fewer) == ["3 images fewer"]
    assert changed(more) == ["2 images more"]
    assert changed(other) == ["2 images changed"]
    assert changed(relabelled) == ["4 labels moved (c0 to c1 4)"]
    assert changed(renamed) == ["classes: c1 became zebra", "9 labels moved (c1 to zebra 9)"]
    assert changed(moved) == ["4 images in another split (test to train 4)"]
