"""Makes a graph smaller: repeated scopes are drawn once, deep scopes become boxes, and a limit holds."""

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from math import prod

from tinygrad_ms.graph.picture import Graph
from tinygrad_ms.graph.structure import Edge, Scope, Vertex, copied

LEAVES = ("parameter", "leaf", "constant")
LONGEST_PERIOD = 8  # the most neighbours that repeat together; for layer, norm, layer, norm it is 2


def check_size(graph, max_nodes, **options) -> Graph:
    """The folded graph. Raises ValueError that says how to get below ``max_nodes``."""
    folded = fold(graph, **options)
    if max_nodes is None or len(folded) <= max_nodes:
        return folded
    ways = []
    for depth in range(max((scope.depth for scope in graph.scopes), default=0)):
        size = len(fold(graph, **{**options, "depth": depth}))
        ways.append(f"depth={depth} leaves {size:,}")
    if options["repeats"] is False:
        ways.append(f"fold=True leaves {len(fold(graph, **{**options, 'repeats': True})):,}")
    hint = f" ({', '.join(ways)})" if ways else ' (name parts of it with tg.scope("...") first)'
    raise ValueError(
        f"graph: {len(folded):,} nodes are more than max_nodes={max_nodes}. Fold scopes with depth=, fold= or"
        f" collapse={hint}, prune with wrt=, or pass max_nodes=None to draw them all"
    )


def fold(graph: Graph, depth=None, repeats=True, collapse=(), expand=()) -> Graph:
    """A new, smaller graph. ``graph`` stays as it is."""
    plan = Folding(graph, patterns(expand))
    if repeats:
        plan.find_repeats(3 if repeats is True else max(2, int(repeats)))
    plan.find_boxes(depth, patterns(collapse))
    folded = plan.merge_repeats()
    if graph.view == "backward":
        drop_values(folded)
    if graph.view in ("backward", "both"):
        insert_sums(folded)
    for i, vertex in enumerate(folded.vertices):
        vertex.id = i
    return folded


def patterns(value) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def matches(scope: Scope, wanted) -> bool:
    return any(fnmatchcase(scope.name, pattern) or fnmatchcase(scope.path, pattern) for pattern in wanted)


# --- leaves -------------------------------------------------------------------------------------------------


def place_leaves(graph: Graph) -> None:
    """Move parameters and constants to the innermost scope that holds all ops that use them. Inputs stay outside.

    An input is a constant that has a name, or that a layer or loss takes as its input. A name with a dot, such as
    "norm.running_mean", comes from a module and makes no input.
    """
    users: dict[Vertex, list[Vertex]] = {}
    for edge in graph.edges:
        leaf, user = edge.source, edge.target
        if leaf.kind in ("parameter", "constant") and user.is_op and not is_input(leaf):
            users.setdefault(leaf, []).append(user)
    for leaf, ops in users.items():
        chains = [op.scope.ancestors for op in ops]
        common = graph.root
        for level in zip(*chains):
            if any(scope is not level[0] for scope in level):
                break
            common = level[0]
        leaf.scope = common


def is_input(leaf: Vertex) -> bool:
    named = leaf.title or leaf.name in ("input", "target", "labels")
    return leaf.kind == "constant" and bool(named) and "." not in leaf.title


# --- repeats ------------------------------------------------------------------------------------------------


