"""From a tape to a Graph: ``build``."""

from tinygrad_ms.engine.around.modes import Visit, hooks
from tinygrad_ms.engine.backward import make_seed, walk
from tinygrad_ms.engine.tape import Constant, Leaf, Node, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.folding import check_size, place_leaves
from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex
from tinygrad_ms.graph.values import Summary, find_values, is_freed, recording, run_backward, summarised

VIEWS = ("forward", "backward", "both", "higher")
SHORT = 24  # letters of an argument in a label


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
) -> Graph:
    """The tape that leads to ``outputs`` as a plain data structure, ready to be drawn.

    outputs: a Tensor on the tape, a list of them, or a dict {name: Tensor}.
    view: "forward", "backward" (which gradient flows where, sums where several meet), "both", or "higher"
        (the gradients of ``wrt``, by default of all leaves, recorded with create_graph, and what they were
        computed from).
    params: a module, or a dict {name: Tensor}: names for the leaves.
    wrt: Tensor(s): draw only what lies between them and the outputs.
    highlight: a Tensor: draw its paths to the outputs in bold.
    depth: scopes nested deeper become one box each; 0 leaves no scope open.
    fold: draw identical neighbouring scopes (layers, time steps) once, with their count. True: where three
        or more follow each other; an integer: that many; False: unroll everything.
    collapse, expand: names or patterns of scopes ("encoder", "layer*", "encoder/layer0") that become one
        box, or that neither ``depth`` nor ``fold`` may close.
    max_nodes: raise ValueError rather than draw a hairball; None: no limit.
    values: True, or a ``recording``: small arrays in full, large ones as statistics and a heat strip.
    gradients: the same for gradients; runs the backward pass (seeded with ``gradient`` for outputs that are
        no scalars) without freeing the tape and without touching ``.grad``. On a freed tape only the
        structure is drawn.
    saved, device, formulas: show the bytes kept for the gradient and the shapes of what is kept, the device,
        the formula of the derivative.
    profile: a ``tinygrad_ms.profile`` of the pass that made the tape: time per op, as text and as heat.
    rankdir: "TB", "LR", "BT" or "RL".
    Raises TypeError or ValueError for outputs that are not on the tape or an unknown option.
    """
    if view not in VIEWS:
        raise ValueError(f"graph: view={view!r} is unknown; the views are {', '.join(VIEWS)}")
    if rankdir not in ("TB", "LR", "BT", "RL"):
        raise ValueError(f"graph: rankdir={rankdir!r} is unknown; it is TB, LR, BT or RL")
    names, notes = Names(params), list[str]()
    roots = named_outputs(outputs)
    rules = None
    if view == "higher":
        rules = Rules()
        roots = gradient_outputs(roots, wrt, names, gradient, rules)
    tape = tape_of([tensor.node for tensor in roots.values()])
    graph = Graph([], [], Scope(), view, rankdir, title, notes)
    maker = Maker(graph, names, rules)
    for node in tape:
        maker.add(node)
    for name, tensor in roots.items():
        vertex = maker.vertex[tensor.node]
        vertex.is_output = True
        vertex.name = vertex.name or name
    if values:
        maker.show_values(tape, roots, values)
    if gradients or view in ("backward", "both"):
        maker.add_gradients(tape, roots, gradient, gradients)
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
        prune(graph, {maker.vertex[node] for node in nodes_of(wrt, maker, "wrt")})
    if highlight is not None:
        highlight_paths(graph, {maker.vertex[node] for node in nodes_of(highlight, maker, "highlight")})
    place_leaves(graph)
    return check_size(graph, max_nodes, depth=depth, repeats=fold, collapse=collapse, expand=expand)


