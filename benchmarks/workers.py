"""How much faster several worker processes are, on trials that sleep or on real trainings.

    python benchmarks/workers.py [--workers 1 2 4 8] [--storages sqlite journal URL ...] [--json]
    python benchmarks/workers.py --device cuda --per-device 1 2 4 8 [--set cifar10 --data FOLDER]
    python benchmarks/workers.py --device cuda --streams 1 2 4 8 [--set cifar10 --data FOLDER]

Populations and random search: trials per second while all workers work, beside one worker, so
that their start is left out. Macro-micro, whose decisions follow one another: the time of the
whole search beside one worker's. A storage is `sqlite`, `journal` or a database server's URL.

With `--device` random chains of ten layers are trained there by so many processes, or by so many
streams of one: the multiply-adds of the trained epochs per second. Whether MPS is running is told
with the machine; measure processes with and without it.
"""

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import uuid
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.trial import FrozenTrial

import optnas
from optnas.config.file import study_from_dict
from optnas.config.keys import Workers
from optnas.devices.gpus import gpus, mps_runs
from optnas.running.runner import run
from optnas.trials.attributes import DEVICE_MEMORY, LEASE
from optnas.units import size

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


@dataclasses.dataclass(frozen=True)
class Training:
    """Real trainings by several workers of one device.

    Args:
        workers: Number of processes.
        trials: Trials that count.
        seconds: Time in which they were done.
        rate: Multiply-adds of an epoch's forward passes, for one image each, in a second.
        speedup: That beside the first row.
        memory: The most of the device's memory in use at the end of a trial, in bytes.
    """

    workers: int
    trials: int
    seconds: float
    rate: float
    speedup: float
    memory: int | None


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
        lease = trial.system_attrs[LEASE]
        ends.setdefault((lease["pid"], lease.get("thread")), []).append(ended(trial))
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


def train(workers: int, options: argparse.Namespace) -> Training:
    """Run one study of real trainings."""
    with tempfile.TemporaryDirectory() as folder:
        keys = {
            "study": "train",
            "seed": 0,  # Whoever trains them: the same networks in the same order.
            "storage": f"sqlite:///{folder}/train.db",
            "artifacts": f"{folder}/artifacts",
            "space": {"name": "chain", "depth": [10, 10], "width": [64, 64]},
            "sampler": "random",
            "data": {"name": options.set, "root": options.data},
            "train": {"epochs": options.epochs},
            "budget": {"trials": options.trials * workers},
        }
        how = "per_device" if options.streams is None else "streams"
        plan = Workers(devices=(options.device,), **{how: workers})
        trials = [t for t in run(study_from_dict(keys), workers=plan).study.trials if t.params]
    done, seconds = together(trials, workers)
    work = sum(t.user_attrs["multiply_adds"] * t.user_attrs["epochs_trained"] for t in done)
    reported = [t.user_attrs[DEVICE_MEMORY] for t in trials if DEVICE_MEMORY in t.user_attrs]
    memory = max((each["total_bytes"] - each["free_bytes"] for each in reported), default=None)
    return Training(workers, len(done), seconds, work / seconds, 1.0, memory)


def train_all(options: argparse.Namespace) -> Iterator[Training]:
    """Every study of real trainings, beside the first."""
    single = 0.0
    for workers in options.streams or options.per_device:
        made = train(workers, options)
        single = single or made.rate / workers
        yield dataclasses.replace(made, speedup=made.rate / single)


def sleep_line(row: Row) -> str:
    """A run as a line of a table."""
    return (
        f"| {row.storage} | {row.sampler} | {row.workers} | {row.trials} | {row.seconds:.1f} | "
        f"{row.speedup:.2f} | {100 * row.ideal:.0f}% |"
    )


def training_line(made: Training) -> str:
    """Real trainings as a line of a table."""
    memory = "-" if made.memory is None else size(made.memory)
    return (
        f"| {made.workers} | {made.trials} | {made.seconds:.1f} | {made.rate:.3g} | "
        f"{made.speedup:.2f} | {memory} |"
    )


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--storages", nargs="+", default=["sqlite", "journal"])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--seconds", type=float, default=0.5, help="Length of a sleeping trial.")
    parser.add_argument("--trials", type=int, help="Trials per worker: 40; of trainings 10.")
    parser.add_argument("--device", help="Train there instead of sleeping.")
    parser.add_argument("--per-device", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--streams", type=int, nargs="+", help="In one process instead.")
    parser.add_argument("--set", default="digits", help="The data set of trainings.")
    parser.add_argument("--data", help="Its folder.")
    parser.add_argument("--epochs", type=int, default=5, help="Epochs of a training.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    options = parser.parse_args()
    options.trials = options.trials or (40 if options.device is None else 10)
    return options


def main() -> None:
    """Measure, and print as a table or as JSON."""
    options = arguments()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    about: dict[str, Any] = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "optnas": optnas.__version__,
        "optuna": optuna.__version__,
        "sqlalchemy": sqlalchemy.__version__,
        "load": os.getloadavg()[0],
    }
    rows: Iterable[Any]
    if options.device is None:
        about["seconds"] = options.seconds
        names = "storage | sampler | workers | trials | seconds | speed-up | share of ideal"
        rows, line = measure_all(options), sleep_line
    else:
        about |= {"gpus": ", ".join(gpu.name for gpu in gpus()) or "none", "mps": mps_runs()}
        names = "workers | trials | seconds | multiply-adds per second | speed-up | memory"
        rows, line = train_all(options), training_line
    if options.json:
        made = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"about": about, "rows": made}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"\n| {names} |")
    print("|---" * (names.count("|") + 1) + "|", flush=True)
    for row in rows:
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
