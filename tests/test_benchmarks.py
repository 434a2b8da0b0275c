"""What the benchmarks make of times, and what bench-quick calls a drop."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
import types
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


def test_make_gpu_runs_to_its_end_without_a_gpu(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--output", str(output)]
    command += ["--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| install | gpu | none: these figures say nothing of one" in done.stdout
    rows = json.loads(output.read_text())["rows"]
    assert len(rows) + 2 == len(done.stdout.splitlines())
    ended = {row["part"]: row["value"] for row in rows if row["what"] == "ended"}
    assert list(ended) == PARTS_OF_GPU
    assert set(ended.values()) == {"done"}
    figures = [row["value"] for row in rows if not isinstance(row["value"], str)]
    assert len(figures) > 20
    passed = [row["value"] for row in rows if (row["part"], row["what"]) == ("tests", "passed")]
    assert passed[0] > 0
    assert any("1 of 86 evaluations, 10 of 1,042 epochs" in row["what"] for row in rows)


PARTS_OF_GPU = ["install", "tests", "epochs", "first epochs", "streams", "FTSO", "search"]


def slow(task):
    from _gpu_parts import Row

    yield Row("slow", "before", 1.0)
    time.sleep(600)


def stubborn(task):
    yield from ()
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(600)


def broken(task):
    yield from ()
    raise ValueError("no such kernel\nand more")


def gone(task):
    yield from ()
    os._exit(3)


@pytest.mark.parametrize(
    ("part", "ending", "found"),
    [
        (slow, "cut off", 1),
        (stubborn, "cut off", 0),
        (broken, "failed: ValueError: no such kernel", 0),
        (gone, "its process ended (3)", 0),
    ],
)
def test_a_part_that_does_not_end_is_ended_and_what_it_found_stays(
    monkeypatch, part, ending, found
):
    import gpu

    monkeypatch.setattr(gpu, "GRACE", 0.2)
    monkeypatch.setitem(gpu.PARTS, "part", (part, 1.0))
    *rows, last = gpu.measured("part", None, 3.0 if found else 0.5)
    assert (len(rows), last.what, last.value) == (found, "ended", ending)


def test_tests_that_are_cut_off_tell_what_failed_before(monkeypatch):
    import _gpu_parts

    def main(options, plugins):
        failed = {"when": "call", "passed": False, "failed": True, "outcome": "failed"}
        plugins[0].pytest_runtest_logreport(
            types.SimpleNamespace(
                nodeid="tests/test_a.py::b", longrepr="no such\nkernel", **failed
            )
        )
        return pytest.ExitCode.INTERRUPTED  # As where SIGTERM comes.

    monkeypatch.setattr(pytest, "main", main)
    rows = []
    with pytest.raises(KeyboardInterrupt):
        rows.extend(_gpu_parts.tests(types.SimpleNamespace(quick=True)))
    assert [(row.what, row.value) for row in rows[:3]] == [
        ("test_a.py::b", "failed"),
        ("passed", 0),
        ("failed", 1),
    ]
    assert rows[0].note == "no such kernel"


def test_without_a_gpu_it_says_how_to_try_it(monkeypatch):
    import gpu

    monkeypatch.setattr(gpu, "gpus", lambda: [])
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="No GPU is here: `--device cpu --quick`"):
        gpu.main()


@pytest.mark.parametrize(("name", "expected"), [("H100", 7.0), ("T4", 6.0)])
def test_the_published_search_goes_on_where_it_was_left_on_the_same_gpu(
    tmp_path, monkeypatch, name, expected
):
    import gpu
    from _gpu_parts import Row

    def install(task):
        yield Row("install", "gpu", name)

    def search(task):
        for number in range(3):
            if str(number) not in task.done:
                yield Row("search", str(number), 2.0, "s")

    parts = {"install": (install, 1.0), "search": (search, 1.0)}
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "the_images", lambda root, quick: None)
    output = tmp_path / "gpu.json"
    words = ["--output", str(output), "--parts", "install", "search"]
    stored = {"gpu": "H100", "rows": [], "search": {"0": 2.5, "1": 2.5}}
    output.write_text(json.dumps(stored))
    rows = gpu.run(gpu.options_of(words))
    (total,) = (row for row in rows if row.part == "search" and row.what != "ended")
    assert total.value == expected
    assert total.what == "the published search, 3 of 86 evaluations, 33 of 1,042 epochs"
    assert len(json.loads(output.read_text())["search"]) == 3


def test_a_layer_of_a_chain_has_ten_kernels_instead_of_fifteen():
    """Three of each convolution, and four of what a normalisation takes."""
    from kernel_count import counted

    for kernels, per_layer, most in (("auto", 10, 130), ("torch", 15, 185)):
        few, many = (counted(depth, 8, kernels=kernels) for depth in (2, 4))
        assert many.total() - few.total() == 2 * per_layer, many - few
        assert counted(10, 64, kernels=kernels).total() <= most


@pytest.mark.parametrize("name", ["ftso", "econas", "randgrow", "stagewise"])
def test_studies_on_imagenet_are_shortened_but_not_otherwise(name, tmp_path):
    """What is trained is the shipped files' own network by their own recipe."""
    from argparse import Namespace

    from imagenet import FILES, STUDIES, shortened

    from optnas.config.file import load_study_file

    options = Namespace(size=64, data=tmp_path)
    short = load_study_file(shortened(name, tmp_path, options)).retrain
    whole = load_study_file(STUDIES / FILES[name]).retrain
    assert (short.epochs, short.batch_size) == (2, 64)
    changed = {"epochs", "batch_size", "warmup_epochs", "top", "data"}
    assert short.model_dump(exclude=changed) == whole.model_dump(exclude=changed)
    if whole.data is not None:
        less = {"root", "size", "validation"}
        assert short.data.model_dump(exclude=less) == whole.data.model_dump(exclude=less)
