"""A picture of the list that runs: ``tg.graph.build(step)``."""

from itertools import groupby
from typing import Any

from tinygrad_ms.graph.folding import fold
from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex
from tinygrad_ms.replay.layout import name_of, values_in
from tinygrad_ms.replay.trace import Input

MANY = 8  # calls of one op in a row; more are drawn as one box


def picture(program, tensors, rankdir="TB", title="", max_nodes=200) -> Graph:
    """The calls of a program as a Graph. tensors: the tensors from outside; their names are shown.

    An op of many calls, such as gelu, is one box.
    Raises ValueError for more than ``max_nodes`` vertices.
    """
    graph = Graph([], [], Scope(), "forward", rankdir, title, [])
    plan = program.plan
    names = {id(t.data): t.name for t in tensors if t.name}
    made: dict[Any, Vertex] = {}  # storage -> the vertex that has written it last

    def put(vertex):
        vertex.id = vertex.seq = len(graph.vertices)
        graph.vertices.append(vertex)
        return vertex

    def source_of(v):
        if v.storage not in made:
            kinds = {"input": "leaf", "outside": "parameter"}
            title = names.get(id(v.thing), f"x{v.thing}" if isinstance(v.thing, Input) else v.storage.kind)
            array = Array(v.shape, str(v.dtype))
            made[v.storage] = put(Vertex(kinds.get(v.storage.kind, "constant"), title, graph.root, [array]))
        return made[v.storage]

    scopes: dict[str, Scope] = {}
    shown = [e for e in plan.entries if e.kind not in ("numbers", "tick", "gradient", "shape")]
    runs = [(label, list(run)) for label, run in groupby(shown, lambda e: e.label or "step")]
    long = {label for label, calls in runs if len(calls) > MANY and label != "step" and "." not in label}  # ops
    for label, calls in runs:
        scope = Scope(label, graph.root)
        scope = scope if label in long else scopes.setdefault(label, scope)
        for e in calls:
            before = list(dict.fromkeys(source_of(v) for v in plan.reads(e)))
            arrays = [Array(v.shape, str(v.dtype)) for v in values_in(e.outs)]
            vertex = put(Vertex("op", e.function.title if e.kind == "fused" else name_of(e.function), scope, arrays))
            graph.edges += [Edge(other, vertex) for other in before]
            for storage in plan.writes(e):
                made[storage] = vertex
    for kind, v in plan.results:
        if kind != "constant":
            source_of(plan.resolve(v)).is_output = True
    graph = fold(graph, repeats=False, collapse=long)
    if max_nodes is not None and len(graph.vertices) > max_nodes:
        raise ValueError(f"graph: the list has {len(graph.vertices)} nodes; pass max_nodes=None, or print step.tape")
    return graph
