"""A storage that fails between any two of its calls: the search ends as if undisturbed.

`make stress` has hundreds of faults happen.
"""

import dataclasses
from collections.abc import Iterator

import faults
import pytest


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Iterator[faults.Ground]:
    with faults.Ground(tmp_path_factory.mktemp("faults")) as ground:
        yield ground


@pytest.mark.parametrize(
    ("storage", "strategy", "searches"),
    [("sqlite", "econas", 4), ("journal", "randgrow", 8), ("postgresql", "macro-micro", 4)],
)
def test_whatever_a_storage_does_the_search_ends_as_undisturbed(
    ground, storage, strategy, searches
):
    if storage == "postgresql":
        pytest.importorskip("psycopg")
    try:
        injected, _ = faults.check_many(ground, storage, [strategy], searches=searches)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert injected >= 2 * searches


def test_a_fault_that_is_taken_for_the_candidates_is_told(ground, monkeypatch):
    """Otherwise the tests above could not fail."""
    monkeypatch.setattr("optnas.storage.retrying._PASSING", ())
    monkeypatch.setattr("optnas.running.loop.is_grounds", lambda error: False)
    fault = faults.Fault(0.5, "Host is down", is_late=False, seconds=0.0)
    with pytest.raises((faults.Wrong, OSError)):
        for share in (0.5, 0.55, 0.6, 0.65):
            ground.check("journal", "randgrow", [dataclasses.replace(fault, share=share)])
