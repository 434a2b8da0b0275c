"""Architectures in words, for people: a line, and more lines where there is more to say."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from optnas.spaces.base import Architecture
from optnas.spaces.cell import INPUTS, Cell, CellArchitecture
from optnas.spaces.chain import ChainArchitecture
from optnas.spaces.face_architecture import FaceArchitecture
from optnas.spaces.growth_architecture import GrowthArchitecture
from optnas.spaces.nasbench201 import EDGES, NasBench201Architecture
from optnas.spaces.stage import StageArchitecture
from optnas.units import plural

SAID = 8
"""How many increments are told one by one."""


@functools.singledispatch
def in_words(architecture: Architecture) -> list[str]:
    """An architecture in words: lines of text. Of other kinds, the fields as they are."""
    names = [field.name for field in dataclasses.fields(architecture)]
    fields = {name: getattr(architecture, name) for name in names}
    return [", ".join(f"{name} {_short(value)}" for name, value in fields.items())]


def operation_words(operation: str) -> str:
    """An operation as a person says it."""
    return operation.removeprefix("nor_").replace("_", " ")


@in_words.register
def _(architecture: ChainArchitecture) -> list[str]:
    layers = _runs(_layer_words(architecture.operations, architecture.kernels))
    return [
        f"chain of {plural(architecture.depth, 'layer')}, width {architecture.width}: {layers}"
    ]


@in_words.register
def _(architecture: FaceArchitecture) -> list[str]:
    layers = [layer[3:] for layer in architecture.layers]
    kinds = _runs(_layer_words([o for o, _ in layers], [k for _, k in layers]))
    return [
        f"face network, stages of {_listed(architecture.stages)} blocks, width "
        f"{architecture.width}, embedding of {architecture.embedding}: {kinds}"
    ]


@in_words.register
def _(architecture: StageArchitecture) -> list[str]:
    blocks = f"{architecture.block} modules"
    return [f"stages of {_listed(architecture.modules)} {blocks}"]


@in_words.register
def _(architecture: CellArchitecture) -> list[str]:
    nodes = plural(len(architecture.normal), "node")
    lines = [f"cells of {nodes}"]
    cells = {"normal cell": architecture.normal, "reduction cell": architecture.reduce}
    return [*lines, *(f"{name}: {_cell_words(cell)}" for name, cell in cells.items())]


def _cell_words(cell: Cell) -> str:
    names = ("cell k-2", "cell k-1", *(f"node {n}" for n in range(INPUTS, INPUTS + len(cell))))
    return "; ".join(
        f"node {state} = "
        + " + ".join(f"{operation_words(o)} of {names[source]}" for o, source in node)
        for state, node in enumerate(cell, start=INPUTS)
    )


@in_words.register
def _(architecture: NasBench201Architecture) -> list[str]:
    names = ("input", "node 1", "node 2", "output")
    taken: dict[int, list[str]] = {1: [], 2: [], 3: []}
    for (node, source), operation in zip(EDGES, architecture.operations, strict=True):
        if operation != "none":
            taken[node].append(f"{operation_words(operation)} of {names[source]}")
    nodes = [f"{names[n]} = {' + '.join(parts) or 'nothing'}" for n, parts in taken.items()]
    return ["; ".join(nodes)]


@in_words.register
def _(architecture: GrowthArchitecture) -> list[str]:
    number = len(architecture.increments)
    first = (
        f"{plural(architecture.depth, 'cell')}, {architecture.channels} channels, "
        f"{plural(number, 'increment')}"
    )
    if architecture.mode == "cell":
        first += " in every cell of a kind"
    lines = [
        f"+{n}: {increment_words(architecture, n - 1)}" for n in range(1, min(number, SAID) + 1)
    ]
    if number > SAID:
        lines.append(f"and {plural(number - SAID, 'increment')} more")
    return [first, *lines]


def increment_words(architecture: GrowthArchitecture, index: int) -> str:
    """What an increment takes, and where it is added."""
    increment = architecture.increments[index]
    parts = [
        f"{operation_words(operation)} of {layer_name(architecture, increment.target, source)}"
        for operation, source in zip(increment.operations, increment.inputs, strict=True)
    ]
    where = f"cell {increment.target}"
    if architecture.mode == "cell":
        where = ("normal cells", "reduction cells")[increment.target]
    return f"{' + '.join(parts)}, added to {where}"


def layer_name(architecture: GrowthArchitecture, target: int, layer: int) -> str:
    """What an increment that is added to ``target`` takes, by its number."""
    if architecture.mode == "cell":
        if layer < INPUTS:
            return ("cell k-2", "cell k-1")[layer]
        own = [n for n, each in enumerate(architecture.increments, 1) if each.target == target]
        return f"+{own[layer - INPUTS]}"
    if layer > architecture.depth:
        return f"+{layer - architecture.depth}"
    return f"cell {layer}" if layer else "the stem"


def _layer_words(operations: Sequence[str], kernels: Sequence[int]) -> list[str]:
    return [f"{o} {k}x{k}" for o, k in zip(operations, kernels, strict=True)]


def _runs(items: Iterable[str]) -> str:
    """Equal neighbours together: ``conv 3x3, 4 x separable 3x3``."""
    runs = [(name, len(list(group))) for name, group in itertools.groupby(items)]
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in runs)


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _short(value: Any) -> str:
    if isinstance(value, tuple) and len(value) > SAID:
        return f"({len(value)})"
    return str(value)