def named_outputs(outputs) -> dict[str, Tensor]:
    if isinstance(outputs, Tensor):
        named = {outputs.name or "": outputs}
    elif isinstance(outputs, dict):
        named = {str(name): tensor for name, tensor in outputs.items()}
    else:
        named = {getattr(t, "name", None) or f"output {i}": t for i, t in enumerate(outputs)}
    if not named:
        raise ValueError("graph: there are no outputs to draw")
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"graph: the output {name!r} is {type(tensor).__name__}; expected a Tensor".replace(" ''", "")
            )
        if tensor.node is None:
            raise ValueError(
                f"graph: the output {name!r} of shape {tensor.shape} is not on the tape: nothing it was computed from had"
                " requires_grad=True, or it was computed under no_grad()".replace(" ''", "")
            )
    return named


class Rules:
    """Watches a backward pass that records itself: which rule recorded which nodes."""

    def __init__(self):
        self.scopes = {}  # number of a recorded node -> names of its scopes
        self.rule = self.last = None
        self.sizes = {}  # name of the scope of a rule -> how many ops it recorded

    def before_rule(self, node, gradient):
        self.rule = Visit(f"rule of {node.op}")

    def after_rule(self, node, gradient, gradients):
        self.rule = None  # what follows sums gradients up

    def after_op(self, primitive, arrays, outputs, node):
        if node is not None:
            self.scopes[node.seq] = (self.rule,) if self.rule else ()
            self.sizes[id(self.rule)] = self.sizes.get(id(self.rule), 0) + 1

    def scope_of(self, node) -> tuple | None:
        """The scopes of a node of the backward pass, None for one of the forward pass. Rules of one op have
        no scope."""
        names = self.scopes.get(node.seq)
        return names and tuple(name for name in names if self.sizes[id(name)] > 1)


def gradient_outputs(roots, wrt, names, gradient, rules) -> dict[str, Tensor]:
    """The outputs and their gradients, recorded under the eyes of ``rules``."""
    tape = tape_of([tensor.node for tensor in roots.values()])
    if is_freed(tape):
        raise RuntimeError(
            "graph: the tape was freed by an earlier backward, so its gradient cannot be recorded;"
            " draw before backward, or pass retain_graph=True to it"
        )
    leaves = [node for node in tape if isinstance(node, Leaf)]
    targets = leaves if wrt is None else [t.node for t in tensors(wrt)]
    seeds = [(t.node, make_seed(t, gradient, True, "graph")) for t in roots.values()]
    with hooks(rules):
        _, found = walk(seeds, targets=targets, retain=True, create_graph=True, through_targets=True)
    gradients = {f"gradient of {names.of(node) or 'leaf'}": g for node, g in found.items() if g.node is not None}
    if not gradients:
        raise ValueError("graph: the gradients do not depend on anything: the outputs are linear in their inputs")
    return {**roots, **gradients}


def tensors(value) -> list[Tensor]:
    value = [value] if isinstance(value, Tensor) else list(value.values()) if isinstance(value, dict) else list(value)
    for tensor in value:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"graph: expected a Tensor, not {type(tensor).__name__}")
    return value


def nodes_of(value, maker, option) -> list[Node]:
    nodes = []
    for tensor in tensors(value):
        if tensor.node is None or tensor.node not in maker.vertex:
            raise ValueError(f"graph: {option}= names a tensor that the outputs were not computed from")
        nodes.append(tensor.node)
    return nodes


class Names:
    """The names of leaves: as ``params`` calls them, else as they call themselves."""

    def __init__(self, params):
        if params is None:
            pairs = ()
        elif hasattr(params, "named_parameters"):
            pairs = params.named_parameters()
        elif isinstance(params, dict):
            pairs = params.items()
        else:
            raise TypeError(f"graph: params is {type(params).__name__}; expected a module or a dict {{name: Tensor}}")
        self.given = {tensor.node: str(name) for name, tensor in pairs if tensor.node is not None}
        self.constants = {t.as_constant(): str(name) for name, t in pairs if t.node is None} if pairs else {}

    def of(self, node) -> str:
        if isinstance(node, Constant):
            return self.constants.get(node) or node.name or ""
        return self.given.get(node) or (node.name if isinstance(node, Leaf) else None) or ""

    def is_parameter(self, leaf) -> bool:
        tensor = leaf.tensor() if leaf.tensor is not None else None
        return leaf in self.given or (tensor is not None and type(tensor) is not Tensor)


