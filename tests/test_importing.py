"""Modules of a user's own: beside the study, and never in place of what is installed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optnas.extensions.importing import PluginError, load_reference, modules_of

BIN = Path(sys.executable).parent

MINE = """
import wave

import numpy as np
from optnas.objectives.tabular import Tabular
from optnas.spaces import RowSpace
import beside

class Rows(RowSpace):
    pass

class Table(Tabular):
    def __call__(self, trial):
        import colorsys, nearby
        print(f"runs with {colorsys.__file__} {nearby.__file__}\\n", end="")
        return super().__call__(trial)

def load():
    import colorsys, nearby
    print(f"loads with {colorsys.__file__} {nearby.__file__}\\n", end="")
    images = np.arange(30 * 36, dtype=np.uint8).reshape(30, 6, 6)
    return images, [0, 1, 2] * 10, images[:6], [0, 1, 2] * 2

print(f"is made with {wave.__file__} {beside.__file__}\\n", end="")
"""
TRAINED = """
study: s
data: mine:load
sampler: random
space: {depth: [2, 3], width: [4, 5]}
train: {epochs: 1}
budget: {trials: 1}
"""
LOOKED_UP = """
study: s
space: {name: "mine:Rows", rows: 3}
sampler: random
objective: {name: "mine:Table", table: table.npz, column: accuracy}
budget: {trials: 2}
"""


@pytest.fixture
def beside(tmp_path):
    """A folder with a study's modules, and files with the names of Python's own."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    for name in ("beside", "nearby"):
        (folder / f"{name}.py").write_text("")
    for name in ("wave", "colorsys"):
        (folder / f"{name}.py").write_text("raise ImportError('not this one')")
    (tmp_path / "elsewhere").mkdir()
    for name in ("wave", "colorsys", "beside", "nearby", "mine"):
        (tmp_path / "elsewhere" / f"{name}.py").write_text("raise ImportError('nor this one')")
    np.savez(folder / "table.npz", accuracy=np.array([0.1, 0.2, 0.3]))
    return folder


@pytest.mark.parametrize(
    ("text", "how", "where"),
    [
        (TRAINED, "command", "study"),
        (TRAINED, "command", "elsewhere"),
        (TRAINED, "python -c", "elsewhere"),
        (LOOKED_UP, "command", "elsewhere"),
        (LOOKED_UP, "workers", "study"),
    ],
)
def test_the_current_folder_does_not_decide(beside, text, how, where):
    path = beside / "s.yaml"
    path.write_text(text)
    command = [str(BIN / "optnas"), "run", str(path)]
    if how == "python -c":
        command = [sys.executable, "-c", f"import optnas; optnas.run({str(path)!r})"]
    elif how == "workers":
        command += ["--workers", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=beside.parent / where, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = {line for line in done.stdout.splitlines() if ".py" in line}
    library, own = Path(os.__file__).parent, Path(os.path.realpath(beside))
    assert f"is made with {library / 'wave.py'} {own / 'beside.py'}" in said
    verb = "loads" if text == TRAINED else "runs"
    assert f"{verb} with {library / 'colorsys.py'} {own / 'nearby.py'}" in said
    assert len(said) == 2


ALLOWED = ("--allow", "mine:load")


def test_what_is_stored_goes_on_with_the_modules_of_the_current_folder(beside):
    (beside / "s.yaml").write_text(TRAINED)
    for arguments in (["run", "s.yaml"], ["resume", "sqlite:///s.db", "s", *ALLOWED]):
        command = [str(BIN / "optnas"), *arguments]
        done = subprocess.run(command, cwd=beside, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert f"loads with {Path(os.__file__).parent / 'colorsys.py'}" in done.stdout


def test_the_path_is_as_it_was(beside, monkeypatch):
    monkeypatch.chdir(beside)
    monkeypatch.syspath_prepend("")
    before = list(sys.path)
    with modules_of(beside):
        assert sys.path[-2:] == [str(beside), ""]
        sys.path.append("added by a module")
    assert sys.path == [*before, "added by a module"]
    sys.path.remove("added by a module")


def test_what_does_not_exist_is_said(tmp_path):
    with pytest.raises(PluginError, match="no module 'no_such_thing' among the installed"):
        load_reference("data set", "no_such_thing:load", tmp_path)
    with pytest.raises(PluginError, match="has no 'getcdw'; did you mean 'getcwd'"):
        load_reference("data set", "os:getcdw", tmp_path)
    with pytest.raises(PluginError, match="not of the form"):
        load_reference("data set", "os:", tmp_path)
