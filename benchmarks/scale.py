"""What many workers on one database cost, and where more of them are no gain.

    python benchmarks/scale.py [--workers 1 4 16 32 64] [--strategies econas surrogate optuna]
    python benchmarks/scale.py --workers 2 --seconds 0.5 --kinds

Worker processes on a PostgreSQL server that is started for it, with an objective that sleeps and
reports three times. Of every run, once all workers work: the share of the time that they slept
(what a worker does beside is lost to training), the processor time of the workers and of the
server for a trial, statements and transactions for a trial. `optuna` is plain Optuna with a
random sampler, for what a trial with three reports costs at least.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy
from napping import Nap
from optuna.trial import Trial

from optnas.config.file import study_from_dict
from optnas.config.keys import Workers
from optnas.running.runner import run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import itertools

from servers import PostgreSQL

EPOCHS = 3
"""Reports of a trial."""
STRATEGIES = ("econas", "surrogate", "optuna")
CHOICES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""What plain Optuna draws six times, as NAS-Bench-201 has it."""
EVERY = 0.5
"""Seconds between two looks at the server."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One run.

    Args:
        strategy: What proposed.
        workers: Number of processes.
        trials: Trials that count.
        share: Of the time of the workers, in which they slept.
        worker_ms: Processor time of a worker for a trial, in milliseconds.
        server_ms: The same of the server.
        statements: Statements for a trial, those that open and end transactions left out.
        transactions: Transactions for a trial.
        busy: Share of the machine's processor time that was used, by whatever.
        kinds: Statements for a trial, by what they do to which table.
    """

    strategy: str
    workers: int
    trials: int
    share: float
    worker_ms: float
    server_ms: float
    statements: float
    transactions: float
    busy: float
    kinds: dict[str, float] = dataclasses.field(repr=False)


class Tally:
    """Counts what this process asks of databases, and writes it down trial by trial.

    Args:
        folder: Gets a file of every process.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"{os.getpid()}.jsonl").open("a")
        self._counts: collections.Counter[str] = collections.Counter()
        engine = sqlalchemy.engine.Engine
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._statement)
        sqlalchemy.event.listen(engine, "begin", self._begin)

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        words = statement.split()
        kind = words[0]
        for word, following in itertools.pairwise(words):
            if word in ("FROM", "INTO", "UPDATE"):
                kind = f"{words[0]} {following.strip('(,;')}"
                break
        self._counts[kind] += 1

    def _begin(self, connection: sqlalchemy.Connection) -> None:
        # Otherwise each statement is its own, which nobody opens nor ends.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            self._counts["BEGIN"] += 1

    def write(self) -> None:
        """What was counted so far, and the processor time."""
        line = {"time": time.time(), "cpu": time.process_time(), "counts": self._counts}
        print(json.dumps(line), file=self._file, flush=True)


class TalliedNap(Nap):
    """The same objective, which tallies what its process does."""

    tally: Tally | None = None

    @classmethod
    def from_settings(  # type: ignore[override]
        cls, space: Any, *, seconds: float, folder: Path, tallies: str
    ) -> "TalliedNap":
        """The objective of a study file."""
        nap = cls(space, seconds / EPOCHS, EPOCHS)
        nap._folder = Path(tallies)
        return nap

    _folder: Path

    def __call__(self, trial: Trial) -> float:
        if TalliedNap.tally is None:
            TalliedNap.tally = Tally(self._folder)
        value = super().__call__(trial)
        TalliedNap.tally.write()
        return value


def plain(url: str, name: str, seconds: float, trials: int, folder: str) -> None:
    """A worker of plain Optuna."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=name, storage=url, sampler=optuna.samplers.RandomSampler()
    )
    tally = Tally(Path(folder))
    for _ in range(trials):
        trial = study.ask()
        choices = [trial.suggest_categorical(f"edge_{edge}", CHOICES) for edge in range(6)]
        value = sum(map(CHOICES.index, choices)) / 24
        for step in range(EPOCHS):
            time.sleep(seconds / EPOCHS)
            trial.report(value, step + 1)
        tally.write()
        study.tell(trial, value)


def run_plain(url: str, workers: int, options: argparse.Namespace, folder: Path) -> None:
    """Plain Optuna with worker processes."""
    name = optuna.create_study(storage=url, direction="maximize").study_name
    args = (url, name, options.seconds, options.trials, str(folder))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=plain, args=args) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def run_study(
    strategy: str, url: str, workers: int, options: argparse.Namespace, folder: Path
) -> None:
    """A study with worker processes."""
    seconds = {"seconds": options.seconds, "tallies": str(folder)}
    keys = {
        "study": f"scale-{uuid.uuid4().hex[:8]}",
        "seed": 0,
        "storage": url,
        "artifacts": str(folder / "artifacts"),
        "space": "nasbench201",
        "sampler": strategy,
        "objective": {"name": "scale:TalliedNap", **seconds},
        "budget": {"trials": options.trials * workers},
    }
    run(study_from_dict(keys, Path(__file__).parent), workers=Workers(count=workers))


