"""What optnas does on a GPU, in one command of at most five minutes: one table, one JSON file.

    python benchmarks/gpu.py [--seconds 300] [--data FOLDER] [--output FILE] [--parts PART ...]

The parts: whether everything is installed, the tests that know of GPUs and why they fail, epochs
with and without optnas's kernels, their steps and what one is made of, what a width never seen
costs, several trainings at once, FTSO's topology search, the published macro-micro search. Each
has a process of its own and a share of the seconds; what runs over its share is ended, and what
it had found stays. The published search has all the seconds that are left: with the same output
file it goes on where it was, and is summed. Without the data set, random pixels are trained on.

On a machine without a GPU, ``--device cpu --quick`` tries the command in some seconds.
"""

import argparse
import dataclasses
import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from _gpu_parts import PARTS, TRACE, Row, Task, the_images
from search import SEARCH

from optnas.devices.gpus import gpus

GRACE = 3.0
"""Seconds that a part has to tell what it found, once it was told to end."""
DONE, CUT = "done", "cut off"


def measured(name: str, task: Task, limit: float) -> Iterator[Row]:
    """The rows of a part, as it finds them, and how it ended as the last one.

    Args:
        name: The part.
        task: What it is given.
        limit: Seconds after which it is ended.
    """
    # Forked: nothing here has touched the GPU, and imports take seconds.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, name, task))
    start = time.monotonic()
    process.start()
    theirs.close()
    ending, told = "its process ended", 0.0
    while True:
        left = (told or start + limit) + (GRACE if told else 0.0) - time.monotonic()
        try:
            if ours.poll(max(0.0, left)):
                found = ours.recv()
                if isinstance(found, Row):
                    yield found
                    continue
                ending = CUT if told and found == DONE else found
                break
        except EOFError:
            process.join(GRACE)
            ending = CUT if told else f"{ending} ({process.exitcode})"
            break
        if told:
            ending = CUT
            break
        told = time.monotonic()
        process.terminate()
    if process.is_alive():
        process.join(GRACE)
        process.kill()
    process.join()
    spent = time.monotonic() - start
    yield Row(name, "ended", ending, note=f"{spent:.0f} of {limit:.0f} s")


def _serve(connection: Connection, name: str, task: Task) -> None:
    """Measure a part in a process of its own; Ctrl-C and SIGTERM end it in order."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ending = DONE
    try:
        for row in PARTS[name][0](task):
            connection.send(row)
    except KeyboardInterrupt:
        ending = CUT
    except BaseException as error:
        traceback.print_exc()
        ending = f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]
    connection.send(ending)
    connection.close()


def summed(done: dict[str, float]) -> Row:
    """The published search as far as it was replayed."""
    evaluations = json.loads(TRACE.read_text())[SEARCH]["evaluations"]
    epochs = sum(e["epochs"] for i, e in enumerate(evaluations) if str(i) in done)
    every = sum(e["epochs"] for e in evaluations)
    what = f"{len(done)} of {len(evaluations)} evaluations, {epochs} of {every:,} epochs"
    return Row("search", f"the published search, {what}", sum(done.values()), "s", len(done))


def line(row: Row) -> str:
    """A line of the table."""
    value = row.value if isinstance(row.value, str) else f"{row.value:.4g}"
    return f"| {row.part} | {row.what} | {value} {row.unit} | {row.n} | {row.note} |"


def the_stored(output: Path | None) -> dict[str, Any]:
    """What an output file has; nothing without one."""
    if output is None or not output.exists():
        return {}
    stored: dict[str, Any] = json.loads(output.read_text())
    return stored


def write(output: Path | None, rows: list[Row], done: dict[str, float], gpu: str) -> None:
    """The JSON file, whole at any time."""
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    content = {"gpu": gpu, "rows": [dataclasses.asdict(row) for row in rows], "search": done}
    partial = output.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(output)


def run(options: Any) -> list[Row]:
    """Measure all parts, one after the other, printing what they find."""
    end = time.monotonic() + options.seconds
    torch.set_num_threads(1)  # A process that has threads is not forked.
    images = the_images(options.data, quick=options.quick)
    stored = the_stored(options.output)
    rows: list[Row] = []
    done: dict[str, float] = {}
    gpu = "none"
    print("| part | what | measured | n | |\n|---|---|---|---|---|", flush=True)
    for name in options.parts:
        task = Task(images, options.device, options.quick, done)
        share = options.seconds * PARTS[name][1] / sum(limit for _, limit in PARTS.values())
        left = end - time.monotonic() - 2 * GRACE
        for row in measured(name, task, left if name == "search" else min(share, left)):
            if (row.part, row.what) == ("install", "gpu"):
                gpu = str(row.value)
                same = stored.get("gpu") == gpu and not options.quick
                done |= stored["search"] if same else {}
            if name == "search" and row.what.isdecimal():
                done[row.what] = float(row.value)
                row = summed(done)
                rows = [each for each in rows if each.part != "search"]
            rows.append(row)
            print(line(row), flush=True)
            write(options.output, rows, done, gpu)
    return rows


def options_of(words: list[str] | None = None) -> Any:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300, help="For all of it.")
    parser.add_argument("--data", type=Path, help="Folder of the data sets, as torchvision's.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="Less of everything.")
    parser.add_argument("--output", type=Path, help="JSON file; its search is gone on with.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    return parser.parse_args(words)


def main() -> None:
    """Measure; the exit code says whether a part broke, or there is no GPU."""
    options = options_of()
    if options.device != "cpu" and not gpus():  # Which does not touch them, as torch would.
        sys.exit("No GPU is here: `--device cpu --quick` tries the command without one.")
    rows = run(options)
    endings = {row.part: str(row.value) for row in rows if row.what == "ended"}
    if broken := [name for name, ending in endings.items() if ending not in (DONE, CUT)]:
        sys.exit(f"These parts broke: {', '.join(broken)}.")


if __name__ == "__main__":
    main()
