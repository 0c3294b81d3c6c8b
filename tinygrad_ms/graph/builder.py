"""From a tape to a Graph: ``build``."""

from typing import Any

from tinygrad_ms.cards import there
from tinygrad_ms.engine.backward import make_seed
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output, tape_of
from tinygrad_ms.graph.folding import check_size, place_leaves
from tinygrad_ms.graph.outputs import LeafNames, RuleWatcher, check_options, gradient_outputs, named_outputs, tensors
from tinygrad_ms.graph.paths import highlight_paths, prune
from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex, count_gradients
from tinygrad_ms.graph.values import (
    Backward,
    Summary,
    find_values,
    is_freed,
    recording,
    run_backward,
    slopes,
    summarised,
)  # fmt: skip

VIEWS = ("forward", "backward", "both", "higher")
INPUTS = {"x": "input", "input": "input", "target": "target", "labels": "labels"}  # names by argument
SHORT = 24  # the most letters of an argument in a label


def build(
    outputs,
    *,
    view: str = "forward",
    params=None,
    wrt=None,
    highlight=None,
    depth: int | None = None,
    fold: bool | int = True,
    collapse=(),
    expand=(),
    max_nodes: int | None = 200,
    values=False,
    gradients: bool = False,
    gradient=None,
    saved: bool = False,
    device: bool = False,
    formulas: bool = False,
    profile=None,
    rankdir: str = "TB",
    title: str = "",
    font_size: float = 12,
) -> Graph:
    """The tape that leads to ``outputs`` as a plain data structure, ready to be drawn.

    outputs: a Tensor on the tape, a list of them, or a dict {name: Tensor}. It may also be a step of ``tg.compile``:
        then the list that the step replays is drawn, with one box for an op of more than eight calls. The options are
        ``rankdir``, ``title`` and ``max_nodes``.
    view: "forward"; "backward" (the flow of the gradients, with a sum where several meet); "both"; or "higher" (the
        gradients of ``wrt``, by default of all leaves, recorded with create_graph, with the ops that computed them).
    params: a module, or a dict {name: Tensor}: names for the leaves.
    wrt: Tensor(s). Only the ops between them and the outputs are drawn.
    highlight: a Tensor. Its paths to the outputs are drawn in bold.
    depth: each scope that is nested deeper becomes one box. 0 leaves no scope open.
    fold: identical neighbouring scopes (layers, time steps) are drawn once, with their count. True folds three or more
        in a row, an integer that many or more, False none.
    collapse: names or patterns of scopes ("encoder", "layer*", "encoder/layer0"), each of which becomes one box.
    expand: names or patterns of scopes that neither ``depth`` nor ``fold`` may close.
    max_nodes: a graph with more nodes raises ValueError. None sets no limit.
    values: True, or a ``recording``. Small arrays are shown in full, large ones as statistics and a heat strip.
    gradients: True shows gradients in the same way. It runs the backward pass, but frees no tape, runs no hook and
        leaves ``.grad`` alone. On a freed tape only the structure is drawn.
    gradient: the gradient that starts the backward pass; it is needed if an output is not a scalar.
    saved, device, formulas: show the bytes and shapes that an op keeps for the gradient, its device, and the formula
        of its derivative.
    profile: a ``tinygrad_ms.profile`` of the pass that made the tape. It gives the time per op, as text and as heat.
    rankdir: "TB", "LR", "BT" or "RL".
    font_size: points of the titles; the other sizes follow. ``render(path, scale=2)`` enlarges the whole picture.
    Raises TypeError or ValueError for outputs that are not on the tape, for one Tensor under two names, and for
    options of a wrong type or value.

    >>> x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    >>> graph = tg.graph.build(tg.exp(x).sum())
    >>> graph
    <Graph: 3 nodes, 2 edges, view 'forward'>
    """
    if hasattr(outputs, "as_graph"):
        return outputs.as_graph(rankdir=rankdir, title=title, max_nodes=max_nodes)
    if view not in VIEWS:
        raise ValueError(f"graph: view={view!r} is unknown; the views are {', '.join(VIEWS)}")
    if rankdir not in ("TB", "LR", "BT", "RL"):
        raise ValueError(f"graph: rankdir={rankdir!r} is unknown; it is TB, LR, BT or RL")
    check_options(depth, fold, max_nodes, collapse, expand, values, profile, title, font_size)
    names, roots, watcher = LeafNames(params), named_outputs(outputs), None
    if view == "higher":
        watcher = RuleWatcher()
        roots = gradient_outputs(roots, wrt, names, gradient, watcher)
    tape = tape_of([tensor.node for tensor in roots.values()])
    graph = Graph([], [], Scope(), view, rankdir, title, [], font_size)
    builder = GraphBuilder(graph, names, watcher)
    for node in tape:
        builder.add(node)
    builder.mark_outputs(roots)
    if values:
        builder.show_values(tape, roots, values)
    if gradients or view in ("backward", "both"):
        builder.add_gradients(tape, roots, gradient, gradients)
    graph.show = frozenset(
        what
        for what, wanted in (
            ("value", values), ("gradient", gradients), ("saved", saved), ("device", device),
            ("formula", formulas), ("time", profile is not None),
        )
        if wanted
    )  # fmt: skip
    if profile is not None:
        for vertex in graph.vertices:
            vertex.seconds = profile.seconds_of(vertex.seq)
    if wrt is not None and view != "higher":
        prune(graph, builder.vertices_of(wrt, "wrt"))
    if highlight is not None:
        highlight_paths(graph, builder.vertices_of(highlight, "highlight"))
    place_leaves(graph)
    return check_size(graph, max_nodes, depth=depth, repeats=fold, collapse=collapse, expand=expand)


