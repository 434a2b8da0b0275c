"""What is said of a search before it begins and while it runs, beside what comes of it.

    python benchmarks/forecast.py --data FOLDER [--minutes 11] [--seed 0] [--output FILE]

Ten real searches on one thread of this machine, of the digits and of photos, which are images of
CIFAR-10 written as JPEG files; FOLDER holds its cifar-10-batches-py. First the dry run of each,
then the search: its wall-clock time, the start of the program included, and what its display said
every second of the time left. Ten minutes on a machine that does nothing else; after --minutes no
search is begun. FILE gets every number, and is written after every search.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from _harness import about
from PIL import Image
from rich.console import Console

from optnas.cli.displays import LiveDisplay
from optnas.forecast.left import DEPTH
from optnas.running import runner

OPTNAS = [sys.executable, "-c", "from optnas.cli import main; main()"]
CLASSES, EACH = ("airplane", "automobile", "bird", "cat"), 200
LATER = 10
"""Trials after which more is asked of the range."""
MOSTLY = 0.8
"""The share of a search's seconds in which its range must hold the truth."""

_CHAIN = {"name": "chain", "depth": [2, 8], "width": [8, 24]}
_SMALL = {"name": "chain", "depth": [2, 6], "width": [8, 16]}
_CELL = {"space": "cell", "network": {"cells": 3, "channels": 8}}
SEARCHES: dict[str, tuple[int, dict[str, Any]]] = {
    "macro_micro, digits": (
        0,
        {
            "space": {**_CHAIN, "depth": [2, 10]},
            "sampler": {
                "name": "macro_micro",
                "epochs": 3,
                "micro_epochs": 2,
                "params_tolerance": 2000,
            },
        },
    ),
    "econas with rungs, digits": (
        0,
        {
            **_CELL,
            "sampler": {"name": "econas", "initial": 8, "cycles": 1},
            "pruner": {"name": "hierarchical", "epochs": 1},
            "train": {"epochs": 3},
        },
    ),
    "randgrow, digits": (
        0,
        {
            "space": {"name": "growth", "cells": 1, "channels": 4},
            "sampler": "randgrow",
            "train": {"epochs": 8, "cycles": 2, "initial_epochs": 12, "batch_size": 64},
            "budget": {"trials": 10},
        },
    ),
    "stage_wise, digits": (
        0,
        {
            "space": {"name": "stage", "stages": 3, "block": "basic"},
            "sampler": {"name": "stage_wise", "initial": 2, "growth": 1, "iterations": 3},
            "objective": "stage_classification",
            "train": {"epochs": 20},
        },
    ),
    "ftso, digits": (
        0,
        {
            **_CELL,
            "sampler": "ftso",
            "objective": {
                "name": "supernet_classification",
                "search": {"epochs": 2, "cells": 3, "batch_size": 32},
            },
            "train": {"epochs": 30},
        },
    ),
    "surrogate, digits": (
        0,
        {
            "space": _CHAIN,
            "sampler": "surrogate",
            "train": {"epochs": 4},
            "budget": {"trials": 24},
        },
    ),
    "macro_micro, photos 32x32": (
        32,
        {
            "space": _SMALL,
            "sampler": {"name": "macro_micro", "epochs": 3, "micro_epochs": 1, "width_step": 4},
        },
    ),
    "regularized_evolution, photos 32x32": (
        32,
        {
            "space": _SMALL,
            "sampler": "regularized_evolution",
            "train": {"epochs": 3},
            "budget": {"trials": 20},
        },
    ),
    "random, photos 32x32": (
        32,
        {"space": _SMALL, "sampler": "random", "train": {"epochs": 3}, "budget": {"epochs": 54}},
    ),
    "macro_micro, photos 64x64": (
        64,
        {
            "space": {**_SMALL, "depth": [2, 4]},
            "sampler": {"name": "macro_micro", "epochs": 1, "micro_epochs": 1, "width_step": 4},
        },
    ),
}
"""By name: pixels of the photos, or 0 for the digits, and what the study file says beside them."""


@dataclasses.dataclass(frozen=True)
class Moment:
    """What was shown at a moment.

    Args:
        seconds: Since the run began.
        trials: How many had ended.
        settled: Whether a search that looks for a depth has found it.
        low: The lower end of the time left, in seconds.
        high: The upper end.
    """

    seconds: float
    trials: int
    settled: bool
    low: float
    high: float

    @property
    def fold(self) -> float:
        """How many times as long as the lower end the upper one is."""
        return self.high / max(self.low, 1.0)

    def holds(self, end: float) -> bool:
        """Whether what was left until the end of the run is within."""
        return self.low <= end - self.seconds <= self.high


class Recorder(LiveDisplay):
    """The display of a terminal, which keeps what it says of the time left."""

    def __init__(self) -> None:
        file = open(os.devnull, "w")  # noqa: SIM115
        super().__init__(Console(file=file, force_terminal=True, width=100, height=40))
        self.moments: list[Moment] = []
        self._ended = 0

    def trial(self, trial: Any, worker: int) -> None:
        super().trial(trial, worker)
        self._ended += 1

    def pulse(self, pulses: Any, worker: int) -> None:
        super().pulse(pulses, worker)
        span = self._watch.seconds_left()
        if span is not None:
            settled = any(p["phase"] not in ("", DEPTH) for p in pulses)
            moment = Moment(self._watch.elapsed, self._ended, settled, *span)
            self.moments.append(moment)


