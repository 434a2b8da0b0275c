"""Exported networks in their own runtimes, in processes that have no optnas."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUNTIME = Path(__file__).parents[1] / "benchmarks" / "_runtime.py"
# `make stress` installs ExecuTorch too.
NEEDS = {
    "python": [],
    "torch": [],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["openvino"],
    "executorch": ["executorch"],
}


def needs(form: str) -> None:
    """Skip a test whose runtime is not here."""
    for name in NEEDS[form]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


def fresh(form: str, path: str, given: Path) -> np.ndarray:
    """The answers of a process that cannot import optnas."""
    answers = given.with_name("answers.npy")
    command = [sys.executable, RUNTIME, form, path, given, answers]
    subprocess.run(list(map(str, command)), check=True, cwd=given.parent)
    return np.load(answers)
