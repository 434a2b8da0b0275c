"""Every room of the house has its floor, and imports point downwards: lazy ones too."""

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# What the folders are installed as.
PACKAGES = {"optnas": "optnas", "samplers": "optnas.samplers", "objectives": "optnas.objectives"}

# Names at the top that users import, whatever lies behind them. No other module imports them.
FACADE = ["optnas", "optnas.settings", "optnas.graph_layout"]

# The rooms from the top floor down to the ground. A room imports what is below it. It imports
# a room beside it where that makes no circle.
FLOORS = [
    ["api", "cli"],
    ["clusters", "doctor", "experiments", "report"],
    ["pages"],
    ["running"],
    ["drawing", "forecast"],
    ["study"],
    ["storage"],
    ["config"],
    ["extensions", "spaces"],
    ["trials"],
    ["devices", "errors", "hull", "seeds", "units", "_version"],
]
FLOOR = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND = FLOORS[-1]

# Both stand beside the house, and the house reaches them by entry points alone.
BESIDE = {
    "samplers": ["spaces", "trials", *GROUND],
    "objectives": [
        "spaces",
        "trials",
        *GROUND,
        "config.contract",
        "config.proxy",
        "config.settings",
        "extensions",
        "storage.checkpoints",
        "storage.files",
    ],
}

MODULES_AT_THE_TOP = 8
LINES_OF_A_MODULE = 400
LINES_OF_A_FUNCTION = 40  # of its body: what stands below the docstring


class Arrow(NamedTuple):
    """An import of a module of this project by another."""

    source: str
    target: str
    line: int
    lazy: bool  # within a function, or for type checkers only

    def __str__(self) -> str:
        return f"{path_of(self.source)}:{self.line} imports {self.target}"


def test_every_room_has_its_floor():
    assert {room_of(module) for module in modules()} - {"", *BESIDE} <= FLOOR.keys()


def test_imports_point_downwards():
    upwards = [str(arrow) for arrow in arrows() if not is_allowed(arrow)]
    assert not upwards, "\n".join(upwards)


def test_the_facade_imports_samplers_and_objectives_only_where_they_are_used():
    eager = [arrow for arrow in arrows() if arrow.source in FACADE and not arrow.lazy]
    assert not [str(arrow) for arrow in eager if room_of(arrow.target) in BESIDE]


@pytest.mark.parametrize("unit", ["package", "module"])
def test_imports_make_no_circle(unit):
    node_of = package_of if unit == "package" else str
    graph: dict[str, set[str]] = {}
    for arrow in arrows():
        source, target = node_of(arrow.source), node_of(arrow.target)
        if source != target:
            graph.setdefault(source, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # A CycleError names the circle.


def test_few_modules_lie_directly_in_the_house():
    top = sorted(path.name for path in (ROOT / "optnas").glob("*.py"))
    assert len(top) <= MODULES_AT_THE_TOP, top


def test_no_module_hides_what_its_package_exports():
    """Importing `optnas.load` as a module would put it in the place of the function."""
    packages = [module for module in modules() if is_package(module)]
    hidden = [f"{p}.{name}" for p in packages for name in exports(p) if f"{p}.{name}" in modules()]
    assert not hidden


def test_modules_are_short():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in sources()}
    long = [f"{path} has {n} lines" for path, n in lengths.items() if n > LINES_OF_A_MODULE]
    assert not long, "\n".join(long)


def test_functions_are_short():
    """The body counts. Decorators, signature and docstring are what a caller reads."""
    long = [f"{name} has {n} lines" for name, n in functions() if n > LINES_OF_A_FUNCTION]
    assert not long, "\n".join(long)


