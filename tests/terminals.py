"""What a terminal shows of a search, frame by frame, and what is broken there.

    python tests/terminals.py --study FILE [--seconds 90] [--captures DIR]
    python tests/terminals.py [STRATEGY ...] [--workers 1,4] [--into 60x20,json] [--captures DIR]

Runs a short search of every strategy in a terminal of every size, with one worker and with four,
then with `--json` and into a pipe; prints what is broken and how long the clock stood still at
most. Frames are kept in DIR, each with its time, to be looked at. --study does that for a study of
your own, in a terminal of 80x24, which hears Ctrl-C after so many seconds.
"""

import argparse
import fcntl
import itertools
import json
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte

from optnas.cli.console import COMMAND
from optnas.units import plural

OPTNAS = [sys.executable, "-c", "from optnas.cli import main; main()"]
SIZES = ((60, 20), (80, 24), (120, 40))
DIGITS = {"name": "digits", "classes": [0, 1, 2], "samples": 0.3}
_CELLS: dict[str, Any] = {"space": {"name": "cell", "nodes": 2}}
_SUPERNET: dict[str, Any] = _CELLS | {
    "objective": {
        "name": "supernet_classification",
        "search": {"epochs": 1, "operator_epochs": 1, "cells": 3, "batch_size": 32},
    }
}
_CHAIN: dict[str, Any] = {"space": {"name": "chain", "depth": [2, 4], "width": [4, 8]}}
_RUNGS = {"pruner": {"name": "hierarchical", "epochs": 1}, "train": {"epochs": 3}}
_EVOLUTION = {"initial": 4, "parents": [1, 1, 1], "cycles": 1}
STUDIES: dict[str, dict[str, Any]] = {
    "macro_micro": _CHAIN | {"sampler": {"name": "macro_micro", "epochs": 2, "micro_epochs": 1}},
    "randgrow": {
        "space": {"name": "growth", "cells": 1, "channels": 2},
        "train": {"epochs": 1, "cycles": 1, "initial_epochs": 1, "batch_size": 64},
        "budget": {"trials": 5},
    },
    "stage_wise": {
        "space": {"name": "stage", "stages": 3, "block": "basic"},
        "sampler": {"name": "stage_wise", "initial": 1, "growth": 1, "iterations": 1},
        "objective": "stage_classification",
    },
    "econas": _CELLS | _RUNGS | {"sampler": {"name": "econas", **_EVOLUTION}},
    "synchronous_econas": _CELLS
    | {"sampler": {"name": "synchronous_econas", "epochs": 1, **_EVOLUTION}},
    "ftso": _SUPERNET,
    "darts": _SUPERNET,
    "surrogate": _CHAIN | {"budget": {"trials": 7}},
    "local_search": _CHAIN | {"budget": {"trials": 6}},
    "regularized_evolution": _CHAIN | {"budget": {"trials": 6}},
    "random": _CHAIN | {"budget": {"trials": 6}},
}
"""By strategy: a search of a few trials, each of which takes a moment."""


def keys(strategy: str, **others: Any) -> dict[str, Any]:
    """The keys of a strategy's study."""
    own = STUDIES[strategy]
    common: dict[str, Any] = {"study": strategy, "data": DIGITS, "sampler": strategy, "seed": 0}
    if strategy not in ("macro_micro", "synchronous_econas"):  # They say how long they train.
        common["train"] = {"epochs": 1}
    if own["space"] == _CELLS["space"]:
        common["network"] = {"cells": 3, "channels": 2}
    return {**common, **own, **others}


class Screen(pyte.HistoryScreen):
    """A terminal that knows what was written over its edge.

    Attributes:
        wrapped: Rows that went on in the next one because there was no room.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.wrapped: list[str] = []
        self._is_drawing = False
        super().__init__(columns, lines, history=10_000, ratio=0.5)

    def draw(self, data: str) -> None:
        self._is_drawing = True
        super().draw(data)
        self._is_drawing = False

    def linefeed(self) -> None:
        if self._is_drawing:
            self.wrapped.append(self.display[self.cursor.y])
        super().linefeed()

    def text(self) -> list[str]:
        """All rows, those that have left the screen at the top included."""
        gone = ["".join(row[x].data for x in range(self.columns)) for row in self.history.top]
        rows = [row.rstrip() for row in [*gone, *self.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows


class Terminal:
    """A screen and what is written to it.

    Args:
        columns: Characters of a row.
        lines: Rows.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)

    def feed(self, data: bytes) -> list[str]:
        """Write to it; returns all of its rows."""
        self._stream.feed(data)
        return self.screen.text()


