"""A storage that fails between any two of its calls: the search ends as if undisturbed.

`make stress` has hundreds of faults happen.
"""

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
    shares = (0.3, 0.4, 0.5, 0.6, 0.7)
    planned = [faults.Fault(s, "Host is down", is_late=False, seconds=0.0) for s in shares]
    with pytest.raises(faults.Wrong, match="counts as failed"):
        ground.check("journal", "randgrow", planned)
