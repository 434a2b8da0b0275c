"""What several test modules share."""

import importlib.util
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, settings
from servers import MariaDB, PostgreSQL

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"

optuna.logging.set_verbosity(optuna.logging.WARNING)

# Without a GPU, kernels are interpreted. Triton asks once, when it is imported first.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
collect_ignore = [] if importlib.util.find_spec("triton") else ["test_kernels.py"]

# On CUDA, torch looks at this once in a process, at the first product of matrices: tests of
# deterministic trainings would depend on what ran before them.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# No test depends on how fast the machine is.
settings.register_profile("optnas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("optnas")

# A shell that starts the tests in the background has Ctrl-C ignored, and every process that the
# tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `make test`."""
    text = "measure the coverage of lines and branches, and fail below so many per cent"
    parser.addoption("--coverage-floor", type=float, metavar="N", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Measure from before the first import of a test."""
    if (floor := config.getoption("--coverage-floor")) is not None:
        from covering import Covering

        config.pluginmanager.register(Covering(config, floor))


@pytest.fixture(scope="session")
def traces() -> dict[str, Any]:
    """The published macro-micro searches, evaluation by evaluation."""
    return json.loads((DATA / "macro_micro_traces.json").read_text())


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch for the tests of a module, whose results differ between numbers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Command:
    """Runs a command in this process: importing torch anew takes seconds."""

    def __init__(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """The exit code, and what went to stdout and stderr."""
        from optnas import cli  # Not before the coverage is measured.

        self._capsys.readouterr()
        verbosity = optuna.logging.get_verbosity()
        self._monkeypatch.setattr(sys, "argv", ["optnas", *map(str, arguments)])
        code: Any = 0
        try:
            with warnings.catch_warnings():
                cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            optuna.logging.set_verbosity(verbosity)
        return code, *self._capsys.readouterr()


@pytest.fixture
def optnas_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `optnas` with arguments: its exit code, and what it writes."""
    return Command(capsys, monkeypatch)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server: whoever stops it starts it again."""
    pytest.importorskip("psycopg")
    yield from _served(PostgreSQL)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """The same of MariaDB."""
    pytest.importorskip("pymysql")
    yield from _served(MariaDB)


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> str:
    """The URL of an empty PostgreSQL database of the test's own."""
    return postgresql.new_database()


def _served(make: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = make()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield server
    server.remove()
