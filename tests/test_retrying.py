"""Storages of many workers: servers that go away, transactions that collide, answers lost."""

import contextlib
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from servers import free_port

from optnas.samplers import MacroMicroSampler
from optnas.spaces import ChainSpace
from optnas.storage import opening as storage
from optnas.storage import retrying as patient_storage
from optnas.storage.opening import open_storage
from optnas.storage.retrying import Outage, PatientDatabase, StorageGone

SPACE = ChainSpace(depth=(2, 4), width=(4, 6))


def new_study(storage: BaseStorage) -> optuna.Study:
    sampler = MacroMicroSampler(SPACE, in_channels=1, classes=3, patience=0.5)
    return optuna.create_study(
        study_name="one",
        storage=storage,
        sampler=sampler,
        direction="maximize",
        load_if_exists=True,
    )


def accuracy(trial: optuna.Trial) -> float:
    architecture = SPACE.suggest(trial)
    epochs = trial.suggest_int("epochs", 1, 100)
    trial.report(0.5, step=1)
    trial.set_user_attr("train_accuracy", 0.9)
    return 0.5 + 0.02 * architecture.depth + 0.01 * architecture.width - 0.1 / epochs


def results(study: optuna.Study) -> list[tuple]:
    return [
        (t.params, t.state, t.value, t.intermediate_values, t.user_attrs) for t in study.trials
    ]


@pytest.fixture(scope="module")
def undisturbed() -> optuna.Study:
    study = new_study(optuna.storages.InMemoryStorage())
    study.optimize(accuracy)
    return study


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.mark.filterwarnings("ignore:.*trying again")
def test_a_search_goes_on_when_its_server_was_away(undisturbed, server):
    study = new_study(open_storage(server.new_database()))
    some_are_done = threading.Event()

    def objective(trial: optuna.Trial) -> float:
        if trial.number >= 3:
            some_are_done.set()
        return accuracy(trial)

    worker = threading.Thread(target=study.optimize, args=(objective,))
    worker.start()
    some_are_done.wait()
    server.stop()
    time.sleep(3.0)
    assert worker.is_alive()
    server.start()
    worker.join()
    assert results(study) == results(undisturbed)


def test_a_server_that_stays_away_is_given_up_in_one_line(postgresql, postgresql_url, monkeypatch):
    monkeypatch.setattr(patient_storage, "PATIENCE", 0.2)
    storage = open_storage(postgresql_url.replace("optnas@", "optnas:s3cret@"))
    study = optuna.create_study(storage=storage)
    postgresql.stop("immediate")
    try:
        for _ in range(2):  # The second time nobody waits again.
            with pytest.raises(StorageGone, match=r"no answer for 0 seconds; ") as caught:
                study.set_user_attr("a", 1)
            assert "s3cret" not in str(caught.value)
            assert "\n" not in str(caught.value)
    finally:
        postgresql.start()
    study.set_user_attr("a", 2)
    assert study.user_attrs == {"a": 2}


@pytest.mark.parametrize(("query", "seconds"), [("", "30"), ("?keepalives_idle=7", "7")])
def test_a_server_that_is_gone_without_a_word_is_noticed(postgresql_url, query, seconds):
    storage = open_storage(postgresql_url + query)
    with storage.engine.connect() as connection:
        options = connection.connection.driver_connection.info.get_parameters()
    assert options["keepalives_idle"] == seconds
    assert options["connect_timeout"] == "10"


def test_a_server_without_a_free_connection_is_waited_for(postgresql_url):
    import psycopg

    url = postgresql_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        name = url.rpartition("/")[2]
        connection.execute(f"CREATE ROLE few_{name} LOGIN CONNECTION LIMIT 3")
        connection.execute(f"ALTER DATABASE {name} OWNER TO few_{name}")
    with contextlib.ExitStack() as taken:
        for _ in range(3):
            taken.enter_context(psycopg.connect(url.replace("optnas@", f"few_{name}@")))
        timer = threading.Timer(1.0, taken.pop_all().close)
    timer.start()
    storage = open_storage(postgresql_url.replace("optnas@", f"few_{name}@"))
    assert storage.get_all_studies() == []
    timer.join()


@contextlib.contextmanager
def proxy(port: int, url: str) -> Iterator[None]:
    code = f"""
        from optuna.storages import run_grpc_proxy_server
        from optnas.storage.opening import open_storage
        run_grpc_proxy_server(open_storage({url!r}), host="127.0.0.1", port={port})
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.kill()


@pytest.mark.filterwarnings("ignore:.*trying again")
def test_a_proxy_that_restarts_is_waited_for(tmp_path, monkeypatch):
    pytest.importorskip("grpc")
    monkeypatch.setattr(storage, "GRPC_TIMEOUT", 60.0)
    port, url = free_port(), f"sqlite:///{tmp_path}/study.db"
    with proxy(port, url):
        study = optuna.create_study(storage=open_storage(f"grpc://127.0.0.1:{port}"))
        trial = study.ask()
    writer = threading.Thread(target=study.tell, args=(trial, 1.0))
    writer.start()
    with proxy(port, url):
        writer.join()
        assert study.trials[0].value == 1.0


def test_many_processes_make_the_tables_of_a_new_database(server):
    url = server.new_database()
    code = f"""
        import sys, optuna
        from optnas.storage.opening import open_storage
        print("ready", flush=True)
        sys.stdin.readline()
        storage = open_storage({url!r})
        optuna.create_study(study_name="one", storage=storage, load_if_exists=True).ask()
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
    assert [trial.number for trial in study.trials] == list(range(4))