class Watch:
    """What the server and the machine spent, at every moment.

    Args:
        server: The server.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self._process = psutil.Process(server.pid)
        self._over = threading.Event()
        self.seen: list[tuple[float, float, float]] = []
        """Time, processor seconds of the server, busy seconds of the machine."""

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            machine = psutil.cpu_times()
            busy = machine.user + machine.nice + machine.system
            self.seen.append((time.time(), self._spent(), busy))
            self._over.wait(EVERY)

    def _spent(self) -> float:
        """Of the server's processes: those that are, and those that were."""
        times = self._process.cpu_times()
        spent = times.user + times.system + times.children_user + times.children_system
        for child in self._process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                own = child.cpu_times()
                spent += own.user + own.system
        return float(spent)

    def between(self, first: float, last: float) -> tuple[float, float]:
        """Processor seconds of the server, and of the whole machine."""
        inside = [entry for entry in self.seen if first <= entry[0] <= last]
        (began, server, busy), (ended, server_then, busy_then) = inside[0], inside[-1]
        scale = (last - first) / (ended - began)
        return scale * (server_then - server), scale * (busy_then - busy)


def measure(server: PostgreSQL, strategy: str, workers: int, options: argparse.Namespace) -> Row:
    """One run."""
    with tempfile.TemporaryDirectory() as name, Watch(server) as watch:
        folder = Path(name)
        url = server.new_database()
        if strategy == "optuna":
            run_plain(url, workers, options, folder)
        else:
            run_study(strategy, url, workers, options, folder)
        tallies = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in folder.glob("*.jsonl")
        ]
    return summary(strategy, workers, options.seconds, tallies, watch)


def summary(
    strategy: str, workers: int, seconds: float, tallies: list[list[Any]], watch: Watch
) -> Row:
    """What the time in which all workers worked came to."""
    assert len(tallies) == workers, "a worker came too late: raise --trials"
    first = max(lines[0]["time"] for lines in tallies)
    last = min(lines[-1]["time"] for lines in tallies)
    counts: collections.Counter[str] = collections.Counter()
    trials, lasted, spent = 0, 0.0, 0.0
    for lines in tallies:
        inside = [line for line in lines if first <= line["time"] <= last]
        assert len(inside) > 1, "the workers did not work together: raise --trials"
        begin, end = inside[0], inside[-1]
        trials += len(inside) - 1
        lasted += end["time"] - begin["time"]
        spent += end["cpu"] - begin["cpu"]
        counts.update(end["counts"])
        counts.subtract(begin["counts"])
    server, busy = watch.between(first, last)
    whole = trials * workers * (last - first) / lasted  # Those that were begun before, too.
    transactions = counts.pop("BEGIN", 0)
    return Row(
        strategy,
        workers,
        trials,
        trials * seconds / lasted,
        1000 * spent / trials,
        1000 * server / whole,
        counts.total() / trials,
        transactions / trials,
        busy / (last - first) / (os.cpu_count() or 1),
        {kind: number / trials for kind, number in counts.most_common()},
    )


def line(row: Row) -> str:
    """A run as a line of a table."""
    return (
        f"| {row.strategy} | {row.workers} | {row.trials} | {100 * row.share:.0f}% | "
        f"{row.worker_ms:.0f} | {row.server_ms:.0f} | {row.statements:.0f} | "
        f"{row.transactions:.0f} | {100 * row.busy:.0f}% |"
    )


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--seconds", type=float, default=5.0, help="Length of a trial.")
    parser.add_argument("--trials", type=int, default=8, help="Trials per worker.")
    parser.add_argument("--kinds", action="store_true", help="Tell statements by kind, too.")
    return parser.parse_args()


def main() -> None:
    """Measure, and print as a table."""
    options = arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    names = "strategy | workers | trials | share of ideal | ms of workers | ms of the server | "
    names += "statements | transactions | machine busy"
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    print(f"\n| {names} |")
    print("|---" * (names.count("|") + 1) + "|", flush=True)
    server = PostgreSQL()
    try:
        for strategy in options.strategies:
            for workers in options.workers:
                row = measure(server, strategy, workers, options)
                print(line(row), flush=True)
                if options.kinds:
                    for kind, number in row.kinds.items():
                        print(f"    {number:6.1f} {kind}", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