def test_the_walk_sees_every_kind_of_import():
    """Or the rule would hold of nothing."""
    text = """
import optnas.errors, optnas.spaces.chain as chain
from optnas import seeds
from optnas.spaces import Space, cell
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from optnas.running.runner import Outcome
def late():
    from optnas.objectives.models import build_model
    from . import signals
    from ..study import opening
    from .workers import Team
    import torch
    importlib.import_module("optnas.report.text")
"""
    found = [(a.target, a.lazy) for a in imports("optnas.running.loop", ast.parse(text))]
    assert found == [
        ("optnas.errors", False),
        ("optnas.spaces.chain", False),
        ("optnas.seeds", False),
        ("optnas.spaces", False),
        ("optnas.spaces.cell", False),
        ("optnas.running.runner", True),
        ("optnas.objectives.models", True),
        ("optnas.running.signals", True),
        ("optnas.study.opening", True),
        ("optnas.running.workers", True),
        ("optnas.report.text", True),
    ]


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("optnas.cli.commands", "optnas.report.text", True),
        ("optnas.report.text", "optnas.cli.commands", False),
        ("optnas.experiments.ranking", "optnas.report.text", True),
        ("optnas.trials.claims", "optnas.spaces", False),
        ("optnas.errors", "optnas.trials", False),
        ("optnas.running.runner", "optnas.objectives.tabular", False),
        ("optnas.config.file", "optnas.samplers", False),
        ("optnas.report.text", "optnas", False),
        ("optnas.report.text", "optnas.settings", False),
        ("optnas", "optnas.objectives.kept.ensembles", True),
        ("optnas.samplers.ftso", "optnas.spaces.cell", True),
        ("optnas.samplers.ftso", "optnas.config.plugins", False),
        ("optnas.samplers.ftso", "optnas.objectives.models", False),
        ("optnas.objectives.tabular", "optnas.samplers", False),
        ("optnas.objectives.tabular", "optnas.storage.checkpoints", True),
        ("optnas.objectives.tabular", "optnas.storage.checkpoints_of_others", False),
        ("optnas.objectives.tabular", "optnas.storage", False),
        ("optnas.objectives.kept.trained", "optnas.objectives.data", True),
    ],
)
def test_the_rule(source, target, allowed):
    assert is_allowed(Arrow(source, target, line=1, lazy=True)) == allowed


def is_allowed(arrow: Arrow) -> bool:
    source, target = room_of(arrow.source), room_of(arrow.target)
    if arrow.source in FACADE:
        return True
    if arrow.target in FACADE:
        return False
    if source == target:
        return True
    if source in BESIDE:
        name = arrow.target.removeprefix("optnas.")
        return any(name == open_ or name.startswith(f"{open_}.") for open_ in BESIDE[source])
    return target in FLOOR and FLOOR[target] <= FLOOR[source]


def arrows() -> Iterator[Arrow]:
    for module in modules():
        yield from imports(module, tree_of(path_of(module)))


def imports(module: str, tree: ast.AST) -> Iterator[Arrow]:
    """What a module imports of this project, from top to bottom."""
    for node, lazy in walk(tree):
        for name in imported(module, node):
            if name.split(".")[0] == "optnas":
                yield Arrow(module, name, node.lineno, lazy)


def walk(node: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it runs with the module's import."""
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield child, lazy
        yield from walk(child, lazy or function or for_types)


def imported(module: str, node: ast.AST) -> list[str]:
    """The modules that one statement, or one call of ``import_module``, names."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = node.module or ""
            if node.level:
                package = module if is_package(module) else module.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            parts = [f"{base}.{alias.name}" for alias in node.names]
            inside = [name for name in parts if name in modules()]
            return ([base] if len(inside) < len(parts) else []) + inside
        case ast.Call(args=[ast.Constant(value=str(name)), *_]):
            return (
                [name] if ast.unparse(node.func).endswith(("import_module", "__import__")) else []
            )
    return []


def exports(package: str) -> list[str]:
    """What a package lists in ``__all__``."""
    for node in tree_of(path_of(package)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def functions() -> Iterator[tuple[str, int]]:
    """Every function, and how many lines its body has."""
    for path in sources():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                lines = node.body[-1].end_lineno - body[0].lineno + 1 if body else 0
                yield f"{path}:{node.lineno} {node.name}", lines


def sources() -> list[Path]:
    """All Python that is no test, relative to the root."""
    folders = [*PACKAGES, "benchmarks"]
    return sorted(p.relative_to(ROOT) for folder in folders for p in (ROOT / folder).rglob("*.py"))


@cache
def modules() -> dict[str, Path]:
    """The path of every module, by its name."""
    found = {}
    for path in sources():
        folder, *parts = path.with_suffix("").parts
        if folder in PACKAGES:
            name = ".".join([PACKAGES[folder], *parts])
            found[name.removesuffix(".__init__")] = path
    return found


def path_of(module: str) -> Path:
    return modules()[module]


def is_package(module: str) -> bool:
    return path_of(module).name == "__init__.py"


def room_of(module: str) -> str:
    """The part of a name below ``optnas``; none of the façade's."""
    return "" if module in FACADE else module.split(".")[1]


def package_of(module: str) -> str:
    """The room of a module; of the objectives, which have rooms of their own, one of these."""
    for depth in (3, 2):
        name = ".".join(module.split(".")[:depth])
        if module not in FACADE and name in modules() and is_package(name):
            return name
    return module


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())
