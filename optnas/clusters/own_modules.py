"""The modules beside a study that its workers need on every node."""

import ast
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from optnas.config.file import StudyFile
from optnas.config.stored import references


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