def frames(
    command: list[str], columns: int, lines: int, folder: Path, stop: float = math.inf
) -> Iterator[tuple[float, Terminal]]:
    """Run a command in a terminal; the time and the terminal whenever it has come to rest.

    Args:
        command: The command.
        columns: Characters of a row.
        lines: Rows.
        folder: Where it runs.
        stop: Seconds after which it hears Ctrl-C.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "CI")}
    environment |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment
    )
    os.close(slave)
    terminal, start, is_new = Terminal(columns, lines), time.monotonic(), False
    while True:
        if time.monotonic() - start > stop:
            process.send_signal(signal.SIGINT)
            stop = math.inf
        if select.select([master], [], [], 0.03)[0]:
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # The other end is closed.
                break
            terminal.feed(data)
            is_new = True
        elif is_new:
            is_new = False
            yield time.monotonic() - start, terminal
    os.close(master)
    process.wait()
    yield time.monotonic() - start, terminal


RUNNING = re.compile(r"running (\d+ s|[\d:]+ [mh])")
"""In the footer, once."""


class Watcher:
    """Judges the frames of a search.

    Args:
        stop: Seconds after which it hears Ctrl-C.

    Attributes:
        broken: What is broken, in words.
        frames: How many there were.
        still: Seconds for which the clock stood still, at most.
        answered: Seconds until Ctrl-C was answered; None if that was not seen.
    """

    def __init__(self, stop: float = math.inf) -> None:
        self.broken: list[str] = []
        self.frames, self.still = 0, 0.0
        self.answered: float | None = None
        self._stop = stop
        self._clock: tuple[str, float] | None = None
        self._above: list[str] = []

    def see(self, seconds: float, terminal: Terminal) -> None:
        """A frame."""
        rows = terminal.screen.text()
        self.frames += 1
        if self.answered is None and any(row.startswith("Interrupted") for row in rows):
            self.answered = seconds - self._stop
        clocks = [found[1] for row in rows if (found := RUNNING.search(row))]
        if len(clocks) > 1:
            self.broken.append(f"{seconds:.1f} s: {len(clocks)} footers")
        if len(clocks) == 1:
            if self._clock is None or self._clock[0] != clocks[0]:
                self._clock = clocks[0], seconds
            self.still = max(self.still, seconds - self._clock[1])
        above = [row for row in rows if re.match(r" +\d+  [a-z ]{12}  ", row)]
        if above[: len(self._above)] != self._above:
            self.broken.append(f"{seconds:.1f} s: a row has changed: {self._above} {above}")
        self._above = above

    def end(self, terminal: Terminal) -> None:
        """The last frame: nothing of the footer stays."""
        rows = terminal.screen.text()
        over = [row for row in terminal.screen.wrapped if not COMMAND.match(row)]
        self.broken += [f"written over the edge: {row}" for row in over]
        self.broken += [f"left behind: {row}" for row in rows if RUNNING.search(row)]
        if not self._above:
            self.broken.append("no trial was shown")


def watch(
    command: list[str],
    size: tuple[int, int],
    folder: Path,
    capture: Path | None,
    stop: float = math.inf,
) -> Watcher:
    """Run a search in a terminal, and judge it.

    Args:
        command: The command.
        size: Columns and rows.
        folder: Where it runs.
        capture: A file for the frames; None keeps none.
        stop: Seconds after which it hears Ctrl-C.
    """
    watcher, kept = Watcher(stop), []
    for seconds, terminal in frames(command, *size, folder, stop):
        watcher.see(seconds, terminal)
        shown = "\n".join(f"|{row:<{size[0]}}|" for row in terminal.screen.display)
        kept.append(f"--- {seconds:.2f} s\n{shown}")
    watcher.end(terminal)
    if capture is not None:
        capture.parent.mkdir(parents=True, exist_ok=True)
        whole = "\n".join(terminal.screen.text())
        capture.write_text("\n".join([*kept, "--- in the end, all of it", whole]))
    return watcher


def recorded(study: Path, seconds: float, captures: Path | None) -> int:
    """Run a study file, stop it after a while, and print what was seen; 1 if it is broken."""
    path = captures and captures / f"{study.stem}.txt"
    seen = watch([*OPTNAS, "run", study.name], (80, 24), study.parent, path, seconds)
    answer = "never" if seen.answered is None else f"after {seen.answered:.2f} s"
    print(
        f"{seen.frames} frames; the clock stood still for {seen.still:.2f} s at most; Ctrl-C was "
        f"answered {answer}"
    )
    print("".join(f"  {line}\n" for line in seen.broken), end="")
    return int(bool(seen.broken))


def listen(command: list[str], folder: Path, *, as_json: bool) -> list[str]:
    """Run a search into a pipe; what is broken."""
    broken, last = [], time.monotonic()
    command = [*command, "--json"] if as_json else command
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            now = time.monotonic()
            if now - last > 31:
                broken.append(f"silent for {now - last:.0f} s")
            last = now
            if "\x1b" in line or "\r" in line:
                broken.append(f"for terminals alone: {line!r}")
            if as_json:
                try:
                    assert "event" in json.loads(line)
                except (ValueError, AssertionError):
                    broken.append(f"no event: {line!r}")
        if process.wait():
            broken.append(f"exit code {process.returncode}: {process.communicate()[1]}")
    return broken


def main() -> int:
    """Run what was asked for; 1 if something is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", default=list(STUDIES))
    parser.add_argument("--workers", default="1,4")
    everything = ",".join([*(f"{columns}x{rows}" for columns, rows in SIZES), "json", "pipe"])
    parser.add_argument("--into", default=everything)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--captures", type=Path)
    options = parser.parse_args()
    bad = 0
    if options.study is not None:
        return recorded(options.study, options.seconds, options.captures)
    for strategy, workers, into in itertools.product(
        options.strategies, map(int, options.workers.split(",")), options.into.split(",")
    ):
        said = ""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "study.yaml").write_text(json.dumps(keys(strategy)))
            command = [*OPTNAS, "run", "study.yaml", "--workers", str(workers)]
            if into in ("json", "pipe"):
                broken = listen(command, folder, as_json=into == "json")
            else:
                columns, rows = map(int, into.split("x"))
                path = options.captures and options.captures / f"{strategy}-{workers}-{into}.txt"
                seen = watch(command, (columns, rows), folder, path)
                broken = seen.broken
                said = f"; the clock stood still for {seen.still:.1f} s at most"
        where = f"{strategy}, {plural(workers, 'worker')}, {into}"
        print(f"{where}: {'broken' if broken else 'sound'}{said}", flush=True)
        print("".join(f"  {line}\n" for line in broken), end="", flush=True)
        bad += len(broken)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
