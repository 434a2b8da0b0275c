"""Architectures as pictures: cells as graphs, chains and stages as blocks, growth as arcs."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from optnas.drawing.block_layout import Block, Section, in_rows, legend
from optnas.drawing.graph_layout import Edge, Vertex, graph
from optnas.drawing.growth import MacroPicture, is_plain, radius_of
from optnas.drawing.raster import png
from optnas.drawing.shapes import DARK, Picture, above, framed, svg
from optnas.errors import UserError
from optnas.spaces import (
    Architecture,
    CellArchitecture,
    ChainArchitecture,
    FaceArchitecture,
    GrowthArchitecture,
    NasBench201Architecture,
    StageArchitecture,
)
from optnas.spaces.cell import INPUTS, Cell, loose_ends
from optnas.spaces.nasbench201 import EDGES
from optnas.spaces.words import operation_words
from optnas.storage.files import write_whole

COLOURS = {
    "none": "#ffffff",
    "skip_connect": "#dee2e6",
    "identity": "#dee2e6",
    "max_pool_3x3": "#f4a3b4",
    "avg_pool_3x3": "#d9b8f0",
    "sep_conv_3x3": "#9fd3f0",
    "sep_conv_5x5": "#4c9fd6",
    "sep_conv_7x7": "#1b5e94",
    "dil_conv_3x3": "#a8dcb5",
    "dil_conv_5x5": "#3e9c64",
    "conv_1x1": "#ffe3a3",
    "conv_3x3": "#ffc14d",
    "conv_5x5": "#ee8a1c",
    "conv_7x7": "#b55400",
}
"""The colour of every operation: a hue for each kind, darker for larger kernels."""
MODULE, REDUCTION = "#fff3bf", "#ffd43b"
"""Of what is there in every network of a space, whole cells or modules."""
_MODULE, _HALVING = Block(MODULE), Block(REDUCTION, "/2")

FORMATS: Mapping[str, Callable[[Picture], bytes]] = {
    ".svg": lambda picture: svg(picture).encode(),
    ".png": png,
}
"""What makes a file, by the ending of its name."""

Concat = Literal["loose", "all"]


def draw(architecture: Architecture, path: str | Path, *, concat: Concat = "loose") -> None:
    """Draw an architecture to a file: the same architecture always gives the same bytes.

    Args:
        architecture: Any architecture that is more than a number of a table.
        path: The file; its ending, ``.svg`` or ``.png``, says what it is.
        concat: Which nodes of a cell are its output, as the network is built: ``"loose"``, those
            that no other takes, or ``"all"``.

    Raises:
        UserError: If it is another ending, there is no drawing of such an architecture, or the
            file cannot be written.
    """
    path = Path(path)
    check_drawing(path)
    make = FORMATS[path.suffix.lower()]
    write_whole(path, make(picture(architecture, concat)))


def check_drawing(path: Path) -> None:
    """Refuse a file that no drawing can be written to, by its name.

    Raises:
        UserError: If its ending is neither ``.svg`` nor ``.png``.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: a drawing is an SVG or a PNG file; end its name in .svg or .png")


def svg_of(architecture: Architecture) -> str:
    """The drawing of an architecture as SVG; empty if there is none of its kind."""
    return svg(picture(architecture)) if is_drawn(architecture) else ""


def is_drawn(architecture: Architecture) -> bool:
    """Whether there is a drawing of such an architecture."""
    return picture.dispatch(type(architecture)) is not picture.dispatch(object)


@functools.singledispatch
def picture(architecture: Architecture, concat: Concat = "loose") -> Picture:
    """The picture of an architecture; one of your own kind is drawn by what is registered here.

    Args:
        architecture: The architecture.
        concat: As for :func:`draw`.

    Raises:
        UserError: If there is no drawing of such an architecture.
    """
    raise UserError(
        f"there is no drawing of a {type(architecture).__name__}; one can be registered with "
        "optnas.drawing.architectures.picture.register"
    )


