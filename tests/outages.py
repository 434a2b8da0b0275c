"""Searches of real workers whose storage is locked, away or full for a while, in real time."""

import contextlib
import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import killing
import psutil
from servers import PostgreSQL

from optnas.errors import RunError, UserError
from optnas.study.opening import counted_trials, open_existing

STUDY = killing.STUDIES["macro-micro"]
OPTNAS = str(Path(sys.executable).with_name("optnas"))
WORKERS = 3
MEGABYTE = 1 << 20

Disturb = Callable[[psutil.Process], None]


@dataclasses.dataclass(frozen=True)
class Survived:
    """A search that went on through an outage.

    Args:
        ended: How it ended.
        runs: How often the command was given.
        said: The last line of a run that ended early, or of what the only one said.
    """

    ended: killing.Ended
    runs: int
    said: str


def locked(folder: Path, seconds: float) -> Survived:
    """Another process holds sqlite's lock, as a backup does."""

    def disturb(_process: psutil.Process) -> None:
        database = sqlite3.connect(folder / "killed.db", isolation_level=None, timeout=60)
        with contextlib.closing(database) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    return _search(_study_file(folder, STUDY), disturb)


def away(folder: Path, seconds: float) -> Survived:
    """PostgreSQL is stopped; a worker is killed meanwhile, and another takes its place."""
    server = PostgreSQL()
    try:
        text = f"{STUDY}storage: {server.new_database()}\n"

        def disturb(process: psutil.Process) -> None:
            server.stop("immediate")
            time.sleep(seconds / 4)
            _workers(process)[0].send_signal(signal.SIGKILL)
            time.sleep(seconds * 3 / 4)
            server.start()

        return _search(_study_file(folder, text), disturb)
    finally:
        server.remove()


def full(folder: Path, seconds: float, kind: str) -> Survived:
    """The disk of storage and artifacts, a small one of its own, is full."""
    disk = folder / "disk"
    disk.mkdir()
    with _small_disk(disk):
        name = "killed.db" if kind == "sqlite" else "killed.log"
        text = f"{STUDY}storage: {kind}:///{disk}/{name}\nartifacts: {disk}/artifacts\n"

        def disturb(_process: psutil.Process) -> None:
            _fill(disk / "filler")
            time.sleep(seconds)
            (disk / "filler").unlink()

        return _search(_study_file(folder, text), disturb)


def _search(file: Path, disturb: Disturb) -> Survived:
    """Run a search by its command until it is done, and disturb it once it has begun.

    Raises:
        killing.Wrong: If a run ends otherwise than with exit code 0, or with 1 and one line.
    """
    start, runs, said = time.monotonic(), 0, ""
    command = [OPTNAS, "run", str(file), "--json", "--workers", str(WORKERS)]
    while True:
        runs += 1
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if runs == 1:
            _wait_until_begun(file, process)
            disturb(psutil.Process(process.pid))
        _, err = process.communicate()
        said = err.strip().rpartition("\n")[2] or said
        if process.returncode == 0:
            return Survived(killing.ended(file, time.monotonic() - start), runs, said)
        if process.returncode != 1 or "Traceback" in err or "nothing is lost" not in said:
            raise killing.Wrong(f"{file}: exit code {process.returncode}: {err}")
        if runs > 3:
            raise killing.Wrong(f"{file}: does not go on: {err}")


def _wait_until_begun(file: Path, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        with contextlib.suppress(UserError, RunError):
            if len(counted_trials(open_existing(str(file)).study)) >= 2:
                return
        time.sleep(0.2)
    raise killing.Wrong(f"{file}: ended before it was disturbed: {process.communicate()}")


def _workers(process: psutil.Process) -> list[psutil.Process]:
    """Its worker processes: not what multiprocessing has beside them."""
    children = process.children()
    random.Random(0).shuffle(children)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of 16 MB.

    Raises:
        FileNotFoundError: If this user may not mount one.
    """
    if os.getuid() != 0:
        raise FileNotFoundError("mounting a small disk needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(file: Path) -> None:
    """Fill a disk to the last byte."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        for size in (MEGABYTE, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))


def _study_file(folder: Path, text: str) -> Path:
    path = folder / "killed.yaml"
    path.write_text(text)
    return path
