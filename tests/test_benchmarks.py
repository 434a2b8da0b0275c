"""What the benchmarks make of times, and what bench-quick calls a drop."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [n for n, m in sys.modules.items() if BENCHMARKS.as_posix() in str(m)]:
        del sys.modules[name]


def test_a_ratio_is_the_median_over_pairs_of_turns():
    from _harness import Turn, row

    ours = [Turn(1.0, 2.0), Turn(2.0, 2.0), Turn(4.0, 2.0)]
    theirs = [Turn(3.0, 2.0), Turn(4.0, 8.0), Turn(4.0, 4.0)]
    made = row(ours, theirs, images="12")
    assert (made.product, made.rival, made.ratio) == (2.0, 4.0, 2.0)
    assert (made.low, made.high, made.repeats, made.work) == (1.0, 3.0, 3, 2.0)
    assert made.notes == {"images": "12"}


def test_workers_at_once_share_their_time():
    from _harness import Turn, together

    class Ready:
        def __init__(self, seconds: float) -> None:
            self.turn, self.has_begun = Turn(seconds, 3 * seconds), False

        def begin(self) -> None:
            self.has_begun = True

        def end(self) -> Turn:
            assert all(each.has_begun for each in team), "one waited for the other"
            return self.turn

    team = [Ready(1.0), Ready(3.0)]
    assert together(team) == Turn(1.5, 6.0)


@pytest.mark.parametrize(
    ("ratio", "work", "falls"),
    [
        (2.0, 2.0, False),
        (1.61, 1.0, False),  # The times are as before: so is the product.
        (1.0, 1.61, False),  # Other programs disturb times alone.
        (1.59, 1.59, True),
        (1.59, None, True),
        (1.61, None, False),
        (9.0, 9.0, False),
    ],
)
def test_a_ratio_drops_when_time_and_work_fell_by_a_fifth(ratio, work, falls):
    from _harness import Row
    from quick import dropped

    before = Row(1.0, 2.0, ratio=2.0, low=1.9, high=2.1, repeats=5, work=2.0)
    now = dataclasses.replace(before, ratio=ratio, work=work)
    assert dropped({"epoch": now, "new": now}, {"epoch": before}) == (["epoch"] if falls else [])


def test_what_is_recorded_can_be_read_and_has_every_comparison():
    from _harness import Row
    from quick import RECORDED

    stored = json.loads(RECORDED.read_text())
    rows = {name: Row(**fields) for name, fields in stored["rows"].items()}
    assert {"cpu", "cores", "torch", "optuna"} <= stored["about"].keys()
    for part in (
        "import optnas",
        "optnas --help",
        "digits",
        "cifar10",
        "FTSO",
        "optnas run, sqlite",
    ):
        assert any(part in name for name in rows), part


def test_equivalence_needs_means_that_differ_by_less_than_the_margin():
    from accuracy import tost

    same = [0.95, 0.96, 0.94, 0.95, 0.955]
    assert tost(same, same, 0.02) < 0.05
    assert tost(same, [value - 0.02 for value in same], 0.02) == pytest.approx(0.5)
    assert tost(same, [value - 0.05 for value in same], 0.02) > 0.95
    assert tost([0.8, 0.99, 0.9, 0.95, 0.85], same, 0.02) > 0.05
