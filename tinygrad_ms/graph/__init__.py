"""Pictures of the tape: ``build`` makes a Graph, ``Graph.render`` draws it, and ``explain`` writes its chain
rule out."""

from tinygrad_ms.graph.builder import build
from tinygrad_ms.graph.chain_rule import Explanation, explain
from tinygrad_ms.graph.html_page import page
from tinygrad_ms.graph.notebook import tensor_html
from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex
from tinygrad_ms.graph.values import Summary, recording

__all__ = [
    "Array", "Edge", "Explanation", "Graph", "Scope", "Summary", "Vertex", "build", "explain", "page", "recording",
    "tensor_html",
]  # fmt: skip