class Maker:
    """Turns the nodes of a tape, one after the other, into vertices and edges of ``graph``."""

    def __init__(self, graph, names, rules=None):
        self.graph, self.names, self.rules = graph, names, rules
        self.vertex = {}  # Node or Constant -> Vertex; an item node has the vertex of its op
        self.output = {}  # item node -> (index, name) of the output it stands for
        self.scopes = {(): graph.root}
        self.value_edges = {}  # (node, argument) -> Edge

    def scope(self, names) -> Scope:
        """The cluster of a node. Two visits of one scope differ in the identity of the name."""
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
        elif node.op == "item":
            self.add_item(node)
        else:
            self.add_op(node)

    def add_item(self, node):
        op, index = node.parents[0], node.constants["index"]
        vertex = self.vertex[op]
        names = op.plan.primitive.outputs
        name = names[index] if isinstance(names, (tuple, list)) else str(index)
        self.vertex[node] = vertex
        self.output[node] = name
        if all(array.name != name for array in vertex.arrays):
            vertex.arrays.append(array_of(node, name))

    def add_op(self, node):
        primitive = node.plan.primitive
        inside = self.rules.scope_of(node) if self.rules else None
        order = int(inside is not None)
        scope = self.scope((BACKWARD, *inside) if order else node.scope)
        vertex = self.put(Vertex("op", primitive.name, scope, order=order, seq=node.seq), node)
        vertex.arrays = [] if node.shape is None else [array_of(node)]
        vertex.formula, vertex.source, vertex.line = primitive.formula, primitive.source, node.line
        saved = [value for value in node.saved or () if hasattr(value, "nbytes")]
        vertex.saved_bytes = sum(value.nbytes for value in saved)
        vertex.saved_shapes = tuple(value.shape for value in saved if value.shape)
        for i, parent in enumerate(node.parents):
            name = primitive.argument_name(i)
            if isinstance(parent, (Node, Constant)):
                if parent not in self.vertex:
                    self.add_constant(parent)
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

    def add_constant(self, constant):
        backend = constant.backend
        array = Array(tuple(constant.shape), str(constant.dtype), backend.name if backend else "cpu")
        self.put(Vertex("constant", self.names.of(constant), self.graph.root, [array]), constant)

    # --- numbers --------------------------------------------------------------------------------------------

    def show_values(self, tape, roots, source):
        if isinstance(source, recording):
            for node in tape:
                vertex = self.vertex[node]
                if node.op == "item" or isinstance(node, Leaf):
                    continue
                for k, summary in enumerate(source.results.get(node.seq, ())):
                    self.set_value(vertex, k, node, summary)
                for i, parent in enumerate(node.parents):
                    if (node.seq, i) in source.arguments:
                        self.vertex[parent].arrays[0].value = source.arguments[node.seq, i]
        found, constants = find_values(tape, {tensor.node: tensor.data for tensor in roots.values()})
        for node, raws in found.items():
            vertex = self.vertex[node]
            if node in self.output:
                array = next(a for a in vertex.arrays if a.name == self.output[node])
                array.value = array.value or Summary(raws[0])
            elif node.shape is not None and vertex.arrays[0].value is None:
                vertex.arrays[0].value = Summary(raws[0])
        for constant, raw in constants.items():
            array = self.vertex[constant].arrays[0]
            array.value = array.value or Summary(raw)
        if any(array.value is None for vertex in self.graph.vertices for array in vertex.arrays):
            self.graph.notes.append(
                "values that the tape did not keep are missing; tg.graph.recording() keeps them all"
            )

    def set_value(self, vertex, k, node, summary):
        names = node.plan.primitive.outputs
        name = "" if names is None else names[k] if isinstance(names, (tuple, list)) else str(k)
        for array in vertex.arrays:
            if array.name == name:
                array.value = summary

    def add_gradients(self, tape, roots, gradient, summarise):
        """Edges for what the rules send to their arguments, and the gradients themselves where they are
        wanted."""
        graph, watched = self.graph, None
        if is_freed(tape):
            graph.notes.append("structure only: the tape was freed by an earlier backward (retain_graph=True keeps it)")
        elif gradient is None and any(tensor.size != 1 for tensor in roots.values()):
            graph.notes.append("structure only: an output is no scalar; pass gradient= to run the backward pass")
        else:
            seeds = [(tensor.node, make_seed(tensor, gradient, False, "graph")) for tensor in roots.values()]
            watched = run_backward(seeds, summarised if summarise else lambda gradient: None)
            for node, summary in watched.received.items():
                array = self.array(node)
                if array is not None:
                    array.gradient = summary
        if graph.view not in ("backward", "both"):
            return
        for node in tape:
            if isinstance(node, Leaf) or node.op == "item":
                continue
            for i, sent in sent_arguments(node, watched):
                edge = self.value_edges[node, i]
                back = Edge(edge.target, edge.source, "gradient", edge.argument, edge.output, gradient=sent)
                graph.edges.append(back)
        for tensor in roots.values():
            seed = Vertex("seed", "1" if gradient is None else "gradient", graph.root, [array_of(tensor.node)])
            self.put(seed, ("seed", tensor.node))
            target, output = self.vertex[tensor.node], self.output.get(tensor.node, "")
            graph.edges.append(Edge(seed, target, "gradient", output=output))
        for edge in graph.edges:
            if edge.kind == "gradient":
                edge.target.contributions += 1

    def array(self, node) -> Array | None:
        vertex = self.vertex[node]
        if node in self.output:
            return next(a for a in vertex.arrays if a.name == self.output[node])
        return vertex.arrays[0] if node.shape is not None else None


