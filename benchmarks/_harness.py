"""What the benchmarks share: product and rival in turn, ratios with their spread, tables, JSON."""

import argparse
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """What one comparison came to.

    Args:
        product: Median seconds of the product.
        rival: Median seconds of the rival.
        ratio: How many times as fast the product is: the median over the repeats of the rival's
            time by the product's, taken one after the other.
        low: The least of these.
        high: The greatest.
        repeats: Their number.
        work: The same median of processor time, child processes included: what other programs on
            the machine disturb least. None where it was not measured.
        notes: What else is worth knowing.
    """

    product: float
    rival: float
    ratio: float
    low: float
    high: float
    repeats: int
    work: float | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


Cases = Iterable[tuple[str, Callable[[], Row]]]
"""Names of comparisons, and what makes them."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of one side.

    Args:
        seconds: Its time.
        work: Its processor time in seconds, child processes included; None if it is not known.
        result: What it came to.
    """

    seconds: float
    work: float | None = None
    result: Any = None


def row(product: list[Turn], rival: list[Turn], **notes: Any) -> Row:
    """The comparison of turns that were taken in pairs."""
    pairs = list(zip(product, rival, strict=True))
    ratios = [r.seconds / p.seconds for p, r in pairs]
    works = [r.work / p.work for p, r in pairs if p.work and r.work]
    return Row(
        statistics.median(turn.seconds for turn in product),
        statistics.median(turn.seconds for turn in rival),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        statistics.median(works) if works else None,
        notes,
    )


class Contestant:
    """A process of its own that prepares work and then does it whenever it is told to.

    Processes, because what one side sets (threads, allocators) must not serve the other.

    Args:
        prepare: Makes the work; a function of a module.
        args: Its arguments.
    """

    def __init__(self, prepare: Callable[..., Work], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        method = multiprocessing.get_start_method()
        self._process = context.Process(target=_serve, args=(theirs, method, prepare, args))
        self._process.start()
        theirs.close()

    def __call__(self) -> Turn:
        """Have it do its work once."""
        return together([self])

    def begin(self) -> None:
        """Have it begin its work."""
        self._connection.send(True)

    def end(self) -> Turn:
        """Wait until its work is done."""
        turn: Turn = self._connection.recv()
        return turn

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


def together(contestants: Sequence[Contestant]) -> Turn:
    """Have several do their work at once: what one piece of it takes, on average."""
    for contestant in contestants:
        contestant.begin()
    turns = [contestant.end() for contestant in contestants]
    works = [turn.work for turn in turns if turn.work is not None]
    return Turn(
        max(turn.seconds for turn in turns) / len(turns),
        statistics.mean(works) if works else None,
        turns[0].result,
    )


def _serve(
    connection: Connection, method: str, prepare: Callable[..., Work], args: tuple[Any, ...]
) -> None:
    # A spawned process would spawn its own children too, a data loader's workers for example,
    # which take seconds to start.
    multiprocessing.set_start_method(method, force=True)
    work = prepare(*args)
    with contextlib.suppress(EOFError):
        while connection.recv():
            connection.send(timed(work))


def timed(work: Work) -> Turn:
    """Work done in this process."""
    before, start = _processor_time(), time.perf_counter()
    result = work()
    return Turn(time.perf_counter() - start, _processor_time() - before, result)


def _processor_time() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def alternate(
    product: Callable[[], Turn],
    rival: Callable[[], Turn],
    repeats: int,
    **notes: Any,
) -> Row:
    """Have both work in turn, each first every other time; one turn before that does not count."""
    product(), rival()
    turns: tuple[list[Turn], list[Turn]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 else (1, 0):
            turns[side].append((product, rival)[side]())
    return row(*turns, **notes)


@contextlib.contextmanager
def contest(
    product: tuple[Callable[..., Work], Any],
    rival: tuple[Callable[..., Work], Any],
    workers: int = 1,
) -> Iterator[tuple[Callable[[], Turn], Callable[[], Turn]]]:
    """Both sides, each a function that prepares its work with its arguments.

    Args:
        product: Ours.
        rival: The rival's.
        workers: How many processes of ours do the work at once.
    """
    with contextlib.ExitStack() as stack:
        sides = [Contestant(*side) for side in (*[product] * workers, rival)]
        for side in sides:
            stack.callback(side.close)
        yield functools.partial(together, sides[:-1]), sides[-1]


def about(device: str = "cpu") -> dict[str, Any]:
    """The hardware and the versions."""
    import optuna
    import torch

    import optnas
    from optnas.objectives.networks.inference import processor

    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "optnas": optnas.__version__,
        "optuna": optuna.__version__,
        "torch": torch.__version__,
        **gpu,
    }


def measure(cases: Cases, output: Path | None, device: str = "cpu") -> dict[str, Row]:
    """Make all comparisons, printing a table; what ``output`` has already is not made again.

    Args:
        cases: The comparisons.
        output: A JSON file, written after every comparison; None writes none.
        device: The device, for the record.
    """
    environment = about(device)
    rows: dict[str, Row] = {}
    if output is not None and output.exists():
        stored = json.loads(output.read_text())
        if {**stored["about"], "load": None} == {**environment, "load": None}:
            rows = {name: Row(**fields) for name, fields in stored["rows"].items()}
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    print("\n| | ours | rival | ratio | from | to | n | work | |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name, make in cases:
        if name not in rows:
            load = os.getloadavg()[0]
            made = make()
            rows[name] = dataclasses.replace(made, notes={**made.notes, "load": round(load, 1)})
        print(line(name, rows[name]), flush=True)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            record(output, environment, rows)
    return rows


def record(path: Path, environment: dict[str, Any], rows: dict[str, Row]) -> None:
    """Write comparisons as JSON."""
    fields = {name: dataclasses.asdict(made) for name, made in rows.items()}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps({"about": environment, "rows": fields}, indent=1) + "\n")
    partial.replace(path)


def line(name: str, made: Row) -> str:
    """A comparison as a line of a Markdown table."""
    notes = ", ".join(f"{key} {value}" for key, value in made.notes.items())
    work = "" if made.work is None else f"{made.work:.2f}"
    return (
        f"| {name} | {_seconds(made.product)} | {_seconds(made.rival)} | {made.ratio:.2f} | "
        f"{made.low:.2f} | {made.high:.2f} | {made.repeats} | {work} | {notes} |"
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="Less of everything.")
    parser.add_argument("--output", type=Path, help="JSON file; what it has is not repeated.")
    return parser
