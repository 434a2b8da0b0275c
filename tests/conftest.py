"""What several test modules share."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

SHARED = Path(__file__).parents[2] / "shared"

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="session")
def traces() -> dict[str, Any]:
    """The published macro-micro searches, evaluation by evaluation."""
    path = SHARED / "goldens" / "macro_micro_traces.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return json.loads(path.read_text())
