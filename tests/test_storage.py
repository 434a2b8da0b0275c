"""Opening storages: what works at once from many processes, and what is refused in one line."""

import errno
import pickle
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock
from optuna.study import StudyDirection
from servers import free_port

from optnas.storage import opening as storage
from optnas.storage.opening import explained, open_storage
from optnas.storage.urls import StorageError, hide_password, reason_of, storage_file


def refusal(url: str, **options) -> str:
    with pytest.raises(StorageError) as caught:
        open_storage(url, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_files_are_created_and_opened_again(kind, tmp_path):
    url = f"{kind}:///{tmp_path}/study.file"
    study = optuna.create_study(study_name="kept", storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_int("x", 0, 9), n_trials=2)
    again = optuna.load_study(study_name="kept", storage=open_storage(url, create=False))
    assert [t.params for t in again.trials] == [t.params for t in study.trials]


@pytest.mark.parametrize(
    "change", [lambda storage: storage, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_sqlite_takes_the_write_lock_at_the_start(change, tmp_path):
    storage = change(open_storage(f"sqlite:///{tmp_path}/study.db"))
    with storage.engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000
        other = sqlite3.connect(tmp_path / "study.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_sqlite_is_read_while_somebody_writes(tmp_path):
    """Dashboards and waiting workers read all the time."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="one", storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    writer = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert len(study.get_trials()) == 2
    assert study.user_attrs == {}
    (summary,) = optuna.get_all_study_summaries(storage=study._storage)
    assert summary.n_trials == 2
    writer.close()


def test_a_dashboard_that_reads_all_the_while_disturbs_nobody(tmp_path):
    """Somebody else's dashboard, which opens the file as Optuna does."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="one", storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    dashboard = optuna_dashboard.wsgi(url)
    statuses: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            for page in ("/api/studies", f"/api/studies/{study._study_id}"):
                environ = {"PATH_INFO": page, "QUERY_STRING": "after=0"}
                setup_testing_defaults(environ)
                b"".join(dashboard(environ, lambda status, *_: statuses.add(status)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()

    def objective(trial: optuna.Trial) -> float:
        for step in range(5):
            trial.report(0.5, step)
        return trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=10)
    ended.set()
    for reader in readers:
        reader.join()
    assert statuses == {"200 OK"}
    assert len(study.trials) == 11


def test_many_processes_make_one_new_storage_and_study(tmp_path):
    """All at once: each holds its first step until the others have started."""
    url = f"sqlite:///{tmp_path}/study.db"
    code = f"""
        import sys, optuna
        from optnas.storage.opening import open_storage
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


@pytest.mark.parametrize("kind", ["postgresql+psycopg", "mysql+pymysql"])
@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("written", "shown"),
    [("me:s3cret@{}/db", "me:***@{}/db"), ("me@{}/db?password=s3cret", "me@{}/db?password=***")],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(kind, create, written, shown):
    pytest.importorskip(kind.partition("+")[2])
    host = f"127.0.0.1:{free_port()}"
    message = refusal(f"{kind}://{written.format(host)}", create=create)
    assert "s3cret" not in message
    assert f"{kind}://{shown.format(host)}" in message
    assert "refused" in message


def test_a_grpc_server_that_does_not_answer_is_refused(monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.setattr(storage, "GRPC_TIMEOUT", 0.2)
    assert "timeout" in refusal(f"grpc://127.0.0.1:{free_port()}")


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
        ("postgresql://me:s3%2Fcr%40et@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3cr@et@host:5/db", "postgresql://me:***@host:5/db"),
        (
            "postgresql://me@host/db?password=s3cret&sslmode=require",
            "postgresql://me@host/db?password=***&sslmode=require",
        ),
        (
            "postgresql:///db?sslpassword=s3cret&user=me",
            "postgresql:///db?sslpassword=***&user=me",
        ),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("not a url me:s3cret@host", "host"),
        ("postgresql://me:s3cret@host:port/db?password=s3cret", "host:port/db"),
    ],
)
def test_passwords_are_hidden(url, expected):
    assert hide_password(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:s3cret@host/db", "no s3cret here"),
        ("postgresql://me:s3%40cret@host/db", "no s3@cret here"),
        ("postgresql://me:s3%40cret@host/db", "no s3%40cret here"),
        ("postgresql://me@host/db?password=s3cret", "no s3cret here"),
        ("postgresql://me@host/db?password=s3%40cret", "no s3@cret here"),
        ("mysql://me@host/db?ssl_key_password=s3cret", "no s3cret here"),
    ],
)
def test_what_a_driver_says_is_told_without_the_password(url, said):
    assert reason_of(ValueError(f"{said}\nmore"), url) == "no *** here"
    with pytest.raises(StorageError) as caught, explained(url):
        raise ValueError(said)
    assert str(caught.value) == f"{hide_password(url)}: the storage cannot be used: no *** here"


def test_a_password_that_breaks_the_url_is_refused_with_advice():
    message = refusal("postgresql://me:s3cr@et@host/db")
    assert "%40" in message
    assert "s3cr" not in message
    assert "et@" not in message


def test_what_is_already_clear_is_left_as_it_is():
    with pytest.raises(StorageError) as caught, explained("sqlite:////a.db"):
        raise StorageError("already clear")
    assert str(caught.value) == "already clear"


@pytest.mark.parametrize(
    ("kind", "file_system", "advice"),
    [
        ("sqlite", "nfs4", "keep the file on a local disk"),
        ("sqlite", "cifs", "or use a database server"),
        ("sqlite", "fuse.sshfs", "or journal:///PATH"),
        ("journal", "fuse.sshfs", "or use a database server"),
    ],
)
def test_file_systems_that_lose_trials_are_refused(
    kind, file_system, advice, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "file_system", lambda path: file_system)
    message = refusal(f"{kind}:///{tmp_path}/study.file")
    assert file_system in message
    assert advice in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file_system", "lock"),
    [
        ("ext4", JournalFileSymlinkLock),
        ("nfs4", JournalFileSymlinkLock),
        ("cifs", JournalFileOpenLock),
    ],
)
def test_journals_are_locked_with_what_the_file_system_has(
    file_system, lock, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "file_system", lambda path: file_system)
    opened = open_storage(f"journal:///{tmp_path}/study.log")
    assert type(opened._backend._lock.lock) is lock


def test_a_lock_of_a_journal_that_cannot_be_released_costs_nothing(tmp_path, monkeypatch):
    """What was written is written; the next writer waits until the lock is an old one."""
    opened = open_storage(f"journal:///{tmp_path}/study.log")

    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr("optuna.storages.journal._file.os.rename", fail)
        opened.create_new_study([StudyDirection.MAXIMIZE], "one")
    again = open_storage(f"journal:///{tmp_path}/study.log")
    assert [study.study_name for study in again.get_all_studies()] == ["one"]


def test_a_journal_whose_last_line_was_cut_off_goes_on(tmp_path):
    url = f"journal:///{tmp_path}/study.log"
    study = optuna.create_study(study_name="one", storage=open_storage(url))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with (tmp_path / "study.log").open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"and then the disk was f')
    again = optuna.load_study(study_name="one", storage=open_storage(url))
    again.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    for seen in (study, again, optuna.load_study(study_name="one", storage=open_storage(url))):
        assert [trial.number for trial in seen.trials] == [0, 1, 2, 3]
        assert all(trial.state.is_finished() for trial in seen.trials)


def test_a_new_database_is_opened_while_another_process_writes_to_it(tmp_path, monkeypatch):
    """It still has its first journal mode then, and a switch does not wait by itself."""
    url, waits = f"sqlite:///{tmp_path}/new.db", []
    optuna.storages.RDBStorage(url)
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    def end_the_write(seconds: float) -> None:
        waits.append(seconds)
        if other.in_transaction:
            other.execute("ROLLBACK")

    monkeypatch.setattr("optnas.storage.retrying.time.sleep", end_the_write)
    optuna.create_study(storage=open_storage(url))
    assert waits
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
