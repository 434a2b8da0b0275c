"""What several test modules share."""

import json
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

SHARED = Path(__file__).parents[2] / "shared"

optuna.logging.set_verbosity(optuna.logging.WARNING)

# A shell that starts the tests in the background has Ctrl-C ignored, and every process that the
# tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def traces() -> dict[str, Any]:
    """The published macro-micro searches, evaluation by evaluation."""
    path = SHARED / "goldens" / "macro_micro_traces.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return json.loads(path.read_text())
