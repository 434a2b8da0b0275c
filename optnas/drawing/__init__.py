"""Architectures drawn as SVG and PNG; `picture.register` takes those of other spaces."""

from optnas.drawing.architectures import draw, picture
from optnas.drawing.graph_layout import Edge, Vertex, graph

__all__ = ["Edge", "Vertex", "draw", "graph", "picture"]