class GraphBuilder:
    """Turns the nodes of a tape, one after the other, into vertices and edges of ``graph``."""

    def __init__(self, graph, names, watcher=None):
        self.graph, self.names, self.watcher = graph, names, watcher
        self.vertex: dict[Any, Vertex] = {}  # by Node or Constant; an Output shares the vertex of its op
        self.output: dict[Any, str] = {}  # by Output: the name of that output of its op
        self.scopes: dict[tuple[int, ...], Scope] = {(): graph.root}
        self.value_edges: dict[tuple[Node, int], Edge] = {}  # by node and argument

    def scope(self, names) -> Scope:
        """The cluster of a node. Each visit of a scope has a name object of its own, so ``id`` tells visits apart."""
        key: tuple[int, ...] = ()
        here = self.graph.root
        for name in names:
            key = (*key, id(name))
            if key not in self.scopes:
                self.scopes[key] = Scope(str(name), here)
            here = self.scopes[key]
        return here

    def put(self, vertex, key) -> Vertex:
        vertex.id = len(self.graph.vertices)
        self.graph.vertices.append(vertex)
        self.vertex[key] = vertex
        return vertex

    def add(self, node) -> None:
        if isinstance(node, Leaf):
            kind = "parameter" if self.names.is_parameter(node) else "leaf"
            vertex = Vertex(kind, self.names.of(node), self.graph.root, [array_of(node)])
            self.put(vertex, node)
        elif isinstance(node, Output):
            self.add_output(node)
        else:
            self.add_op(node)

    def add_output(self, node):
        op = node.parents[0]
        vertex = self.vertex[node] = self.vertex[op]
        name = self.output[node] = output_name(op, node.constants["index"])
        if all(array.name != name for array in vertex.arrays):
            vertex.arrays.append(array_of(node, name))

    def add_op(self, node):
        primitive = node.plan.primitive
        inside = self.watcher.scope_of(node) if self.watcher else None
        order = int(inside is not None)
        scope = self.scope(node.scope if inside is None else (BACKWARD, *inside))
        vertex = self.put(Vertex("op", primitive.name, scope, order=order, seq=node.seq), node)
        vertex.arrays = [] if node.shape is None else [array_of(node)]
        vertex.formula, vertex.source, vertex.line = primitive.formula, primitive.source, node.line
        vertex.primitive = primitive
        saved = [value for value in node.saved or () if hasattr(value, "nbytes")]
        vertex.saved_bytes = sum(value.nbytes for value in saved)
        vertex.saved_shapes = tuple(value.shape for value in saved if value.shape)
        for i, parent in enumerate(node.parents):
            name = primitive.argument_name(i)
            if isinstance(parent, (Node, Constant)):
                if parent not in self.vertex:
                    self.add_constant(parent, name)
                edge = Edge(self.vertex[parent], vertex, argument=name, output=self.output.get(parent, ""))
                self.graph.edges.append(edge)
                self.value_edges[node, i] = edge
            else:
                vertex.arguments[name] = show(parent)
        for key, value in node.constants.items():
            if key not in primitive.defaults or show(value) != show(primitive.defaults[key]):
                vertex.arguments[key] = show(value)
        arrays = [name for i, name in enumerate(map(primitive.argument_name, range(len(node.parents))))
                  if (node, i) in self.value_edges]  # fmt: skip
        if len(primitive.arguments) > 1 and len(arrays) > 1 and not primitive.symmetric:
            vertex.ports = arrays

    def add_constant(self, constant, argument):
        backend = constant.backend
        array = Array(tuple(constant.shape), str(constant.dtype), backend.name if backend else "cpu")
        title = self.names.of(constant)
        name = "" if title else INPUTS.get(argument, "")
        if self.watcher and constant in self.watcher.arriving:
            name = "gradient that arrives"
        self.put(Vertex("constant", title, self.graph.root, [array], name=name), constant)

    def mark_outputs(self, roots):
        for name, tensor in roots.items():
            vertex = self.vertex[tensor.node]
            vertex.is_output = True
            vertex.name = vertex.name or name

    def vertices_of(self, value, option) -> set[Vertex]:
        """The vertices of the tensors that an option of ``build`` names."""
        nodes = [tensor.node for tensor in tensors(value, option)]
        if any(node is None or node not in self.vertex for node in nodes):
            raise ValueError(f"graph: {option}= names a tensor that the outputs were not computed from")
        return {self.vertex[node] for node in nodes}

    # --- numbers --------------------------------------------------------------------------------------------

    def show_values(self, tape, roots, source):
        if isinstance(source, recording):
            for node in tape:
                if node.plan is not None:
                    self.show_recorded(node, source)
        found, constants = find_values(tape, {tensor.node: tensor.data for tensor in roots.values()})
        arrays = [(self.array(node), raws[0]) for node, raws in found.items()]
        arrays += [(self.vertex[constant].arrays[0], raw) for constant, raw in constants.items()]
        for node in tape:
            if self.graph.view == "both" and node.plan is not None and node.saved is not None:
                self.vertex[node].saved = saved_values(node)
        for array, raw in arrays:
            if array is not None and array.value is None:
                array.value = Summary(raw)
        if any(array.value is None for vertex in self.graph.vertices for array in vertex.arrays):
            self.graph.notes.append(
                "values that the tape did not keep are missing; tg.graph.recording() keeps them all"
            )

    def show_recorded(self, node, record):
        """The results of one op, and those of its arguments that are constants."""
        by_name = {array.name: array for array in self.vertex[node].arrays}
        for k, summary in enumerate(record.results.get(node.seq, ())):
            array = by_name.get(output_name(node, k))
            if array is not None:
                array.value = summary
        for i, parent in enumerate(node.parents):
            if (node.seq, i) in record.arguments:
                self.vertex[parent].arrays[0].value = record.arguments[node.seq, i]

    def add_gradients(self, tape, roots, gradient, summarise):
        """Draw an edge for each gradient that a rule sends. With ``summarise`` the gradients are shown as numbers."""
        watched = self.watch(tape, roots, gradient, summarised if summarise else lambda gradient: None)
        for node, summary in watched.received.items() if watched else ():
            array = self.array(node)
            if array is not None:
                array.gradient = summary
        if self.graph.view in ("backward", "both"):
            self.draw_gradients(tape, roots, watched, "1" if gradient is None else "gradient")

    def watch(self, tape, roots, gradient, keep) -> Backward | None:
        """The backward pass. If it cannot run, the result is None, and the graph gets a note that says why."""
        if is_freed(tape):
            note = "structure only: the tape was freed by an earlier backward (retain_graph=True keeps it)"
        elif gradient is None and any(tensor.size != 1 for tensor in roots.values()):
            note = "structure only: an output is no scalar; pass gradient= to run the backward pass"
        else:
            if any(node.hooks for node in tape):
                self.graph.notes.append("gradients as the rules send them: hooks were not run")
            seeds = [
                (tensor.node, there(make_seed, tensor)(tensor, gradient, False, "graph")) for tensor in roots.values()
            ]
            return run_backward(seeds, keep)
        self.graph.notes.append(note)
        return None

    def draw_gradients(self, tape, roots, watched, title):
        edges = self.graph.edges
        for node in tape:
            local = slopes(node) if watched and node.plan is not None else {}
            for i, sent in sent_arguments(node, watched) if node.plan is not None else ():
                edge = self.value_edges[node, i]
                edges.append(Edge(edge.target, edge.source, "gradient", edge.argument, edge.output, gradient=sent,
                                  local=local.get(i)))  # fmt: skip
        for tensor in roots.values():
            seed = Vertex("seed", title, self.graph.root, [array_of(tensor.node)])
            self.put(seed, ("seed", tensor.node))
            target, output = self.vertex[tensor.node], self.output.get(tensor.node, "")
            edges.append(Edge(seed, target, "gradient", output=output))
        count_gradients(self.graph.vertices, edges)

    def array(self, node) -> Array | None:
        """The array that a node returns, or None for an op with several outputs."""
        vertex = self.vertex[node]
        if node in self.output:
            return next(a for a in vertex.arrays if a.name == self.output[node])
        return vertex.arrays[0] if node.shape is not None else None


