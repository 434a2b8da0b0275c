"""What users install is what lies in the tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import release

ROOT = Path(__file__).parents[1]
FOLDERS = {"optnas": "optnas", "samplers": "optnas/samplers", "objectives": "optnas/objectives"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: what an earlier build left in the tree would come along."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", source / "dist", source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", folder, wheel)
    return folder


def test_the_wheel_has_every_module_and_file_of_the_tree(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == files_of_the_tree()
    assert "optnas/py.typed" in names


def test_entry_points_name_modules_of_the_wheel(wheel, installed):
    (metadata,) = installed.glob("*.dist-info")
    entries = PathDistribution(metadata).entry_points
    own = {entry.module.replace(".", "/") for entry in entries if entry.value.startswith("optnas")}
    names = zipfile.ZipFile(wheel).namelist()
    missing = {path for path in own if not {f"{path}.py", f"{path}/__init__.py"} & set(names)}
    assert own
    assert not missing


def test_the_installed_copy_works_without_the_tree(installed, tmp_path):
    python = [sys.executable, "-W", "error::SyntaxWarning", "-m", "compileall", "-q", installed]
    subprocess.run(python, cwd=tmp_path, check=True)
    code = """
import optnas, optnas.samplers, optnas.objectives
print(*(module.__file__ for module in (optnas, optnas.samplers, optnas.objectives)), sep="\\n")
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert [Path(path).parent.relative_to(installed).as_posix() for path in found] == [
        *FOLDERS.values()
    ]


def test_a_new_user_goes_from_init_to_an_export_without_the_tree(wheel, tmp_path):
    packages = [path for path in sys.path if path.endswith("site-packages")]
    python = release.install(wheel, tmp_path / "environment", packages)
    (tmp_path / "empty").mkdir()
    release.take_the_whole_way(python, tmp_path / "empty")


def files_of_the_tree() -> set[str]:
    """Where every file of the packages should lie in the wheel."""
    return {
        f"{place}/{path.relative_to(ROOT / name).as_posix()}"
        for name, place in FOLDERS.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