@picture.register
def _(architecture: CellArchitecture, concat: Concat = "loose") -> Picture:
    cells = {"Normal cell": architecture.normal, "Reduction cell": architecture.reduce}
    return above(*(framed(_cell(cell, concat), title) for title, cell in cells.items()))


def _cell(cell: Cell, concat: Concat) -> Picture:
    last = range(INPUTS, INPUTS + len(cell))
    vertices = [Vertex("0", "cell k-2", DARK), Vertex("1", "cell k-1", DARK)]
    vertices += [Vertex(str(state), str(state - INPUTS), round=True) for state in last]
    vertices.append(Vertex("out", "cell k", DARK))
    edges = []
    for state, node in zip(last, cell, strict=True):
        for index, (operation, source) in enumerate(node):
            name = f"{state} {index}"
            vertices.append(_operation(name, operation))
            edges += [Edge(str(source), name, arrow=False), Edge(name, str(state))]
    ends = loose_ends(cell) if concat == "loose" else last
    edges += [Edge(str(state), "out") for state in ends]
    return graph(vertices, edges, first=("0", "1"))


@picture.register
def _(architecture: NasBench201Architecture, concat: Concat = "loose") -> Picture:
    vertices = [Vertex("0", "input", DARK), Vertex("3", "output", DARK)]
    vertices += [Vertex(str(node), str(node), round=True) for node in (1, 2)]
    edges = []
    for (node, source), operation in zip(EDGES, architecture.operations, strict=True):
        name = f"{node} {source}"
        vertices.append(_operation(name, operation))
        edges += [Edge(str(source), name, arrow=False), Edge(name, str(node))]
    return framed(graph(vertices, edges, first=("0",)), "Cell")


@picture.register
def _(architecture: ChainArchitecture, concat: Concat = "loose") -> Picture:
    layers = list(zip(architecture.operations, architecture.kernels, strict=True))
    channels = architecture.channels()
    widest = max(channels)
    starts = [0, *architecture.reductions, architecture.depth]
    stem = (f"{channels[0]} channels", "full resolution")
    sections = [Section((Block(DARK),), ("stem", *stem), 0, channels[0] / widest)]
    for first, end in itertools.pairwise(starts):
        if first == end:  # The first layer halves the resolution.
            continue
        halvings = sum(reduction <= first for reduction in architecture.reductions)
        blocks = tuple(_layer(*layer) for layer in layers[first:end])
        captions = (
            f"layer{'s' if end > first + 1 else ''} {_range(first, end)}",
            f"{channels[end]} channels",
            f"1/{2**halvings} resolution" if halvings else "full resolution",
        )
        sections.append(Section(blocks, captions, halvings, channels[end] / widest))
    sections.append(Section((Block(DARK),), ("classifier",), 9, 0.5))
    meanings = {f"{o} {k}x{k}": _layer(o, k) for o, k in sorted(set(layers))}
    title = f"Chain of {architecture.depth} layers, width {architecture.width}"
    return _blocks(sections, meanings, title)


@picture.register
def _(architecture: FaceArchitecture, concat: Concat = "loose") -> Picture:
    layers = [layer[3:] for layer in architecture.layers]
    sections = [Section((Block(DARK),), ("stem", f"{architecture.width} channels"), 0, 0.125)]
    first = 0
    for stage, number in enumerate(architecture.stages):
        inside = layers[first : first + number]
        captions = (
            f"stage {stage + 1}",
            f"{number} block{'s' if number > 1 else ''}",
            f"{architecture.width * 2**stage} channels",
            f"1/{2 ** (stage + 1)} resolution",
        )
        blocks = tuple(_layer(*each) for each in inside)
        sections.append(Section(blocks, captions, stage + 1, 2.0 ** (stage - 3)))
        first += number
    sections.append(Section((Block(DARK),), (f"embedding of {architecture.embedding}",), 9, 0.5))
    meanings = {f"block of {o} {k}x{k}": _layer(o, k) for o, k in sorted(set(layers))}
    title = f"Face network of {architecture.depth} layers, width {architecture.width}"
    return _blocks(sections, meanings, title)