BACKWARD = "backward"


def sent_arguments(node, watched) -> list[tuple]:
    """(argument, what was sent) for each argument that got a gradient from the rule of ``node``.

    Without a watched pass: (argument, None) for each argument that may get one.
    """
    if watched is None:
        return [(i, None) for i, wanted in enumerate(node.plan.needed) if wanted]
    sent, arguments = list(watched.sent.get(node, ())), []
    for i, parent in enumerate(node.parents):
        if sent and sent[0][0] is parent:
            arguments.append((i, sent.pop(0)[1]))
    return arguments


def saved_values(node) -> list[tuple]:
    """(name, Summary) of the arrays that an op keeps for its rule."""
    plan, primitive = node.plan, node.plan.primitive
    names = [primitive.argument_name(i) for i in plan.inputs]
    names += plan.names[len(plan.names) - len(plan.outputs) - len(plan.extras) :]
    return [(name, Summary(value)) for name, value in zip(names, node.saved) if hasattr(value, "nbytes")]


def output_name(node, k) -> str:
    """The name of output ``k`` of an op with several outputs; "" for an op with one."""
    names = node.plan.primitive.outputs
    return "" if names is None else names[k] if isinstance(names, (tuple, list)) else str(k)


def array_of(node, name="") -> Array:
    return Array(tuple(node.shape), str(node.dtype), node.backend.name if node.backend else "", name)


def show(value) -> str:
    """A number or keyword argument as short text for a label. An array shows its dtype and shape, not its contents."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}" if value.shape else str(value)
    if isinstance(value, slice):
        parts = ["" if part is None else str(part) for part in (value.start, value.stop, value.step)]
        return ":".join(parts if parts[2] else parts[:2])
    if value is Ellipsis:
        return "..."
    if isinstance(value, (tuple, list)):
        text = ", ".join(map(show, value))
        if len(text) > 2 * SHORT:
            return f"{type(value).__name__} of {len(value)}"
        return f"({text},)" if len(value) == 1 else f"({text})"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= SHORT else text[: SHORT - 1] + "…"
