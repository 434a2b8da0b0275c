"""How much faster several worker processes are, on trials that sleep for half a second.

    python benchmarks/workers.py [--workers 1 2 4 8] [--storages sqlite journal URL ...] [--json]

Populations and random search: trials per second while all workers work, beside one worker, so
that their start is left out. Macro-micro, whose decisions follow one another: the time of the
whole search beside one worker's. A storage is `sqlite`, `journal` or a database server's URL.
"""

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

import optnas
from optnas.runner import run
from optnas.study_file import study_from_dict
from optnas.study_keys import Workers
from optnas.trials import LEASE

SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {"space": "nasbench201"},
    "econas": {"space": "nasbench201"},
    "randgrow": {"space": "growth"},
    "macro_micro": {"space": {"name": "chain", "depth": [2, 9], "width": [8, 14]}},
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One run.

    Args:
        storage: The storage's kind.
        sampler: The sampler.
        workers: Number of processes.
        trials: Trials that count.
        seconds: Time in which they were done.
        speedup: Beside one worker.
        ideal: Share of what the sleeping alone would allow.
    """

    storage: str
    sampler: str
    workers: int
    trials: int
    seconds: float
    speedup: float
    ideal: float


def measure(storage: str, sampler: str, workers: int, options: argparse.Namespace) -> Row:
    """Run one study."""
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/nap.db", "journal": f"journal:///{folder}/nap.log"}
        keys = {
            "study": f"nap-{uuid.uuid4().hex[:8]}",
            "storage": urls.get(storage, storage),
            "artifacts": f"{folder}/artifacts",
            "sampler": sampler,
            "objective": {"name": "napping:Nap", "seconds": options.seconds},
            "budget": {"trials": None if sampler == "macro_micro" else options.trials * workers},
        }
        config = study_from_dict(keys | SAMPLERS[sampler], Path(__file__).parent)
        outcome = run(config, workers=Workers(count=workers))
        trials = [t for t in outcome.study.trials if t.params]
    assert all(t.state.is_finished() and t.value is not None for t in trials)
    whole = sampler == "macro_micro"
    done, seconds = (trials, span(trials)) if whole else together(trials, workers)
    ideal = len(done) * options.seconds / seconds / workers
    name = storage if storage in urls else storage.partition(":")[0].partition("+")[0]
    return Row(name, sampler, workers, len(done), seconds, 1.0, ideal)


def ended(trial: FrozenTrial) -> float:
    """When a trial ended, in seconds."""
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


def span(trials: list[FrozenTrial]) -> float:
    """Seconds from the first start to the last end."""
    started = min(t.datetime_start.timestamp() for t in trials if t.datetime_start is not None)
    return max(map(ended, trials)) - started


def together(trials: list[FrozenTrial], workers: int) -> tuple[list[FrozenTrial], float]:
    """The trials that ended while all workers worked, and how long that was."""
    ends: dict[int, list[float]] = {}
    for trial in trials:
        ends.setdefault(trial.system_attrs[LEASE]["pid"], []).append(ended(trial))
    first, last = max(map(min, ends.values())), min(map(max, ends.values()))
    assert len(ends) == workers, "a worker came too late: raise --trials"
    assert first < last, "the workers did not work together: raise --trials"
    return [trial for trial in trials if first < ended(trial) <= last], last - first


def measure_all(options: argparse.Namespace) -> Iterator[Row]:
    """Every run, with its speed beside the run of one worker before it."""
    for storage in options.storages:
        for sampler in options.samplers:
            rate = 0.0
            for workers in options.workers:
                row = measure(storage, sampler, workers, options)
                own = row.trials / row.seconds
                if sampler == "macro_micro":  # Wrong guesses are trials too, but no progress.
                    own = 1 / row.seconds
                rate = rate or own / workers
                yield dataclasses.replace(row, speedup=own / rate)


def main() -> None:
    """Measure, and print as a table or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--storages", nargs="+", default=["sqlite", "journal"])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--seconds", type=float, default=0.5, help="Length of a trial.")
    parser.add_argument("--trials", type=int, default=40, help="Trials per worker.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    about = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "optnas": optnas.__version__,
        "optuna": optuna.__version__,
        "sqlalchemy": sqlalchemy.__version__,
        "load": os.getloadavg()[0],
        "seconds": options.seconds,
    }
    if options.json:
        rows = [dataclasses.asdict(row) for row in measure_all(options)]
        print(json.dumps({"about": about, "rows": rows}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print("\n| storage | sampler | workers | trials | seconds | speed-up | share of ideal |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for row in measure_all(options):
        print(
            f"| {row.storage} | {row.sampler} | {row.workers} | {row.trials} | "
            f"{row.seconds:.1f} | {row.speedup:.2f} | {100 * row.ideal:.0f}% |",
            flush=True,
        )


if __name__ == "__main__":
    main()