BACKWARD = "backward"


def sent_arguments(node, watched) -> list[tuple]:
    """(argument, Summary or None) for which the rule of ``node`` sent a gradient; unwatched, may send one."""
    if watched is None:
        return [(i, None) for i, wanted in enumerate(node.plan.needed) if wanted]
    sent, arguments = list(watched.sent.get(node, ())), []
    for i, parent in enumerate(node.parents):
        if sent and sent[0][0] is parent:
            arguments.append((i, sent.pop(0)[1]))
    return arguments


def array_of(node, name="") -> Array:
    return Array(tuple(node.shape), str(node.dtype), node.backend.name if node.backend else "", name)


def show(value) -> str:
    """A number or keyword argument in a label: short, and never the contents of an array."""
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


# --- cutting down -------------------------------------------------------------------------------------------


def reach(starts, edges, forward: bool) -> set[Vertex]:
    """The vertices that ``starts`` lead to along value edges, or (not ``forward``) that lead to them."""
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
    """Keep what lies on a path from ``targets`` to the outputs, and the constants that meet it there."""
    alive = reach(targets, graph.edges, True)
    alive |= {e.source for e in graph.edges if e.target in alive and e.source.kind == "constant"}
    alive |= {e.source for e in graph.edges if e.target in alive and e.source.kind == "seed"}
    keep(graph, alive)


def keep(graph, alive) -> None:
    graph.vertices = [vertex for vertex in graph.vertices if vertex in alive]
    graph.edges = [edge for edge in graph.edges if edge.source in alive and edge.target in alive]
    incoming: dict[Vertex, int] = {}
    for edge in graph.edges:
        if edge.kind == "gradient":
            incoming[edge.target] = incoming.get(edge.target, 0) + 1
    for i, vertex in enumerate(graph.vertices):
        vertex.id = i
        vertex.contributions = incoming.get(vertex, 0)


def highlight_paths(graph, starts) -> None:
    path = reach(starts, graph.edges, True)
    for vertex in path:
        vertex.highlighted = True
    for edge in graph.edges:
        edge.highlighted = edge.source in path and edge.target in path