def watched(file: str, output: str) -> None:
    """Run a study file and write what its display said."""
    with Recorder() as display:
        runner.run(file, display=display)
    fields = {
        "seconds": display._watch.elapsed,
        "trials": display._ended,
        "moments": [dataclasses.asdict(moment) for moment in display.moments],
    }
    Path(output).write_text(json.dumps(fields))


def write_photos(data: Path, folder: Path, pixels: int) -> None:
    """Images of the first classes of CIFAR-10 as JPEG files, in a folder for each class."""
    with (data / "cifar-10-batches-py" / "data_batch_1").open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    written = dict.fromkeys(range(len(CLASSES)), 0)
    for image, label in zip(images, batch[b"labels"], strict=True):
        if written.get(label, EACH) < EACH:
            path = folder / CLASSES[label] / f"{written[label]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((pixels, pixels)).save(path, quality=92)
            written[label] += 1


def measured(name: str, data: Path, seed: int) -> dict[str, Any]:
    """What is said of a search with a seed, and what came of it."""
    pixels, keys = SEARCHES[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        own: Any = "digits"
        if pixels:
            write_photos(data, folder / "photos", pixels)
            own = {"name": "images", "root": "photos", "size": pixels}
        study = {"study": "forecast", "seed": seed, "data": own, **keys}
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        said = _output([*OPTNAS, "run", "study.yaml", "--dry-run", "--json"], folder)
        load, start, before = os.getloadavg()[0], time.monotonic(), _processor_time()
        _output(
            [
                sys.executable,
                str(Path(__file__).resolve()),
                "--watch",
                "study.yaml",
                "watched.json",
            ],
            folder,
        )
        took, work = time.monotonic() - start, _processor_time() - before
        seen = json.loads((folder / "watched.json").read_text())
    forecast = json.loads(said)
    return {
        "said": forecast["seconds"],
        "took": took,
        "work": work,
        "load": load,
        "trials_said": forecast["trials"],
        **seen,
    }


def _output(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{words} failed:\n{done.stderr}"
    return done.stdout


def _processor_time() -> float:
    """Of child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


DURING = (
    "trials",
    "time left held for",
    "from trial 10 on",
    "widest then",
    "widest, depth settled",
)
HEADINGS = ("search", "said (s)", "took (s)", "of processor (s)", "fold", *DURING)


def line(name: str, found: dict[str, Any]) -> str:
    """A search as a line of a Markdown table; what was not held is bold."""
    low, high = found["said"]
    took = f"{found['took']:.0f}" if low <= found["took"] <= high else f"**{found['took']:.0f}**"
    before = [f"{low:.0f} to {high:.0f}", took, f"{found['work']:.0f}", f"{high / low:.1f}"]
    return f"| {' | '.join([name, *before, *during(name, found)])} |"


def during(name: str, found: dict[str, Any]) -> list[str]:
    """What was said while a search ran: the cells below `DURING`."""
    moments, end = moments_of(found), found["seconds"]
    later = [moment for moment in moments if moment.trials >= LATER]
    settled = [m for m in moments if m.settled and "macro_micro" in name]
    shares = [_share(moments, end), _share(later, end)]
    return [f"{found['trials']}", *shares, _widest(later), _widest(settled)]


def moments_of(found: dict[str, Any]) -> list[Moment]:
    """The moments of a search that was watched."""
    return [Moment(**fields) for fields in found["moments"]]


def held(found: dict[str, Any]) -> bool:
    """Whether the time left held for most of a search."""
    moments = moments_of(found)
    return sum(m.holds(found["seconds"]) for m in moments) >= MOSTLY * len(moments)


def _share(moments: list[Moment], end: float) -> str:
    """For how much of the time a range held the truth."""
    if not moments:
        return ""
    share = sum(moment.holds(end) for moment in moments) / len(moments)
    return f"{100 * share:.0f} %" if share >= MOSTLY else f"**{100 * share:.0f} %**"


def _widest(moments: list[Moment]) -> str:
    """The widest range. What is left in the last seconds is not worth a range."""
    folds = [moment.fold for moment in moments if moment.high > 5]
    return f"{max(folds):.1f}" if folds else ""


def totals(rows: dict[str, dict[str, Any]]) -> str:
    """In how many searches what was said held."""
    before = sum(low <= r["took"] <= high for r in rows.values() for low, high in [r["said"]])
    widest = max(high / low for r in rows.values() for low, high in [r["said"]])
    held_in = sum(map(held, rows.values()))
    return (
        f"Of {len(rows)} searches, what was said before held in {before}, at most {widest:.1f}-"
        f"fold; the time left in {held_in}, for {MOSTLY:.0%} of their seconds or more."
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="Folder of cifar-10-batches-py.")
    parser.add_argument("--only", nargs="*", default=list(SEARCHES), help="Names of searches.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the searches.")
    parser.add_argument("--minutes", type=float, default=60.0, help="Then none is begun.")
    parser.add_argument("--output", type=Path, help="JSON file.")
    parser.add_argument("--watch", nargs=2, metavar=("FILE", "OUTPUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watched(*options.watch)
        return
    print(", ".join(f"{name} {value}" for name, value in about().items()))
    print(f"\n| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    until = time.monotonic() + 60 * options.minutes
    for name in itertools.takewhile(lambda _: time.monotonic() < until, options.only):
        rows[name] = measured(name, options.data, options.seed)
        print(line(name, rows[name]), flush=True)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps({"about": about(), "rows": rows}) + "\n")
    print(f"\n{totals(rows)}")


if __name__ == "__main__":
    main()
