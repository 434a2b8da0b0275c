"""Every strategy as a package folder of OptunaHub, made of the repository's own files.

A package holds copies of the modules that its classes need, under ``_optnas``, with their imports
made relative: nothing of it is written twice, and none of it imports torch. `make hub` writes them
all to ``.venv/hub``, in the layout of the registry: ``package/samplers/econas``, say.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
VENDORED = "_optnas"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclasses.dataclass(frozen=True)
class Package:
    """A folder of the registry.

    Args:
        path: Where it lies: the kind and the name.
        title: Its title on OptunaHub.
        description: One sentence.
        tags: What it is found by.
        classes: What it exports, as ``module:Name`` without ``optnas.``; the first one is what
            the package is for.
    """

    path: str
    title: str
    description: str
    tags: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def exports(self) -> list[tuple[str, str]]:
        """The module and the name of every class."""
        return [(f"optnas.{m}", n) for m, n in (each.split(":") for each in self.classes)]


def _sampler(name: str, title: str, description: str, *classes: str) -> Package:
    tags = ("sampler", "neural architecture search", title)
    return Package(f"samplers/{name}", title, description, tags, classes)


# The spaces whose parameters say the whole network.
WHOLE = (
    "spaces:CellSpace",
    "spaces:ChainSpace",
    "spaces:NasBench201Space",
    "spaces:StageSpace",
)
PACKAGES = (
    _sampler(
        "macro_micro",
        "Macro-micro search",
        "Grows a network's depth, prunes its width, then chooses operations and kernels.",
        "samplers.macro_micro:MacroMicroSampler",
        "spaces:ChainSpace",
        "spaces:FaceSpace",
    ),
    _sampler(
        "randgrow",
        "RandGrow",
        "Grows the most cost-efficient networks at random, from their parents' weights.",
        "samplers.randgrow:RandGrowSampler",
        "spaces:GrowthSpace",
    ),
    _sampler(
        "stage_wise",
        "Stage-wise search",
        "Deepens the stages of a network whose features gain importance when they are deeper.",
        "samplers.stage_wise:StageWiseSampler",
        "spaces:StageSpace",
    ),
    _sampler(
        "econas",
        "EcoNAS",
        "Evolution of networks that are trained for E, 2E and 3E epochs.",
        "samplers.econas:EcoNASSampler",
        "samplers.hierarchical:HierarchicalPruner",
        *WHOLE,
    ),
    _sampler(
        "synchronous_econas",
        "EcoNAS in cycles",
        "EcoNAS's evolution in the order of its algorithm: networks are promoted in cycles.",
        "samplers.synchronous_econas:SynchronousEcoNASSampler",
        *WHOLE,
    ),
    _sampler(
        "ftso",
        "FTSO",
        "Finds the topology of a cell first and its operators second.",
        "samplers.ftso:FTSOSampler",
        "spaces:CellSpace",
        "spaces:NasBench201Space",
    ),
    _sampler(
        "darts",
        "DARTS",
        "Reads a cell off a super-network that learns edges and operations at once.",
        "samplers.darts:DARTSSampler",
        "spaces:CellSpace",
        "spaces:NasBench201Space",
    ),
    _sampler(
        "nas_surrogate",
        "Surrogate search of architectures",
        "A Gaussian process over the choices of an architecture, for budgets of 30 to 200 trials.",
        "samplers.surrogate:SurrogateSampler",
        *WHOLE,
    ),
    _sampler(
        "nas_local_search",
        "Local search of architectures",
        "Changes one choice at a time and keeps what improves; restarts where nothing does.",
        "samplers.local_search:LocalSearchSampler",
        *WHOLE,
    ),
    _sampler(
        "regularized_evolution",
        "Regularized evolution",
        "A population of architectures in which the oldest dies.",
        "samplers.regularized_evolution:RegularizedEvolutionSampler",
        *WHOLE,
    ),
    _sampler(
        "nas_zoo",
        "Zoo of architectures",
        "The same distinct random architectures for every study with its seed.",
        "samplers.zoo:ZooSampler",
        *WHOLE,
    ),
    Package(
        "pruners/hierarchical",
        "Hierarchical pruner",
        "Promotes a share of the trials at each rung: E, 2E and 3E epochs, or geometric rungs.",
        ("pruner", "neural architecture search", "EcoNAS"),
        ("samplers.hierarchical:HierarchicalPruner",),
    ),
)


def build(package: Package, registry: Path) -> Path:
    """Write a package into a registry, in place of what lay there.

    Returns:
        The package's folder.
    """
    folder = registry / package.path
    shutil.rmtree(folder, ignore_errors=True)
    modules, foreign = _needed({module for module, _ in package.exports})
    for module, file in modules.items():
        _vendor(module, file, folder / VENDORED)
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    example = _example(package)
    pages = {
        "__init__.py": _init(package),
        "example.py": example,
        "requirements.txt": "\n".join(_requirements(foreign)) + "\n",
        "README.md": _readme(package, example, len(modules)),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _example(package: Package) -> str:
    """The package's own example, or that of the surrogate search with another sampler."""
    examples = ROOT / "hub" / "examples"
    own = examples / f"{package.name}.py"
    if own.exists():
        return own.read_text(encoding="utf-8")
    text = (examples / "nas_surrogate.py").read_text(encoding="utf-8")
    text = text.replace("samplers/nas_surrogate", package.path)
    return text.replace("SurrogateSampler", package.exports[0][1])


