"""Pictures of the tape: ``build`` makes a Graph, ``Graph.render`` draws it."""

from tinygrad_ms.graph.builder import build
from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex
from tinygrad_ms.graph.values import Summary, recording

__all__ = ["Array", "Edge", "Graph", "Scope", "Summary", "Vertex", "build", "recording"]
