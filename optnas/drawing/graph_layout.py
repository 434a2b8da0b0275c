"""Directed graphs as pictures, placed by Graphviz: what comes first stands on the left."""

import dataclasses
from collections.abc import Iterable, Sequence

from optnas.drawing.shapes import PAPER, Box, Curve, Picture, Point, Shape, text_width

_INCH = 72.0
"""Graphviz takes sizes in inches and gives places in points, which are pixels here."""
_MARGIN = 2.0
_HEIGHT = 26.0


@dataclasses.dataclass(frozen=True)
class Vertex:
    """What stands in a graph.

    Args:
        name: Its name for the edges.
        text: What stands in it.
        fill: Its colour, as ``#rrggbb``.
        round: Whether its sides are round.
        dashed: Whether its border is dashed.
        radius: Of its corners, where its sides are not round.
    """

    name: str
    text: str
    fill: str = PAPER
    round: bool = False
    dashed: bool = False
    radius: float = 4.0

    @property
    def width(self) -> float:
        """Its width, for its text."""
        return max(_HEIGHT, text_width(self.text) + 14)


@dataclasses.dataclass(frozen=True)
class Edge:
    """A line from one vertex to another.

    Args:
        source: Name of the vertex where it begins.
        target: Name of the vertex where it ends.
        arrow: Whether it ends in an arrowhead.
    """

    source: str
    target: str
    arrow: bool = True


def graph(vertices: Sequence[Vertex], edges: Iterable[Edge], first: Sequence[str]) -> Picture:
    """The picture of a graph without cycles.

    Args:
        vertices: The vertices, with different names.
        edges: The edges; there may be several between two vertices.
        first: Names of the vertices on the left edge.
    """
    import pygraphviz

    # Sizes are given and labels are not, so that Graphviz needs no fonts.
    placed = pygraphviz.AGraph(directed=True, strict=False, rankdir="LR", nodesep=0.2, ranksep=0.3)
    placed.node_attr.update(fixedsize="true", label="")
    placed.edge_attr.update(arrowsize=0.6)
    for vertex in vertices:
        size = {"width": vertex.width / _INCH, "height": _HEIGHT / _INCH}
        placed.add_node(vertex.name, shape="ellipse" if vertex.round else "box", **size)
    placed.add_subgraph(list(first), rank="source")
    for index, edge in enumerate(edges):
        head = "normal" if edge.arrow else "none"
        placed.add_edge(edge.source, edge.target, key=index, arrowhead=head)
    placed.layout(prog="dot")
    _, _, width, height = map(float, placed.graph_attr["bb"].split(","))

    def at(place: str) -> Point:
        x, y = map(float, place.split(","))
        return (x + _MARGIN, height - y + _MARGIN)  # Graphviz counts upwards.

    shapes: list[Shape] = []
    for edge in placed.edges():
        tip, *points = edge.attr["pos"].removeprefix("e,").split()
        head = edge.attr["arrowhead"] == "normal"
        line = points if head else [tip, *points]
        shapes.append(Curve(tuple(map(at, line)), tip=at(tip) if head else None))
    for vertex in vertices:
        x, y = at(placed.get_node(vertex.name).attr["pos"])
        radius = _HEIGHT / 2 if vertex.round else vertex.radius
        left, top = x - vertex.width / 2, y - _HEIGHT / 2
        shapes.append(
            Box(left, top, vertex.width, _HEIGHT, vertex.fill, vertex.text, radius, vertex.dashed)
        )
    return Picture(width + 2 * _MARGIN, height + 2 * _MARGIN, tuple(shapes))
