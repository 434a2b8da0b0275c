"""Several trainings of one network on one device: as processes, and as threads with streams.

    python benchmarks/at_once.py --device cuda [--data FOLDER] [--at-once 1 2 4 8] [--json]

Every process trains as a worker does. Threads of one process have a CUDA stream each, and no
graphs: while one is captured, no other thread may use the device. Threads and processes do so
many epochs each, from a moment at which all are ready; epochs per second of all together are
printed, and how many times as fast that is as one of the kind. With MPS running or not: that is
the other half of the comparison, and the first line tells which it was.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from _harness import Contestant, about, together
from epoch import DATA, NETWORKS, images_of, product

from optnas.devices.gpus import mps_runs
from optnas.objectives.data.images import Images

Work = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Row:
    """So many trainings at once.

    Args:
        network: The network.
        kind: Processes or threads.
        count: Their number.
        rate: Epochs per second of all together, the median over the repeats.
        low: The least of these.
        high: The greatest.
        speedup: Beside one of the kind.
    """

    network: str
    kind: str
    count: int
    rate: float
    low: float
    high: float
    speedup: float


def prepare(network: str, images: Images, device: str, epochs: int, graphs: bool) -> Work:
    """A training that has done its first epoch: so many more, and the device is idle again."""
    epoch = product(NETWORKS[network], images, device, 1, "auto", 10_000, graphs=graphs)
    epoch()

    def work() -> None:
        for _ in range(epochs):
            epoch()  # Waits for the device at its end.

    return work


def as_processes(count: int, prepared: functools.partial[Work]) -> float:
    """Seconds that so many processes take."""
    with contextlib.ExitStack() as stack:
        sides = [Contestant(prepared.func, *prepared.args, True) for _ in range(count)]
        for side in sides:
            stack.callback(side.close)
        together(sides)  # Waits until all are ready.
        return count * together(sides).seconds


def as_threads(count: int, prepared: functools.partial[Work]) -> float:
    """Seconds that so many threads take."""
    ready = threading.Barrier(count + 1, timeout=600)  # One may fail before it.

    def train() -> None:
        device = torch.device(prepared.args[2])
        on_gpu = device.type == "cuda"
        own = torch.cuda.stream(torch.cuda.Stream(device)) if on_gpu else contextlib.nullcontext()
        with own:
            work = prepared(False)
            ready.wait()
            work()

    with ThreadPoolExecutor(count) as pool:
        threads = [pool.submit(train) for _ in range(count)]
        ready.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.result()
        return time.perf_counter() - start


KINDS = {"processes": as_processes, "threads": as_threads}


def rows(options: argparse.Namespace, images: Images) -> Iterator[Row]:
    """Every measurement."""
    for network in options.networks:
        prepared = functools.partial(prepare, network, images, options.device, options.epochs)
        for kind in options.kinds:
            single = 0.0
            for count in options.at_once:
                seconds = sorted(KINDS[kind](count, prepared) for _ in range(options.repeats))
                rates = [count * options.epochs / each for each in seconds]
                rate = statistics.median(rates)
                single = single or rate / count
                yield Row(network, kind, count, rate, rates[-1], rates[0], rate / single)


def main() -> None:
    """Measure, and print as a table or as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="Folder of the data sets, as torchvision's.")
    parser.add_argument("--set", choices=DATA, default="cifar10")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["chain (10, 64)"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    options = parser.parse_args()
    images, kind = images_of(options.set, options.data, whole=options.device != "cpu")
    environment = {**about(options.device), "images": kind, "mps": mps_runs()}
    if options.json:
        made = [dataclasses.asdict(row) for row in rows(options, images)]
        print(json.dumps({"about": environment, "rows": made}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    print("\n| network | kind | at once | epochs per second | from | to | of one |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for row in rows(options, images):
        print(
            f"| {row.network} | {row.kind} | {row.count} | {row.rate:.2f} | {row.low:.2f} | "
            f"{row.high:.2f} | {row.speedup:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
