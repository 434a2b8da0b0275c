"""Whatever the product imports is declared, with the least version that it works with."""

import ast
import functools
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PRODUCT = ("optnas", "samplers", "objectives")
TESTS = ("tests", "benchmarks")

# Optuna asks for these where optnas does: for a study's database or artifacts by URL, a proxy.
FOR_OPTUNA = {"psycopg", "pymysql", "grpcio", "protobuf"}
# torch writes ONNX with it.
FOR_TORCH = {"onnxscript"}
# boto3 and google-cloud-storage are made of these, and raise their errors.
PARTS = {"botocore": "boto3", "google-api-core": "google-cloud-storage"}
PARTS |= {"google-auth": "google-cloud-storage"}
# A kernel is written in Triton, so its module imports it: who imports the package needs it.
KERNELS = "optnas.objectives.kernels"
# `conftest.py` leaves them out where Triton is missing.
THEIR_TESTS = {ROOT / "tests" / "test_kernels.py"}


@functools.cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(*extras: str) -> dict[str, Requirement]:
    """The declared requirements, and those of extras, by the distribution's name."""
    declared = list(project()["dependencies"])
    for extra in extras:
        declared += project()["optional-dependencies"][extra]
    found = map(Requirement, declared)
    return {canonicalize_name(each.name): each for each in found if each.name != "optnas"}


def imports(*folders: str) -> dict[str, set[str]]:
    """What files in the folders import, in functions too, and the files."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in modules:
                found.setdefault(module, set()).add(str(path.relative_to(ROOT)))
    return found


@functools.cache
def installed() -> dict[str, set[str]]:
    """The distributions that each top-level module comes from."""
    found = importlib.metadata.packages_distributions()
    return {module: set(names) for module, names in found.items()}


@functools.cache
def distribution(module: str) -> str | None:
    """The distribution that an imported module is of; None for Python's own and ours."""
    top = module.partition(".")[0]
    local = {path.stem for folder in TESTS for path in (ROOT / folder).glob("*.py")}
    if top in sys.stdlib_module_names or top in local | {"optnas"}:
        return None
    if top not in installed():
        pytest.skip(f"{top} is not installed")
    candidates, parts = installed()[top], module.split(".")
    while len(candidates) > 1 and len(parts) > 1:  # Many share the folder `google`.
        place = "/".join(parts)
        candidates = {name for name in installed()[top] if has(name, place)} or candidates
        parts.pop()
    (name,) = candidates
    return canonicalize_name(name)


def has(distribution: str, place: str) -> bool:
    """Whether a distribution brings a module or package at a place like ``google/auth``."""
    files = map(str, importlib.metadata.files(distribution) or ())
    return any(file.startswith((f"{place}/", f"{place}.py")) for file in files)


def imported(*folders: str) -> dict[str, set[str]]:
    """The distributions that files in the folders import, and from where."""
    found: dict[str, set[str]] = {}
    for module, places in imports(*folders).items():
        name = distribution(module)
        if name is not None:
            found.setdefault(PARTS.get(name, name), set()).update(places)
    return found


EXTRAS = tuple(
    name
    for name in project()["optional-dependencies"]
    if name not in ("test", "lint", "docs", "export-executorch")
)


def test_whatever_is_imported_is_declared() -> None:
    undeclared = {
        name: sorted(places)
        for name, places in imported(*PRODUCT).items()
        if name not in requirements(*EXTRAS)
    }
    assert undeclared == {}


def test_whatever_is_declared_is_imported() -> None:
    assert set(requirements(*EXTRAS)) - set(imported(*PRODUCT)) == FOR_OPTUNA | FOR_TORCH


def test_what_an_extra_brings_is_imported_only_where_it_is_needed() -> None:
    """At the top of no module: optnas works without any of them, and so does every other test."""
    in_kernels = set((ROOT / "objectives" / "kernels").rglob("*.py"))
    optional = set(requirements(*EXTRAS)) - set(requirements()) | {"moto", "gcp-storage-emulator"}
    for path in (path for folder in (*PRODUCT, *TESTS) for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                top = module.partition(".")[0]
                assert top != "google", path
                assert distribution(top) not in optional or path in in_kernels, path
                assert not module.startswith(KERNELS) or path in in_kernels | THEIR_TESTS, path


def test_whatever_tests_and_benchmarks_import_is_declared() -> None:
    declared = requirements(*EXTRAS, "test")
    undeclared = {
        name: sorted(places) for name, places in imported(*TESTS).items() if name not in declared
    }
    assert undeclared == {}


def test_every_requirement_has_a_lower_bound() -> None:
    for requirement in requirements(*EXTRAS, "test").values():
        assert {each.operator for each in requirement.specifier} >= {">="}, requirement


def test_the_lower_bounds_hold_for_what_is_installed() -> None:
    for name, requirement in requirements().items():
        assert importlib.metadata.version(name) in requirement.specifier