def test_a_pickled_storage_goes_on(server):
    storage = open_storage(server.new_database())
    optuna.create_study(study_name="one", storage=storage)
    again = pickle.loads(pickle.dumps(storage))
    study = optuna.load_study(study_name="one", storage=again)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study.trials) == 2


class Failures:
    """Has commits fail, before or after they are done, on any database."""

    def __init__(self, storage: RDBStorage, when: str) -> None:
        self.left = 0
        self._is_late = when == "after_commit"
        dialect = storage.engine.dialect
        self._commit = dialect.do_commit
        dialect.do_commit = self._fail

    def _fail(self, connection) -> None:
        if self.left <= 0 or self._is_late:
            self._commit(connection)
        if self.left > 0:
            self.left -= 1
            raise sqlalchemy.exc.OperationalError("COMMIT", {}, Exception("connection lost"))


WRITES = {
    "study attribute": lambda s, study, trial: s.set_study_user_attr(study, "a", [1]),
    "study system attribute": lambda s, study, trial: s.set_study_system_attr(study, "a", [1]),
    "trial attribute": lambda s, study, trial: s.set_trial_user_attr(trial, "a", [1]),
    "trial system attribute": lambda s, study, trial: s.set_trial_system_attr(trial, "a", [1]),
    "report": lambda s, study, trial: s.set_trial_intermediate_value(trial, 3, 0.5),
    "parameter": lambda s, study, trial: s.set_trial_param(
        trial, "x", 0.5, FloatDistribution(0, 1)
    ),
    "result": lambda s, study, trial: s.set_trial_state_values(trial, TrialState.COMPLETE, [0.5]),
    "failure": lambda s, study, trial: s.set_trial_state_values(trial, TrialState.FAIL),
}


@pytest.mark.parametrize("when", ["before_commit", "after_commit"])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_whose_commit_fails_is_done_once(write, when, tmp_path):
    storage = PatientDatabase(f"sqlite:///{tmp_path}/study.db")
    failures = Failures(storage, when)
    cached = optuna.storages.get_storage(storage)
    study = cached.create_new_study([StudyDirection.MAXIMIZE], "one")
    expected, trial = cached.create_new_trial(study), cached.create_new_trial(study)
    WRITES[write](cached, study, expected)
    failures.left = 1
    WRITES[write](cached, study, trial)
    assert failures.left == 0
    one, other = cached.get_all_trials(study)
    for name in ("params", "user_attrs", "system_attrs", "intermediate_values", "state", "values"):
        assert getattr(one, name) == getattr(other, name)


def test_an_outage_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(patient_storage, "LONGEST_PAUSE", 0.0)
    storage = PatientDatabase(f"sqlite:///{tmp_path}/study.db")
    failures = Failures(storage, "before_commit")
    for _ in range(2):
        failures.left = 10
        with pytest.warns(UserWarning, match="connection lost") as told:
            assert storage.get_all_studies() == []
        (warning,) = told
        assert str(warning.message).endswith("connection lost; trying again for 300 seconds.")


def test_what_others_read_does_not_hide_what_one_cannot_write(monkeypatch):
    """As on a full disk, where one of several threads waits and the others go on."""
    monkeypatch.setattr(patient_storage, "PATIENCE", 0.05)
    outage: Outage = pickle.loads(pickle.dumps(Outage("sqlite:///study.db")))

    def fails() -> None:
        while True:
            outage.lasts(ConnectionError("away"))
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(fails)
        until = time.monotonic() + 30
        while not failed.done() and time.monotonic() < until:
            outage.is_over()
        assert time.monotonic() < until
        with pytest.raises(StorageGone, match=r"study\.db: away: no answer"):
            failed.result()


def test_results_of_others_are_not_taken_for_ones_own(tmp_path):
    storage = PatientDatabase(f"sqlite:///{tmp_path}/study.db")
    trial = storage.create_new_trial(storage.create_new_study([StudyDirection.MAXIMIZE], "one"))
    storage.set_trial_state_values(trial, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    assert storage.get_trial(trial).state == TrialState.FAIL


def test_mistakes_are_not_tried_again(tmp_path):
    storage = PatientDatabase(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(KeyError):
        storage.get_trial(7)
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "one")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        storage.create_new_study([StudyDirection.MAXIMIZE], "one")
    assert storage.get_study_id_from_name("one") == study


def test_a_trial_whose_making_was_not_answered_does_not_stop_the_search(
    undisturbed, tmp_path, monkeypatch
):
    """It runs without a worker: the others wait for it no longer than for the dead."""
    storage = PatientDatabase(f"sqlite:///{tmp_path}/study.db")
    failures = Failures(storage, "after_commit")
    study = new_study(storage)
    study.optimize(accuracy, n_trials=3)
    make = storage._get_prepared_new_trial

    def make_without_answer(*args):
        failures.left = 1
        monkeypatch.undo()
        return make(*args)

    monkeypatch.setattr(storage, "_get_prepared_new_trial", make_without_answer)
    study.optimize(accuracy)
    assert study.trials[3].state == TrialState.FAIL
    kept = [row for row, trial in zip(results(study), study.trials, strict=True) if trial.values]
    assert kept == results(undisturbed)
