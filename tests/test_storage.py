"""Opening storages: what works at once from many processes, and what is refused in one line."""

import socket
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest

from optnas.storage import (
    StorageError,
    check_folder,
    explained,
    hide_password,
    open_artifacts,
    open_storage,
    storage_file,
)


def refusal(url: str, **options) -> str:
    with pytest.raises(StorageError) as caught:
        open_storage(url, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_files_are_created_and_opened_again(kind, tmp_path):
    url = f"{kind}:///{tmp_path}/study.file"
    study = optuna.create_study(study_name="kept", storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 9), n_trials=2)
    again = optuna.load_study(study_name="kept", storage=open_storage(url, create=False))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]


def test_sqlite_takes_the_write_lock_at_the_start(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    with storage.engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        other = sqlite3.connect(tmp_path / "study.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_many_processes_make_one_new_storage_and_study(tmp_path):
    """All at once: each holds its first step until the others have started."""
    url = f"sqlite:///{tmp_path}/study.db"
    code = f"""
        import sys, optuna
        from optnas.storage import open_storage
        print("ready", flush=True)
        sys.stdin.readline()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            study_name="one", storage=open_storage({url!r}), load_if_exists=True
        )
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate()
    assert [worker.returncode for worker in workers] == [0] * 4
    study = optuna.load_study(study_name="one", storage=open_storage(url))
    assert [t.number for t in study.trials] == list(range(20))
    assert all(t.state.is_finished() for t in study.trials)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_asking_creates_no_file(kind, tmp_path):
    assert "there is no such file" in refusal(f"{kind}:///{tmp_path}/study.db", create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_missing_folder_is_not_made(kind, tmp_path):
    message = refusal(f"{kind}:///{tmp_path}/missing/study.db")
    assert f"the folder {tmp_path}/missing does not exist" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_folder_is_no_storage(kind, tmp_path):
    assert str(tmp_path) in refusal(f"{kind}:///{tmp_path}")
    assert not list(tmp_path.iterdir())


def test_other_files_are_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("Not a database, but long enough to look at as one. " * 10)
    before = path.read_bytes()
    assert "not a database" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before
    refusal(f"journal:///{path}")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("create", [True, False])
def test_a_server_that_does_not_answer_is_named_without_its_password(create):
    port = closed_port()
    url = f"postgresql+psycopg://me:s3cret@127.0.0.1:{port}/db"
    message = refusal(url, create=create)
    assert "s3cret" not in message
    assert f"postgresql+psycopg://me:***@127.0.0.1:{port}/db" in message
    assert "refused" in message


def test_a_grpc_server_that_does_not_answer_is_refused():
    refusal(f"grpc://127.0.0.1:{closed_port()}")


def test_a_driver_that_is_not_installed_is_named():
    assert "pymssql" in refusal("mssql+pymssql://me:s3cret@127.0.0.1/db")


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "what://ever/x"])
def test_what_is_no_storage_is_refused(url):
    assert url in refusal(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////a/b.db", Path("/a/b.db")),
        ("journal:////a/b.log", Path("/a/b.log")),
        ("postgresql://host/db", None),
        ("grpc://host:1", None),
    ],
)
def test_the_file_behind_a_url(url, expected):
    assert storage_file(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:s3cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("not a url me:s3cret@host", "host"),
    ],
)
def test_passwords_are_hidden(url, expected):
    assert hide_password(url) == expected


def test_what_goes_wrong_later_is_explained_in_one_line():
    with pytest.raises(StorageError) as caught, explained("postgresql://me:s3cret@host/db"):
        raise ValueError("the password s3cret was refused\nand more")
    assert str(caught.value) == (
        "postgresql://me:***@host/db: the storage cannot be used: the password *** was refused"
    )
    with pytest.raises(StorageError) as caught, explained("sqlite:////a.db"):
        raise StorageError("already clear")
    assert str(caught.value) == "already clear"


def test_a_place_that_cannot_hold_a_folder_is_refused_and_nothing_made(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(StorageError, match="file is not a folder"):
            check_folder(tmp_path / place)
    check_folder(tmp_path / "new" / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    open_artifacts(tmp_path / "new" / "folder")
    check_folder(tmp_path / "new" / "folder")