def _file_of(module: str) -> Path | None:
    """Where a module of the repository lies; None for others, and for names inside a module."""
    top, *parts = module.split(".")
    if top != PROJECT["name"]:
        return None
    beside = parts[:1] in (["samplers"], ["objectives"])
    place = (ROOT if beside else ROOT / top).joinpath(*parts)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run: not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from _imports(node)


@functools.cache
def _imported(file: Path) -> set[str]:
    found: set[str] = set()
    for node in _imports(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {str(node.module), *(name for name in inner if _file_of(name))}
    return found


def _needed(modules: set[str]) -> tuple[dict[str, Path], set[str]]:
    """The repository's modules that these run with, and the other packages that are imported.

    The package ``samplers`` itself is left out: it imports every strategy.
    """
    found: dict[str, Path] = {}
    foreign = set()
    while modules:
        module = modules.pop()
        file = _file_of(module)
        if file is None:
            foreign.add(module.partition(".")[0])
        elif module not in found:
            found[module] = file
            modules |= _imported(file)
    return found, foreign - sys.stdlib_module_names


def _vendor(module: str, file: Path, folder: Path) -> None:
    """Copy a module, with the imports of others of the repository made relative.

    The copy's first line says where it is from.
    """
    parts = module.split(".")[1:]
    if file.name == "__init__.py":
        parts.append("__init__")
    copy = folder.joinpath(*parts).with_suffix(".py")
    copy.parent.mkdir(parents=True, exist_ok=True)
    for parent in (copy.parent, folder):
        (parent / "__init__.py").touch()
    imports = re.compile(rf"^(\s*from ){PROJECT['name']}\.", re.MULTILINE)
    text = imports.sub(rf"\g<1>{'.' * len(parts)}", file.read_text(encoding="utf-8"))
    origin = f"# Copied from {PROJECT['name']} {PROJECT['version']}: {file.relative_to(ROOT)}.\n"
    copy.write_text(origin + text, encoding="utf-8")


_distributions = functools.cache(importlib.metadata.packages_distributions)


def _requirements(foreign: set[str]) -> list[str]:
    """The lines of the project's dependencies that these packages come from, without Optuna."""
    distributions = _distributions()
    names = {_normal(name) for package in foreign for name in distributions[package]}
    lines = {_normal(re.split(r"[<>=\[]", line)[0]): line for line in PROJECT["dependencies"]}
    return sorted(lines[name] for name in names - {"optuna"})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _init(package: Package) -> str:
    imports = "\n".join(
        f"from .{VENDORED}.{module.partition('.')[2]} import {name}"
        for module, name in package.exports
    )
    names = "".join(f'    "{name}",\n' for _, name in package.exports)
    return (
        f'"""{package.title}. {package.description}"""\n\n{imports}\n\n\n__all__ = [\n{names}]\n'
    )


def _sections(text: str) -> dict[str, str]:
    """The sections of a docstring by their headings; what stands before the first is ``""``."""
    headings = r"^(Example|Args|Raises|Returns|Differences from the paper):$"
    first, *others = re.split(headings, text, flags=re.MULTILINE)
    pairs = zip(others[::2], others[1::2], strict=True)
    return {"": first.strip()} | {name: textwrap.dedent(body).strip() for name, body in pairs}


def _prose(text: str) -> str:
    """Text without the markup of docstrings, its lines joined to paragraphs."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def _arguments(text: str) -> str:
    """The section Args as a list."""
    entries = re.split(r"^(?=\w+: )", text, flags=re.MULTILINE)
    lines = (_prose(re.sub(r"\s*\n\s*", " ", entry.strip())) for entry in entries if entry.strip())
    return "\n".join("  - " + re.sub(r"^(\w+):", r"`\1`:", line) for line in lines)


README = """\
---
{header}---

## Abstract

{abstract}

## Class or Function Names

- {name}{signature}
{arguments}
{others}
## Installation

```bash
pip install -r https://hub.optuna.org/{path}/requirements.txt
```

## Example

```python
{example}```

## Others

{differences}The folder `_optnas` holds {modules} modules of optnas {version} as they are, but
for their imports. optnas itself trains the networks, runs studies from files and resumes them.
"""


def _readme(package: Package, example: str, modules: int) -> str:
    """The package's page: what the docstring of its class says."""
    (module, name), *others = package.exports
    main = getattr(importlib.import_module(module), name)
    says = _sections(inspect.getdoc(main) or "")
    differs = says.get("Differences from the paper")
    header = {
        "author": "The optnas developers",
        "title": package.title,
        "description": package.description,
        "tags": list(package.tags),
        "optuna_versions": [importlib.metadata.version("optuna")],
        "license": "MIT License",
    }
    return README.format(
        header=yaml.safe_dump(header, sort_keys=False, width=1000),
        abstract=_prose(says[""]),
        name=name,
        signature=_signature(main),
        arguments=_arguments(says.get("Args", "")),
        others="".join(f"- {other}\n" for _, other in others),
        path=package.path,
        example=example,
        differences=f"Differences from the paper: {_prose(differs)}\n\n" if differs else "",
        modules=modules,
        version=PROJECT["version"],
    )


def _signature(main: type) -> str:
    """The names and the defaults of a constructor's arguments."""
    parts, keywords = [], False
    for parameter in inspect.signature(main).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parts, keywords = [*parts, "*"], True
        bare = parameter.replace(annotation=parameter.empty)
        parts.append(str(bare).replace(" = ", "="))
    return f"({', '.join(parts)})"


def main() -> None:
    """Build all packages into the folder that the command line names."""
    registry = Path(sys.argv[1]) / "package"
    for package in PACKAGES:
        print(build(package, registry))


if __name__ == "__main__":
    main()
