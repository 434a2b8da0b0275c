"""How an epoch is cut into batches and pieces of batches."""

import pytest

from optnas.objectives.data import batches


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (10, 5, [5, 5]),
        (12, 5, [5, 5, 2]),
        (11, 5, [5, 6]),
        (6, 5, [6]),
        (3, 5, [3]),
        (1, 5, [1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_every_image_is_in_a_batch_and_no_last_batch_is_a_single_image(count, size, expected):
    bounds = batches.batch_bounds(count, size)
    assert [stop - start for start, stop in bounds] == expected
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds)][:-1]


@pytest.mark.parametrize("count", [2, 31, 32, 33, 96, 97, 98, 161])
@pytest.mark.parametrize("budget", [1, 4 * 64 * 40, 4 * 64 * 70, 10**9])
def test_pieces_hold_whole_batches(count, budget, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK_BYTES", budget)
    pieces = batches.chunk_bounds(count, 32, 4 * 64)
    found = [
        (start + a, start + b)
        for start, stop in pieces
        for a, b in batches.batch_bounds(stop - start, 32)
    ]
    assert found == batches.batch_bounds(count, 32)