class Folding:
    """Says which vertex stands for which others, and how the scopes will be. ``merge_repeats`` makes the graph."""

    def __init__(self, graph, expand):
        self.graph, self.expand = graph, expand
        self.contents = Contents(graph)
        self.into = {}  # vertex -> the vertex that stands for it
        self.instance = {}  # op -> [(group, number of the repetition)] for every group that contains it
        self.counts = {}  # scope -> how many repetitions it stands for
        self.names = {}  # scope -> its name in the picture
        self.parents = {}  # scope -> the new group around it
        self.moved = {}  # op -> the new group around it
        self.box = {}  # scope -> the box that it becomes
        self.last = {}  # vertex -> the last vertex that it stands for

    def find_repeats(self, least):
        """Find runs of neighbouring scopes that compute the same, and map every repetition onto the first one."""
        contents = self.contents
        signature = {scope: contents.signature(scope) for scope in contents.scopes}
        stack = [self.graph.root]
        while stack:
            here = stack.pop()
            items = contents.items(here)
            keys = [
                (plain(item.name), signature[item]) if isinstance(item, Scope) else contents.describe(item, {}, here)
                for item in items
            ]
            skipped = set()
            for start, period, times in runs(items, keys, least):
                blocks = [items[start + period * k : start + period * (k + 1)] for k in range(times)]
                if any(isinstance(item, Scope) and matches(item, self.expand) for block in blocks for item in block):
                    continue
                group = blocks[0][0]
                if period > 1:
                    group = self.group_of(blocks[0], here)
                else:
                    self.names[group] = span_name(group.name, blocks[-1][0].name)
                self.counts[group] = times
                self.merge([[op for item in block for op in contents.ops(item)] for block in blocks], group)
                skipped |= {item for block in blocks[1:] for item in block}
            stack += [item for item in items if isinstance(item, Scope) and item not in skipped]

    def group_of(self, block, parent) -> Scope:
        """A new scope around several neighbours that repeat together."""
        names = dict.fromkeys(plain(item.name, "*") for item in block if isinstance(item, Scope))
        group = Scope(", ".join(names), parent, virtual=True)
        for item in block:
            (self.parents if isinstance(item, Scope) else self.moved)[item] = group
        return group

    def merge(self, repetitions, group):
        first, contents = repetitions[0], self.contents
        for k, ops in enumerate(repetitions):
            mine, firsts = set(ops), set(first)
            for op, original in zip(ops, first):
                self.instance.setdefault(op, []).append((group, k))
                if not k:
                    continue
                self.into[op] = original
                self.last[original] = op
                twins = contents.leaves(original)
                for argument, leaf in contents.leaves(op).items():
                    # a parameter or constant that only one repetition uses is merged with it
                    twin = twins.get(argument, leaf)
                    if (
                        leaf is not twin and same_leaf(leaf, twin)
                        and contents.users[leaf] <= mine and contents.users[twin] <= firsts
                    ):  # fmt: skip
                        self.into[leaf] = twin
                        self.last[twin] = leaf

    def scope_parent(self, scope):
        return self.parents.get(scope, scope.parent)

    def find_boxes(self, depth, collapse):
        """Make a box of each outermost scope that is to be closed."""
        opened = {a for s in self.contents.scopes if s.name and matches(s, self.expand) for a in s.ancestors}
        scopes = [scope for scope in self.contents.scopes if scope.parent is not None]  # outer before inner
        for scope in scopes:
            closed = matches(scope, collapse) or (depth is not None and scope.depth > depth)
            inside = self.enclosing_box(self.scope_parent(scope))
            if inside is not None:
                self.box[scope] = inside
            elif closed and scope not in opened:
                self.box[scope] = Vertex("box", self.names.get(scope, scope.name), scope, ops=0)

    def enclosing_box(self, scope):
        while scope is not None:
            if scope in self.box:
                return self.box[scope]
            scope = self.scope_parent(scope)
        return None

    def resolve(self, vertex):
        while vertex in self.into:
            vertex = self.into[vertex]
        return vertex

    def merge_repeats(self) -> Graph:
        """The smaller graph. A vertex replaces all that it stands for, an edge all that join the same two vertices."""
        graph = self.graph
        originals = {vertex: self.resolve(vertex) for vertex in graph.vertices}
        boxed = {v: self.enclosing_box(self.moved.get(v, v.scope)) for v in set(originals.values())}
        self.keep_inputs(originals, boxed)
        members: dict[Vertex, list[Vertex]] = {}  # what is drawn -> what it stands for
        for vertex, kept in originals.items():
            members.setdefault(boxed[kept] or kept, []).append(vertex)
        scopes, drawn = {graph.root: Scope()}, {}
        for vertex, stands_for in members.items():
            if vertex.kind == "box":
                made, scope = self.draw_box(vertex, stands_for), self.scope_parent(vertex.scope)
            else:
                made, scope = self.draw(vertex, stands_for), self.moved.get(vertex, vertex.scope)
            if vertex.kind == "constant":
                scope = self.outside(scope)
            made.scope = self.copy_scope(scope, scopes)
            drawn[vertex] = made
        image = {v: drawn[boxed[kept] or kept] for v, kept in originals.items()}
        edges = self.merge_edges(image)
        self.count_boxes(image)
        vertices = sorted(drawn.values(), key=lambda vertex: vertex.id)
        return replace(graph, vertices=vertices, edges=edges, root=scopes[graph.root])

    def merge_edges(self, image) -> list[Edge]:
        """The edges between the drawn vertices. ``image`` maps a vertex to the vertex that is drawn for it."""
        edges: dict[tuple, Edge] = {}
        outputs = {}  # key of a merged edge -> the output of the first edge in it
        for edge in self.graph.edges:
            source, target = image[edge.source], image[edge.target]
            groups, there = self.instance.get(edge.source, ()), dict(self.instance.get(edge.target, ()))
            carried = any(there.get(group, k) != k for group, k in groups)
            if source is target and not carried:
                continue
            user, maker = (target, source) if edge.kind == "value" else (source, target)
            argument = "" if user.kind == "box" else edge.argument
            output = "" if maker.kind == "box" else edge.output
            # edges from all repetitions to one vertex become one edge, and so do edges from one vertex to all of them
            fan_in = any(group not in there for group, _ in groups)
            fan_out = any(group not in dict(groups) for group in there)
            key = (source, target, edge.kind, "" if fan_in else argument, "" if fan_out else output, carried)
            if key not in edges:
                edges[key] = replace(
                    edge, source=source, target=target, argument=argument, output=output, carried=carried
                )
                outputs[key] = output
                continue
            merged = edges[key]
            merged.count += 1
            merged.gradient = None
            merged.highlighted |= edge.highlighted
            merged.output = span_name(outputs[key], output)
            if fan_in and user.kind != "box" and edge.kind == "value" and argument != merged.argument:
                merged.label = f"×{merged.count}"
        return list(edges.values())

    def keep_inputs(self, originals, boxed):
        """Hide constants in a box only if something else flows into it. Otherwise they are drawn as its inputs."""
        fed = set()
        for edge in self.graph.edges:
            if edge.kind == "value" and edge.source.kind in ("op", "leaf"):
                source, target = boxed[originals[edge.source]], boxed[originals[edge.target]]
                if target is not None and source is not target:
                    fed.add(target)
        for vertex, box in boxed.items():
            if vertex.kind == "constant" and box is not None and box not in fed:
                boxed[vertex] = None

    def outside(self, scope):
        """The innermost scope around ``scope`` that is not inside a box; ``scope`` itself if it is not."""
        while scope in self.box:
            scope = self.scope_parent(scope)
        return scope

    def copy_scope(self, scope, copies) -> Scope:
        missing = []
        while scope not in copies:
            missing.append(scope)
            scope = self.scope_parent(scope)
        here = copies[scope]
        for scope in reversed(missing):
            name = self.names.get(scope, scope.name)
            here = copies[scope] = Scope(name, here, self.counts.get(scope, 1), scope.virtual)
        return here

    def draw(self, vertex, stands_for) -> Vertex:
        made = copied(vertex, count=len(stands_for))
        if len(stands_for) > 1:
            last = stands_for[-1]
            made.title = span_name(vertex.title, last.title)
            made.arguments = {
                key: span_name(text, last.arguments[key]) if key in last.arguments else f"{text} at first"
                for key, text in vertex.arguments.items()
            }
            for array in made.arrays:  # each repetition has other numbers
                array.value = array.gradient = None
            self.add_up(made, stands_for)
        return made

    def draw_box(self, box, stands_for) -> Vertex:
        made = copied(box, id=stands_for[0].id, count=1)
        made.ops = len({self.resolve(vertex) for vertex in stands_for if vertex.kind == "op"})
        made.parameters = sum(size(v.arrays[0].shape) for v in stands_for if v.kind == "parameter")
        made.order = max(vertex.order for vertex in stands_for)
        self.add_up(made, stands_for)
        made.count = self.counts.get(box.scope, 1)
        inside = set(stands_for)
        leaving = [e for e in self.graph.edges if e.kind == "value" and e.source in inside and e.target not in inside]
        ends = dict.fromkeys([v for v in stands_for if v.is_output] + [edge.source for edge in leaving])
        arrays = {}
        for vertex in ends:
            for array in vertex.arrays:  # numbers are kept only if no other array has this shape and dtype
                key, alone = (array.shape, array.dtype), vertex not in self.instance
                known = alone and key not in arrays
                value, gradient = (array.value, array.gradient) if known else (None, None)
                arrays[key] = replace(array, value=value, gradient=gradient, name="")
        made.arrays = list(arrays.values())
        return made

    def add_up(self, made, stands_for):
        made.saved_bytes = sum(vertex.saved_bytes for vertex in stands_for)
        seconds = [vertex.seconds for vertex in stands_for if vertex.seconds is not None]
        made.seconds = sum(seconds) if seconds else None
        made.is_output = any(vertex.is_output for vertex in stands_for)
        made.name = next((vertex.name for vertex in stands_for if vertex.is_output), made.name)
        made.highlighted = any(vertex.highlighted for vertex in stands_for)
        made.contributions = max(vertex.contributions for vertex in stands_for)
        outputs = {output for vertex in stands_for for output in vertex.by_output}
        made.by_output = {o: max(vertex.by_output.get(o, 0) for vertex in stands_for) for o in outputs}

    def count_boxes(self, image):
        """Count the gradients that are summed at a box: 0 if they arrive at different vertices inside it."""
        entered: dict[Vertex, set[Vertex]] = {}
        for edge in self.graph.edges:
            box = image[edge.target]
            if edge.kind == "gradient" and box.kind == "box" and image[edge.source] is not box:
                entered.setdefault(box, set()).add(edge.target)
        for box, inner in entered.items():
            alone = next(iter(inner)) if len(inner) == 1 else None
            box.contributions = alone.contributions if alone else 0
            box.by_output = alone.by_output if alone else {}


