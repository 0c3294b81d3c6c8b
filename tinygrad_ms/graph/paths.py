"""The paths in a Graph from some tensors to the outputs. They are kept alone, or drawn in bold."""

from tinygrad_ms.graph.structure import Vertex, count_gradients


def reach(starts, edges, forward: bool) -> set[Vertex]:
    """The vertices that are reached from ``starts`` along value edges; against the edges if not ``forward``."""
    following: dict[Vertex, list[Vertex]] = {}
    for edge in edges:
        if edge.kind == "value":
            here, there = (edge.source, edge.target) if forward else (edge.target, edge.source)
            following.setdefault(here, []).append(there)
    seen, stack = set(starts), list(starts)
    while stack:
        for vertex in following.get(stack.pop(), ()):
            if vertex not in seen:
                seen.add(vertex)
                stack.append(vertex)
    return seen


def prune(graph, targets) -> None:
    """Keep the vertices on paths from ``targets`` to the outputs, and the constants and seeds that enter them."""
    alive = reach(targets, graph.edges, True)
    alive |= {e.source for e in graph.edges if e.target in alive and e.source.kind == "constant"}
    alive |= {e.source for e in graph.edges if e.target in alive and e.source.kind == "seed"}
    keep(graph, alive)


def keep(graph, alive) -> None:
    graph.vertices = [vertex for vertex in graph.vertices if vertex in alive]
    graph.edges = [edge for edge in graph.edges if edge.source in alive and edge.target in alive]
    for i, vertex in enumerate(graph.vertices):
        vertex.id = i
    count_gradients(graph.vertices, graph.edges)


def highlight_paths(graph, starts) -> None:
    path = reach(starts, graph.edges, True)
    for vertex in path:
        vertex.highlighted = True
    for edge in graph.edges:
        edge.highlighted = edge.source in path and edge.target in path
