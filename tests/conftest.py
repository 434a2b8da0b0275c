"""What several test modules share."""

import importlib.util
import json
import os
import signal
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
