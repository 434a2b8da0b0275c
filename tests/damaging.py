"""Stored studies damaged at random: what tests and stress runs do to them."""

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

HOSTILE = (
    *(
        None,
        "",
        "{}",
        "[]",
        "null",
        "true",
        '"x"',
        "-1",
        "1e999",
        "NaN",
        "{",
        "9" * 400,
        "[" * 9000,
    ),
    *('"\\u001b]52;c;ZXZpbA==\\u0007"', '"\\ud800"', '{"index": "a", "params": []}'),
    *(-1, 99, 1 << 62, -(1 << 62), 1.5, float("inf"), b"\xff\xfe\x00", "../../../etc/passwd"),
    *('{"name": "evil:Evil"}', "RUNNING", "COMPLETE", "WAITING", "FAIL", "sideways"),
)
JSON = (
    *(None, True, -1, 1.5, 10**400, "", "x", "../x", "\x1b[2J", [], {}, [[[]]], {"a": {}}),
    *({"index": -1, "params": {}}, {"host": 1}, {"id": "thesis.tex"}, [1, "a"], float("nan")),
)
KEYS = (
    *("optnas:claim", "optnas:lease", "optnas:checkpoint", "optnas:rung", "fixed_params"),
    *(
        "continues",
        "phase",
        "parent",
        "failure",
        "failure_reason",
        "architecture",
        "epochs_trained",
    ),
    *("epochs_trained", "train_seconds", "multiply_adds", "schedule_epochs", "accumulation"),
    *(
        "train_accuracy",
        "edge_weights",
        "operation_weights",
        "stage_importance",
        "params",
        "training_seed",
    ),
)
CODE = (
    *("evil:Evil", "evil", "os:system", "os:abort", {"name": "evil:Evil"}, {"name": "os:abort"}),
    *("sqlite:////etc/passwd", "/etc", "..", "sideways", 1 << 62, 10**6, [10**6, 10**6]),
)
"""What names code or paths."""
FOREIGN = ("thesis.tex", "evil.py")
"""Files beside a study that are not its own."""
RAN = "ran"
"""A file that is there if code was run."""
TABLES = (
    *("studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials"),
    *("trial_user_attributes", "trial_system_attributes", "trial_params", "trial_values"),
    *("trial_intermediate_values", "alembic_version", "version_info"),
)


BAD_INPUT = 2
"""An exit code."""


def damage_rows(database: Path, rng: random.Random) -> str:
    """Put something hostile into a field of a database, or delete a row; says which."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        table = rng.choice(TABLES)
        rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table}")]
        if not rows:
            return f"{table} is empty"
        row = rng.choice(rows)
        if rng.random() < 0.1:
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
            connection.commit()
            return f"{table} {row} deleted"
        columns = [c[1] for c in connection.execute(f"PRAGMA table_info({table})") if not c[5]]
        column, value = rng.choice(columns), rng.choice(HOSTILE)
        with contextlib.suppress(sqlite3.Error, OverflowError):
            connection.execute(f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (value, row))
        connection.commit()
        return f"{table} {row} {column} = {str(value)[:40]!r}"


def damage_attribute(database: Path, rng: random.Random) -> str:
    """Give a trial an attribute of ours that nobody of us would write."""
    key, value = rng.choice(KEYS), json.dumps(rng.choice(JSON))
    kind = "system" if ":" in key or key == "fixed_params" else "user"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        trial = rng.choice([t for (t,) in connection.execute("SELECT trial_id FROM trials")])
        connection.execute(
            f"INSERT OR REPLACE INTO trial_{kind}_attributes (trial_id, key, value_json) "
            "VALUES (?, ?, ?)",
            (trial, key, value),
        )
        connection.commit()
    return f"trial {trial} {key} = {value[:40]}"


def damage_bytes(file: Path, rng: random.Random) -> str:
    """Change, cut or double some bytes of a file."""
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    how = rng.choice(("flip", "cut", "double", "fill"))
    if how == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del content[place:]
    elif how == "double":
        content[place:place] = content[place : place + 200]
    else:
        content[place : place + 16] = rng.randbytes(16)
    file.write_bytes(content)
    return f"{file.name}: {how} at {place}"


def damage_lines(journal: Path, rng: random.Random) -> str:
    """Put something hostile into a line of a journal, or take, double or exchange lines."""
    lines = journal.read_text().splitlines()
    place, how = rng.randrange(len(lines)), rng.choice(("value", "value", "value", "take", "turn"))
    if how == "take":
        del lines[place]
    elif how == "turn":
        lines[place], lines[place - 1] = lines[place - 1], lines[place]
    else:
        lines[place], how = _with_hostile(json.loads(lines[place]), rng)
    journal.write_text("".join(f"{line}\n" for line in lines), errors="surrogatepass")
    return f"{journal.name}: line {place}: {how}"


def damage_record(database: Path, rng: random.Random) -> str:
    """Put something hostile anywhere into what is stored of the study."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT rowid, value_json FROM study_user_attributes WHERE length(value_json) > 300"
        )
        row, value = connection.execute(query).fetchone()
        value, how = _with_hostile(json.loads(value), rng)
        update = "UPDATE study_user_attributes SET value_json = ? WHERE rowid = ?"
        connection.execute(update, (value, row))
        connection.commit()
    return f"the record: {how}"