@picture.register
def _(architecture: StageArchitecture, concat: Concat = "loose") -> Picture:
    sections = [Section((Block(DARK),), ("stem",), 0, 0.1)]
    for stage, modules in enumerate(architecture.modules):
        blocks = [_MODULE] * modules
        if stage and architecture.block == "nasnet":
            blocks.insert(0, _HALVING)
        elif stage:
            blocks[0] = _HALVING
        captions = (
            f"stage {stage + 1}",
            f"{modules} module{'s' if modules > 1 else ''}",
            f"channels x{2**stage}",
        )
        share = min(1.0, 2.0 ** (stage + 1 - architecture.stages))
        sections.append(Section(tuple(blocks), captions, stage, share))
    sections.append(Section((Block(DARK),), ("classifier",), 9, 0.1))
    halving = (
        "reduction cell" if architecture.block == "nasnet" else "module that halves the resolution"
    )
    meanings = {f"{architecture.block} module": _MODULE, halving: _HALVING}
    if architecture.stages == 1:
        del meanings[halving]
    title = f"Stages of {', '.join(map(str, architecture.modules))} modules"
    return _blocks(sections, meanings, title)


@picture.register
def _(architecture: GrowthArchitecture, concat: Concat = "loose") -> Picture:
    number = len(architecture.increments)
    grown = f"{number} increment{'' if number == 1 else 's'}"
    if architecture.mode == "cell":
        cells = {"Normal cell": 0, "Reduction cell": 1}
        return above(
            *(framed(_grown_cell(architecture, kind), title) for title, kind in cells.items())
        )
    drawn = MacroPicture(architecture, COLOURS, cell=MODULE, reduction=REDUCTION).picture()
    meanings = {"cell": _MODULE, "reduction cell": _HALVING}
    title = f"{architecture.depth} cells, {grown}"
    return framed(above(drawn, legend(meanings, max(drawn.width, 600.0)), gap=18.0), title)


def _grown_cell(architecture: GrowthArchitecture, kind: int) -> Picture:
    """A cell of a network of mode ``"cell"``: 0 is the normal one, 1 the reduction cell."""
    vertices = [
        Vertex("0", "cell k-2", DARK),
        Vertex("1", "cell k-1", DARK),
        Vertex("initial", "residual cell", REDUCTION if kind else MODULE),
        Vertex("out", "cell k", DARK),
    ]
    edges = [Edge("1", "initial"), Edge("initial", "out")]
    added = [each for each in architecture.increments if each.target == kind]
    for layer, increment in enumerate(added, start=2):
        vertices.append(Vertex(str(layer), f"+{layer - 1}", round=True))
        for slot, (operation, source) in enumerate(
            zip(increment.operations, increment.inputs, strict=True)
        ):
            name = f"{layer} {slot}"
            vertices.append(_operation(name, operation))
            edges += [Edge(str(source), name, arrow=False), Edge(name, str(layer))]
        edges.append(Edge(str(layer), "out"))
    return graph(vertices, edges, first=("0", "1"))


def _operation(name: str, operation: str) -> Vertex:
    """An operation on its way from one state to another."""
    colour = COLOURS[operation.removeprefix("nor_")]
    return Vertex(
        name,
        operation_words(operation),
        colour,
        dashed=is_plain(operation),
        radius=radius_of(operation),
    )


def _layer(operation: str, kernel: int) -> Block:
    """A layer by its colour and, for who does not see it, by a letter and the kernel."""
    kind = "sep_conv" if operation == "separable" else operation
    return Block(COLOURS[f"{kind}_{kernel}x{kernel}"], f"{operation[0]}{kernel}")


def _blocks(sections: Sequence[Section], meanings: Mapping[str, Block], title: str) -> Picture:
    rows = in_rows(sections)
    return framed(above(rows, legend(meanings, max(rows.width, 400.0)), gap=18.0), title)


def _range(first: int, end: int) -> str:
    return str(first) if end == first + 1 else f"{first}-{end - 1}"