def drop_values(graph: Graph) -> None:
    """Keep only the gradient edges and their vertices."""
    graph.edges = [edge for edge in graph.edges if edge.kind == "gradient"]
    flowing = {vertex for edge in graph.edges for vertex in (edge.source, edge.target)}
    graph.vertices = [vertex for vertex in graph.vertices if vertex in flowing]


def insert_sums(graph: Graph) -> None:
    """Add a vertex where several gradients are summed."""
    into: dict[tuple, list[Edge]] = {}
    sums: dict[Vertex, list[Vertex]] = {}
    for edge in graph.edges:
        if edge.kind == "gradient":
            into.setdefault((edge.target, edge.output), []).append(edge)
    for (target, output), edges in into.items():
        terms = target.by_output.get(output, target.contributions)
        if terms > 1 and (len(edges) > 1 or sum(edge.count for edge in edges) > 1):
            total = Vertex("sum", "sum", target.scope, id=target.id, contributions=terms)
            total.highlighted = target.highlighted
            for edge in edges:
                edge.target = total
            sums.setdefault(target, []).append(total)
            graph.edges.append(Edge(total, target, "gradient", output=output))
    graph.vertices = [item for vertex in graph.vertices for item in (vertex, *sums.get(vertex, ()))]


def size(shape) -> int:
    return prod(shape)