def damage_either(database: Path, rng: random.Random) -> str:
    """Damage an attribute of a trial, or of the study."""
    return (damage_record if rng.random() < 0.3 else damage_attribute)(database, rng)


def damage_folder(folder: Path, rng: random.Random) -> str:
    """Damage, replace or remove one of the files in a folder."""
    file = rng.choice(sorted(path for path in folder.iterdir() if path.name not in FOREIGN))
    how = rng.choice(("bytes", "bytes", "value", "gone", "empty", "pickle", "folder", "link"))
    if how == "bytes":
        return damage_bytes(file, rng)
    if how == "value" and file.suffix == ".json":
        value, what = _with_hostile(json.loads(file.read_text()), rng)
        file.write_text(value, errors="surrogatepass")
        return f"{file.name}: {what}"
    file.unlink()
    if how in ("empty", "value"):
        file.touch()
    elif how == "pickle":
        file.write_bytes(pickle.dumps(Bomb(folder.parent / RAN)))
    elif how == "folder":
        file.mkdir()
    elif how == "link":
        file.symlink_to(folder.parent / "thesis.tex")
    return f"{file.name}: {how}"


class Bomb:
    """Whoever unpickles it runs code, and leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return open, (str(self._file), "w")


def _with_hostile(document: Any, rng: random.Random) -> tuple[str, str]:
    """A JSON document with something hostile somewhere in it, and what."""
    holder, key = rng.choice(list(_places(document)))
    value = rng.choice((*JSON, *CODE))
    if rng.random() < 0.15 and isinstance(holder, dict):
        del holder[key]
        return json.dumps(document), f"{key} taken away"
    holder[key] = value
    return json.dumps(document), f"{key} = {str(value)[:40]!r}"


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Everything in a document, as its holder and its key there."""
    items: Any = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def command(*arguments: str) -> tuple[int, str, str | None]:
    """A command of optnas in this process: its exit code, what it printed, and any traceback."""
    from optnas.cli import main

    said, argv = io.StringIO(), sys.argv
    sys.argv = ["optnas", *arguments]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue(), None
    except Exception:
        return 1, said.getvalue(), traceback.format_exc()
    finally:
        sys.argv = argv
    return 0, said.getvalue(), None


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        os.path.relpath(path, folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fresh(source: Path, target: Path) -> Path:
    """A copy of a study's folder in place of the last one."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


NAPS = """\
study: ward
space: cell
sampler: {name: econas, initial: 4}
objective: {name: "napping:Nap", seconds: 0}
budget: {trials: 5}
"""
TRAINED = """\
study: ward
space: {name: growth, cells: 1, channels: 4}
sampler: {name: randgrow, increments: 1}
data: {name: digits, classes: [0, 1], samples: 0.2}
train: {lr: 0.1, epochs: 1, initial_epochs: 1}
checkpoint: {keep: all}
budget: {trials: 3}
retrain: {epochs: 1}
"""
COMMANDS = (
    ("status",),
    ("best", "--json"),
    ("doctor",),
    ("report", "--no-inference"),
    ("run",),
)
MUTATIONS: dict[str, tuple[str, str, Callable[[Path, random.Random], str]]] = {
    "rows": ("naps", "ward.db", damage_rows),
    "bytes": ("naps", "ward.db", damage_bytes),
    "journal bytes": ("journal", "ward.log", damage_bytes),
    "journal lines": ("journal", "ward.log", damage_lines),
    "attributes": ("naps", "ward.db", damage_either),
    "artifacts": ("trained", "ward.artifacts", damage_folder),
    "network": ("trained", "ward.network", damage_folder),
}
"""By name: of which study, which of its files, and what is done to it."""


def prepare(folder: Path) -> None:
    """Make the studies that are damaged, with files beside them that are nobody's business."""
    texts = {"naps": NAPS, "journal": NAPS + "storage: journal:///ward.log\n", "trained": TRAINED}
    for name, text in texts.items():
        place = folder / name
        place.mkdir()
        shutil.copy(Path(__file__).parents[1] / "benchmarks" / "napping.py", place)
        (place / "ward.yaml").write_text(text)
        for verb in ("run", "retrain") if name == "trained" else ("run",):
            code, said, trace = command(verb, str(place / "ward.yaml"))
            assert code == 0, (said, trace)
        # There is something left to do.
        more = text.replace("trials: 5", "trials: 6").replace("trials: 3", "trials: 4")
        (place / "ward.yaml").write_text(more)
        for below in (place, *(path for path in place.iterdir() if path.is_dir())):
            (below / "thesis.tex").write_text("years of work")
        (place / "evil.py").write_text(f"open({RAN!r}, 'w')\n\nclass Evil: pass\n")


def mutate(kind: str, number: int, source: Path, target: Path) -> list[str]:
    """Damage a copy of a study, give every command a look at it, and say what was wrong.

    Args:
        kind: One of ``MUTATIONS``.
        number: Which mutation of that kind.
        source: Where ``prepare`` made the studies.
        target: Where the copy is made.
    """
    study, name, damage = MUTATIONS[kind]
    folder = fresh(source / study, target)
    (folder / RAN).unlink(missing_ok=True)
    harm = f"{kind} {number}: {damage(folder / name, random.Random(f'{kind} {number}'))}"
    foreign = {n: c for n, c in contents(folder).items() if Path(n).name in FOREIGN}
    wrong, before = [], _finished(folder / name)
    with contextlib.chdir(folder):
        for verb, *options in COMMANDS:
            wrong += _look(harm, verb, "ward.yaml", *options)
            wrong += [f"{harm}: {verb}: a trial is gone"] * (
                not before <= _finished(folder / name)
            )
        if kind == "network":
            wrong += _load(harm, folder / name)
    if (folder / RAN).exists():
        wrong.append(f"{harm}: code was run")
    if foreign != {n: c for n, c in contents(folder).items() if Path(n).name in FOREIGN}:
        wrong.append(f"{harm}: a foreign file was touched")
    return wrong


def impatient() -> contextlib.AbstractContextManager[Any]:
    """Damage is no outage: whoever waits inside for it to pass is done in a moment."""
    stack = contextlib.ExitStack()
    for name in ("storage.retrying.PATIENCE", "storage.retrying.FULL_PATIENCE"):
        stack.enter_context(mock.patch(f"optnas.{name}", 0.2))
    stack.enter_context(mock.patch("optnas.running.loop.PATIENCE", 0.2))
    stack.enter_context(mock.patch("optnas.study.record.MAKING", 0.2))
    return stack


def _look(harm: str, verb: str, *arguments: str) -> Iterator[str]:
    code, said, trace = command(verb, *arguments)
    if trace is not None or "Traceback" in said:
        yield f"{harm}: {verb}: {trace or said}"
    elif code not in (0, 1, 2):
        yield f"{harm}: {verb}: exit code {code}: {said}"
    elif code == BAD_INPUT and not said.strip():
        yield f"{harm}: {verb}: no word"
    if "\x1b" in said:
        yield f"{harm}: {verb}: escape sequences"


def _load(harm: str, network: Path) -> Iterator[str]:
    import optnas

    try:
        optnas.load(network)
    except (ValueError, OSError) as error:
        if type(error).__name__ not in ("UserError", "OSError", "FileNotFoundError"):
            yield f"{harm}: load: {traceback.format_exc()}"
    except Exception:
        yield f"{harm}: load: {traceback.format_exc()}"


def _finished(file: Path) -> set[tuple[Any, ...]]:
    """The finished trials in a database, or the whole lines of a journal."""
    if file.suffix == ".log":
        return {(line,) for line in file.read_bytes().splitlines(keepends=True) if b"\n" in line}
    database = file.with_name("ward.db")
    states = "('COMPLETE', 'PRUNED')"
    query = f"SELECT trial_id, number, state FROM trials WHERE state IN {states}"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        try:
            return set(connection.execute(query))
        except sqlite3.Error:  # Damaged.
            return set()
