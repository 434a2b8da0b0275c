"""`optnas storage serve`: a proxy before a database."""

import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
from servers import free_port

from optnas.storage.opening import open_storage
from optnas.storage.serving import serve
from optnas.storage.urls import StorageError

OPTNAS = str(Path(sys.executable).with_name("optnas"))


def test_a_database_is_answered_for_on_loopback(tmp_path):
    pytest.importorskip("grpc")
    url, port = f"sqlite:///{tmp_path / 'study.db'}", free_port()
    command = [OPTNAS, "storage", "serve", url, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert [server.stdout.readline(), server.stdout.readline()] == [
            f"serving {url}\n",
            f"storage: grpc://127.0.0.1:{port}\n",
        ]
        study = optuna.create_study(storage=open_storage(f"grpc://127.0.0.1:{port}"))
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
        params = [trial.params for trial in study.trials]
        listening = psutil.Process(server.pid).net_connections()
        places = {c.laddr.ip.removeprefix("::ffff:") for c in listening if c.status == "LISTEN"}
        assert places == {"127.0.0.1"}
        with pytest.raises(StorageError, match=f"127.0.0.1:{port}: Address already in use"):
            serve(url, host="127.0.0.1", port=port)
    finally:
        server.terminate()
        server.communicate()
    kept = optuna.load_study(study_name=study.study_name, storage=open_storage(url))
    assert [trial.params for trial in kept.trials] == params


@pytest.mark.parametrize("url", ["journal:///study.log", "grpc://127.0.0.1:13000"])
def test_databases_alone_are_served(url):
    with pytest.raises(StorageError, match="only databases can be served"):
        serve(url, host="127.0.0.1", port=free_port())


def test_another_machines_address_is_refused(tmp_path):
    with pytest.raises(StorageError, match=r"192\.0\.2\.77:13000: "):
        serve(f"sqlite:///{tmp_path / 'study.db'}", host="192.0.2.77", port=13000)
    assert not list(tmp_path.iterdir())
