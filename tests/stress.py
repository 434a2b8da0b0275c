"""Workers that are many or killed, storages that fail or are damaged: the full numbers.

Prints a table; the figures in docs/measurements/workers.md come from here. Every part goes on
where it was stopped, as its rounds are kept in a file:

    make stress                                     # everything: hours on two cores
    python tests/stress.py [--minutes 10] [PART ...]
"""

import argparse
import atexit
import dataclasses
import functools
import itertools
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import damaging
import faults
import killing
import numpy as np
import optuna
import outages
import torch
from servers import PostgreSQL

import optnas
from optnas.experiments.studies import table_text
from optnas.pages.content import Column, Table
from optnas.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201Architecture

CLAIMS = """\
study: claims
space: nasbench201
sampler: {name: econas}
objective: {name: tabular, table: table.npz, column: accuracy}
"""

MUTATIONS = {
    "rows": 400,
    "bytes": 200,
    "journal bytes": 200,
    "journal lines": 200,
    "attributes": 500,
    "artifacts": 300,
    "network": 300,
}
"""How many of each of `damaging.MUTATIONS`."""
OUTAGES = {
    "locked for 90 s": functools.partial(outages.locked, seconds=90),
    "away for 40 s": functools.partial(outages.away, seconds=40),
    "full for 20 s": functools.partial(outages.full, seconds=20, kind="sqlite"),
    "full for 80 s": functools.partial(outages.full, seconds=80, kind="sqlite"),
    "journal full for 80 s": functools.partial(outages.full, seconds=80, kind="journal"),
}


