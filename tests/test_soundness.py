"""Damage of a database is told at once, and in one line; a lock is no damage."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from damaging import command

from optnas.storage.soundness import damage_of_file, read_beside_sqlite

PAGE = 4096


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - PAGE - 1)


def without_its_end(path: Path) -> None:
    os.truncate(path, 50)


def text(path: Path) -> None:
    path.write_text("study: digits\nspace: cell\n")


def encrypted(path: Path) -> None:
    path.write_bytes(bytes(range(255, 0, -1)) * 100)


def noise(begin: int, end: int) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(begin)
            file.write(bytes(i * 37 % 256 for i in range(end - begin)))

    return harm


def no_text(path: Path) -> None:
    content = path.read_bytes()
    assert b"CREATE TABLE trials" in content
    path.write_bytes(content.replace(b"CREATE TABLE trials", b"CREATE \xcb\xcbBLE trials"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = {
    "cut off": (cut_off, "cut off"),
    "almost nothing": (without_its_end, "damaged"),
    "a text": (text, "is a text, not a database"),
    "encrypted": (encrypted, "encrypted, or a file of another kind"),
    "header": (noise(16, 60), "damaged"),
    "schema": (noise(100, PAGE - 96), "damaged"),
    "no text in the schema": (no_text, "the schema is no UTF-8"),
    "pages": (noise(2 * PAGE, 30 * PAGE), "damaged"),
    "a folder": (folder, "is a folder"),
}


@pytest.fixture
def database(tmp_path) -> Path:
    import optuna

    path = tmp_path / "my studies.db"
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{path}")
    study.add_trials([optuna.create_trial(value=0.5, user_attrs={"a": "b" * 5000})] * 30)
    study._storage._backend.engine.dispose()
    return path


@pytest.mark.parametrize("verb", ["status", "doctor"])
@pytest.mark.parametrize("harm", HARMS)
def test_damage_is_told_in_one_line(database, harm, verb):
    apply, words = HARMS[harm]
    apply(database)
    assert words in str(damage_of_file(database))
    code, said, trace = command(verb, f"sqlite:///{database}", "s")
    assert (code, trace) == (2, None), said
    assert words in said
    assert said.count("\n") == 1


def test_a_sound_file_is_no_damage_though_it_is_locked(database):
    assert damage_of_file(database) is None
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    assert damage_of_file(database) is None
    connection.close()


def test_a_file_whose_end_is_in_its_log_is_no_damage(tmp_path):
    """A full disk lets a checkpoint write the beginning of a file, but no more pages to it."""
    path = tmp_path / "study.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.execute("INSERT INTO t VALUES (zeroblob(20000))")
    reader = sqlite3.connect(path, isolation_level=None)
    log = path.with_name(path.name + "-wal").read_bytes()
    first = log.index(b"SQLite format 3\0")  # The first page, which knows of all the others.
    with path.open("r+b") as file:
        file.write(log[first : first + PAGE])
    assert int.from_bytes(path.read_bytes()[28:32], "big") * PAGE > path.stat().st_size
    assert damage_of_file(path) is None
    assert reader.execute("SELECT length(x) FROM t").fetchone() == (20000,)
    reader.close()
    writer.close()


def test_a_new_file_is_no_damage(tmp_path):
    path = tmp_path / "new.db"
    assert damage_of_file(path) is None
    path.touch()
    assert damage_of_file(path) is None


def test_looking_at_a_file_leaves_this_process_its_locks(tmp_path):
    path = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as mine:
        mine.execute("PRAGMA journal_mode=WAL")
        mine.execute("CREATE TABLE t (x)")
        assert damage_of_file(path) is None
        # The last to close a database deletes its log: somebody else must see that he is not.
        count = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        count += "print(c.execute('SELECT count(*) FROM t').fetchone()[0]); c.close()"
        look = [sys.executable, "-c", count, str(path)]
        for number in range(3):
            found = subprocess.run(look, capture_output=True, text=True, check=True).stdout
            assert int(found) == number
            mine.execute("INSERT INTO t VALUES (1)")


def test_another_file_in_its_place_is_read_anew(tmp_path):
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"first")
    assert read_beside_sqlite(path, 1, 9) == b"irst"
    other.write_bytes(b"second")
    other.replace(path)
    assert read_beside_sqlite(path, 1, 9) == b"econd"