def runs(items, keys, least):
    """(start, period, times) of each repetition among ``keys`` that begins with a scope.

    At each place it is the period that covers the most items.
    """
    start = 0
    while start < len(items):
        period, times = 1, 0
        if isinstance(items[start], Scope):
            found = [(p, repetitions(keys, start, p)) for p in range(1, LONGEST_PERIOD + 1)]
            period, times = max(found, key=lambda pair: pair[0] * pair[1] if pair[1] >= least else 0)
        if times >= least:
            yield start, period, times
            start += period * times
        else:
            start += 1


def repetitions(keys, start, period) -> int:
    times, block = 1, keys[start : start + period]
    while len(block) == period and keys[start + times * period : start + (times + 1) * period] == block:
        times += 1
    return times


def same_leaf(a: Vertex, b: Vertex) -> bool:
    return a.kind == b.kind and a.arrays[0].shape == b.arrays[0].shape and a.arrays[0].dtype == b.arrays[0].dtype


class Contents:
    """The ops of every scope in the order of recording, and keys that are equal for ops that do the same."""

    def __init__(self, graph):
        self.inside: dict[Scope, list[Vertex]] = {graph.root: []}  # the ops in a scope and in the scopes inside it
        self.children: dict[Scope, list[Scope]] = {graph.root: []}
        self.direct: dict[Scope, list[Vertex]] = {}  # the ops in a scope, without those in inner scopes
        self.inputs: dict[Vertex, list[Edge]] = {}  # the values that flow into a vertex
        self.users: dict[Vertex, set[Vertex]] = {}  # the ops that read a leaf
        for vertex in graph.vertices:
            for scope in vertex.scope.ancestors if vertex.is_op else ():
                if scope not in self.inside:
                    self.inside[scope] = []
                    self.children[scope] = []
                    self.children[scope.parent].append(scope)
                self.inside[scope].append(vertex)
            if vertex.is_op:
                self.inside[graph.root].append(vertex)
                self.direct.setdefault(vertex.scope, []).append(vertex)
        for edge in graph.edges:
            if edge.kind == "value":
                self.inputs.setdefault(edge.target, []).append(edge)
                if edge.source.kind in LEAVES:
                    self.users.setdefault(edge.source, set()).add(edge.target)
        self.scopes = list(self.inside)

    def ops(self, item) -> list:
        return self.inside[item] if isinstance(item, Scope) else [item]

    def leaves(self, op):
        return {edge.argument: edge.source for edge in self.inputs.get(op, ()) if edge.source.kind in LEAVES}

    def items(self, scope) -> list:
        """Child scopes and own ops, in the order of the tape."""
        placed: list[tuple[int, Scope | Vertex]] = [
            (self.inside[child][0].id, child) for child in self.children.get(scope, ())
        ]
        placed += [(op.id, op) for op in self.direct.get(scope, ())]
        return [item for _, item in sorted(placed, key=lambda pair: pair[0])]

    def describe(self, op, position, scope) -> tuple:
        """A key of an op: the op, the shapes, the arguments that are not numbers, and the wiring inside the scope."""
        wires = {
            edge.argument: (edge.output, position[edge.source])
            if edge.source in position
            else (edge.source.kind == "parameter", shape_of(edge))
            for edge in self.inputs.get(op, ())
        }
        wires |= {
            key: (False, ()) for key, text in op.arguments.items() if is_number(text)
        }  # the input of the first step of a running sum is a number
        names = tuple(plain(s.name) for s in op.scope.ancestors[scope.depth + bool(position) :])
        arrays = tuple((array.shape, array.dtype) for array in op.arrays)
        arguments = tuple((key, plain(text)) for key, text in op.arguments.items() if not is_number(text))
        return op.title, arrays, arguments, names, tuple(sorted(wires.items()))

    def signature(self, scope) -> int:
        ops = self.inside[scope]
        position = {op: i for i, op in enumerate(ops)}
        return hash(tuple(self.describe(op, position, scope) for op in ops))


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text) is not None


def shape_of(edge: Edge):
    """The shape of the array that flows along a value edge."""
    return next(array.shape for array in edge.source.arrays if array.name == edge.output)


@lru_cache(10_000)
def plain(name: str, digits="#") -> str:
    """A name without its numbers: layer3 and layer12 both become layer#."""
    return re.sub(r"\d+", digits, name)


def span_name(first: str, last: str) -> str:
    """``layer0`` and ``layer11`` -> ``layer0…11``. If the names differ in more than numbers, the first is kept."""
    a, b = re.split(r"(\d+)", first), re.split(r"(\d+)", last)
    if len(a) != len(b) or any(x != y and not x.isdigit() for x, y in zip(a, b)):
        return first
    return "".join(x if x == y else f"{x}…{y}" for x, y in zip(a, b))
