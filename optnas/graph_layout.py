"""A name that drawings made for version 0.1.0 import; see `optnas.drawing`."""

from optnas.drawing.graph_layout import Edge, Vertex, graph

__all__ = ["Edge", "Vertex", "graph"]
