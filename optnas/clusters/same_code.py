"""What every node of a cluster must have alike: versions, and the study's own modules."""

import ast
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path

from optnas._version import __version__
from optnas.config.file import StudyFile
from optnas.config.stored import references
from optnas.errors import UserError


def versions() -> dict[str, str]:
    """What every node must have alike, and in which version."""
    return {
        "optnas": __version__,
        "torch": version("torch"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def check_versions(wanted: Mapping[str, str], node: str) -> None:
    """Refuse to train with other versions than the study is run with.

    Raises:
        UserError: If one differs.
    """
    here = versions()
    other = [name for name in wanted if here[name] != wanted[name]]
    if other:
        has = ", ".join(f"{name} {here[name]}" for name in other)
        needs = ", ".join(f"{name} {wanted[name]}" for name in other)
        raise UserError(f"node {node} has {has}, and the run {needs}: install the same everywhere")


def own_modules(config: StudyFile) -> list[Path]:
    """The files and packages beside a study that its workers import: those that it names, and
    those that these import.

    Args:
        config: The study.

    Returns:
        Files of modules and folders of packages, sorted.
    """
    found: dict[str, Path] = {}
    names = [name.partition(":")[0] for name in references(config.resolved()).values()]
    while names:
        top = names.pop().partition(".")[0]
        path = _beside(config.folder, top)
        if path is None or top in found:
            continue
        found[top] = path
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            names += _imported(file)
    return sorted(found.values())


def _beside(folder: Path, module: str) -> Path | None:
    """A module of a study's folder, as long as none is installed under its name."""
    here = {os.path.realpath(folder), os.path.realpath(os.getcwd())}
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry or ".") not in here]
    if module in sys.stdlib_module_names or PathFinder.find_spec(module, elsewhere) is not None:
        return None
    package, file = folder / module, folder / f"{module}.py"
    if (package / "__init__.py").is_file():
        return package
    return file if file.is_file() else None


def _imported(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # Importing it says what is wrong.
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
