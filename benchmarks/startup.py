"""How long it takes until something happens, each beside what has to happen anyway.

    python benchmarks/startup.py [--quick] [--output FILE]

`import optnas` and `optnas --help` beside `import optuna`; the first epoch of a tiny search on
the digits, which is a later moment than its first training step, beside `import torch, optuna`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from _harness import Cases, Row, Turn, alternate, arguments, measure

PYTHON = sys.executable
OPTNAS = [PYTHON, "-c", "from optnas.cli import main; main()"]
STUDY = """\
study: digits
space: {name: chain, depth: [2, 10], width: [8, 24]}
sampler: {name: macro_micro, epochs: 2, micro_epochs: 2, params_tolerance: 2000}
data: digits
"""


def command(*words: str) -> Callable[[], Turn]:
    """Runs a command to its end."""

    def run() -> Turn:
        return _timed(list(words), until=None, folder=None)

    return run


def first_epoch() -> Turn:
    """Runs a search in an empty folder until it tells of its first epoch."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.yaml").write_text(STUDY)
        return _timed([*OPTNAS, "run", "study.yaml", "--json"], until='"epoch"', folder=folder)


def _timed(words: list[str], until: str | None, folder: str | None) -> Turn:
    before, start = _children_time(), time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until is not None and until in line:
                break
        else:
            assert process.wait() == 0, f"{words} failed"
            assert until is None, f"{words} did not come that far"
        seconds = time.perf_counter() - start
        process.kill()
    return Turn(seconds, _children_time() - before)


def _children_time() -> float:
    times = os.times()
    return times.children_user + times.children_system


def cases(*, quick: bool) -> Cases:
    """Every comparison."""
    repeats = 3 if quick else 11
    libraries = command(PYTHON, "-c", "import torch, optuna")
    optuna = command(PYTHON, "-c", "import optuna")

    def pairs() -> Iterator[tuple[str, Callable[[], Turn], Callable[[], Turn], int]]:
        yield (
            "import optnas; import optuna",
            command(PYTHON, "-c", "import optnas"),
            optuna,
            repeats,
        )
        yield "optnas --help; import optuna", command(*OPTNAS, "--help"), optuna, repeats
        few = 1 if quick else 5
        yield "optnas run, first epoch; import torch, optuna", first_epoch, libraries, few

    for name, ours, theirs, number in pairs():
        yield name, lambda ours=ours, theirs=theirs, number=number: _row(ours, theirs, number)


def _row(ours: Callable[[], Turn], theirs: Callable[[], Turn], repeats: int) -> Row:
    return alternate(ours, theirs, repeats)


def main() -> None:
    """Measure, and print a table."""
    options = arguments(__doc__).parse_args()
    measure(cases(quick=options.quick), options.output)


if __name__ == "__main__":
    main()