@dataclasses.dataclass(frozen=True)
class Round:
    """One search of a part.

    Args:
        n: What it adds to what the part counts: kills, trials or searches.
        seconds: How long it took.
        note: What else there is to say.
        wrong: What was wrong, or None.
    """

    n: int
    seconds: float
    note: str = ""
    wrong: str | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the numbers.

    Args:
        unit: What it counts.
        quota: How many there must be.
        play: Plays a round, given its number, how many are left, and an empty folder.
    """

    unit: str
    quota: int
    play: Callable[[int, int, Path], Round]


def parts(options: argparse.Namespace) -> dict[str, Part]:
    """All parts, by name."""
    kills = [("macro-micro", 1), ("macro-micro", 3), ("randgrow", 1), ("econas", 1)]
    each = -(-options.kills // len(kills))
    return {
        **{
            f"kills:{name}:{workers}": Part("kills", each, Kills(name, workers).play)
            for name, workers in kills
        },
        **{
            f"claims:{kind}": Part("trials", options.trials, Claims(kind).play)
            for kind in ("sqlite", "journal", "postgresql")
        },
        "claims:postgresql:32": Part(
            "trials", 2 * options.trials, Claims("postgresql", workers=32).play
        ),
        **{
            f"faults:{kind}": Part("faults", options.faults, functools.partial(play_faults, kind))
            for kind in faults.STORAGES
        },
        **{
            f"fuzz:{kind}": Part("mutations", quota, functools.partial(play_fuzz, kind))
            for kind, quota in MUTATIONS.items()
        },
        **{
            f"outage:{name}": Part("outages", 1, functools.partial(play_outage, outage))
            for name, outage in OUTAGES.items()
        },
        "workers": Part("searches", 4, play_workers),
    }


class Kills:
    """Searches whose workers are killed, against one that is undisturbed.

    Args:
        name: Which search.
        workers: How many run at any time.
    """

    def __init__(self, name: str, workers: int) -> None:
        self._name = name
        self._workers = workers
        self._alone: killing.Ended | None = None

    def play(self, number: int, left: int, folder: Path) -> Round:
        if self._alone is None:
            self._alone = killing.search(
                _study_file(folder / "alone", killing.STUDIES[self._name])
            )
        file = _study_file(folder / "killed", killing.STUDIES[self._name])
        rng = random.Random(f"{self._name} {self._workers} {number}")
        killer = killing.Killer(file, rng, workers=self._workers)
        ended = killer.search(kills=left, span=self._alone.seconds / 2)
        wrong = killing.differences(ended, self._alone, workers=self._workers)
        note = f"{ended.lost} lost, {ended.extra} guessed wrongly"
        return Round(ended.kills, ended.seconds, note, wrong)


class Claims:
    """Processes that look networks up in a table: as little work as can be between claims.

    Args:
        kind: Which storage.
        workers: How many processes.
    """

    def __init__(self, kind: str, *, workers: int = 8) -> None:
        self._kind = kind
        self._workers = workers

    def play(self, _number: int, left: int, folder: Path) -> Round:
        _write_table(folder / "table.npz")
        server = PostgreSQL() if self._kind == "postgresql" else None
        try:
            url = server.new_database() if server else f"{self._kind}:///{folder}/claims.storage"
            text = f"{CLAIMS}storage: {url}\nbudget: {{trials: {left}}}\n"
            ended = killing.search(_study_file(folder, text), workers=self._workers)
        finally:
            if server is not None:
                server.remove()
        distinct = len({architecture for architecture, *_ in ended.results})
        wrong = None
        if not len(ended.results) == distinct == left:
            wrong = f"{len(ended.results)} candidates, {distinct} distinct ones, of {left}"
        elif ended.lost:
            wrong = f"{ended.lost} trials were lost"
        each = 1000 * ended.processor / left
        rate = f"{left / ended.seconds:.1f} trials/s, {each:.0f} ms of processor each"
        note = f"{self._workers} processes, {rate}"
        return Round(left, ended.seconds, note, wrong)


def play_workers(number: int, _left: int, folder: Path) -> Round:
    """A search with as many workers as two to the power of ``number``, against one with one."""
    text, workers = killing.STUDIES["macro-micro"], 2**number
    alone = killing.search(_study_file(folder / "alone", text))
    ended = killing.search(_study_file(folder / "together", text), workers=workers)
    note = f"{workers} workers, {ended.extra} guessed wrongly"
    return Round(1, ended.seconds, note, killing.differences(ended, alone, workers=workers))


def play_faults(kind: str, number: int, left: int, folder: Path) -> Round:
    """Searches in whose storage something fails, of which hypothesis chooses where."""
    start = time.monotonic()
    with faults.Ground(folder) as ground:
        try:
            n, ended = faults.check_many(
                ground, kind, [*faults.STRATEGIES], searches=min(12, left), number=number
            )
        except faults.Wrong as error:
            return Round(0, time.monotonic() - start, wrong=str(error))
    note = f"{ended} times the same command went on"
    return Round(n, time.monotonic() - start, note)


def play_fuzz(kind: str, number: int, left: int, folder: Path) -> Round:
    """Damaged copies of a study, each looked at with every command."""
    start, count, wrong = time.monotonic(), min(25, left), []
    with damaging.impatient():
        for mutation in range(25 * number, 25 * number + count):
            wrong += damaging.mutate(kind, mutation, _studies(), folder / "damaged")
    return Round(count, time.monotonic() - start, wrong="\n".join(wrong) or None)


@functools.cache
def _studies() -> Path:
    """What is damaged, made once."""
    folder = tempfile.TemporaryDirectory(prefix="stress-")
    atexit.register(folder.cleanup)
    damaging.prepare(Path(folder.name))
    return Path(folder.name)


def play_outage(
    outage: Callable[[Path], outages.Survived], _number: int, _left: int, folder: Path
) -> Round:
    """A search whose storage is not there for a while, against one that is undisturbed."""
    alone = killing.search(_study_file(folder / "alone", outages.STUDY))
    survived = outage(folder)
    note = f"given {survived.runs} times; {survived.ended.lost} lost; {survived.said[-90:]}"
    wrong = killing.differences(survived.ended, alone, workers=outages.WORKERS)
    return Round(1, survived.ended.seconds, note, wrong)


def _study_file(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def _write_table(path: Path) -> None:
    """Accuracies of all networks of NAS-Bench-201, at random."""
    every = itertools.product(OPERATIONS, repeat=len(EDGES))
    names = [str(NasBench201Architecture(operations)) for operations in every]
    np.savez(path, arch=names, accuracy=np.random.default_rng(0).random(len(names)))


def _play(name: str, part: Part, rounds: list[Round], deadline: float) -> Iterator[Round]:
    """The rounds that a part still needs, until the deadline."""
    while (left := part.quota - sum(r.n for r in rounds)) > 0 and time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="stress-") as folder:
            start = time.monotonic()
            try:
                played = part.play(len(rounds), left, Path(folder))
            except (killing.Wrong, FileNotFoundError) as error:
                played = Round(0, time.monotonic() - start, wrong=str(error))
        rounds.append(played)
        print(f"{name}: {played}", file=sys.stderr, flush=True)
        yield played
        if played.wrong:
            return


def report(done: dict[str, list[Round]], every: dict[str, Part]) -> str:
    """The table, with what it was measured on."""
    rows = [
        [
            name,
            f"{sum(r.n for r in done[name])} of {part.quota} {part.unit}",
            str(len(done[name])),
            f"{sum(r.seconds for r in done[name]):.0f}",
            str(sum(r.wrong is not None for r in done[name])),
            done[name][-1].note,
        ]
        for name, part in every.items()
        if done.get(name)
    ]
    versions = {
        "Python": platform.python_version(),
        "optnas": optnas.__version__,
        "Optuna": optuna.__version__,
        "torch": torch.__version__,
        "SQLite": sqlite3.sqlite_version,
    }
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    head = ", ".join([machine, *(f"{name} {version}" for name, version in versions.items())])
    headings = ("part", "n", "rounds", "seconds", "wrong", "the last round")
    table = Table("what was tried", [Column(heading) for heading in headings], rows)
    return f"{head}\n\n{table_text(table)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="Default: all.")
    parser.add_argument("--kills", type=int, default=200, help="Kills over all parts.")
    parser.add_argument("--trials", type=int, default=500, help="Trials of every storage.")
    parser.add_argument("--faults", type=int, default=120, help="Faults in every storage.")
    parser.add_argument("--minutes", type=float, default=20.0, help="Of every part, at most.")
    parser.add_argument("--output", type=Path, default=Path("stress.json"), help="The rounds.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    every = parts(options)
    unknown = set(options.parts) - every.keys()
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    kept: dict[str, Any] = (
        json.loads(options.output.read_text()) if options.output.exists() else {}
    )
    done = {name: [Round(**fields) for fields in rounds] for name, rounds in kept.items()}
    chosen = options.parts or list(every)
    for name in chosen:
        # What went wrong is played again.
        done[name] = [r for r in done.get(name, []) if r.wrong is None]
        deadline = time.monotonic() + 60 * options.minutes
        for _ in _play(name, every[name], done[name], deadline):
            fields = {n: [dataclasses.asdict(r) for r in rounds] for n, rounds in done.items()}
            options.output.write_text(json.dumps(fields, indent=1))
    print(report(done, every))
    right = [sum(r.n for r in done[name] if r.wrong is None) for name in chosen]
    enough = [n >= every[name].quota for n, name in zip(right, chosen, strict=True)]
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
