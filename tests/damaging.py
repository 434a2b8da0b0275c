"""Stored studies damaged at random: what tests and stress runs do to them."""

import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
import sys
import traceback
from pathlib import Path

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
TABLES = (
    *("studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials"),
    *("trial_user_attributes", "trial_system_attributes", "trial_params", "trial_values"),
    *("trial_intermediate_values", "alembic_version", "version_info"),
)


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
