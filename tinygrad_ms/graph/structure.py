"""The plain data of a picture: vertices, edges and nested scopes. Nothing here draws."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(eq=False)
class Scope:
    """A cluster: one visit of a ``with scope(name)`` or of a module. The root has no parent and no name."""

    name: str = ""
    parent: "Scope | None" = None
    count: int = 1  # the number of identical visits that it stands for
    virtual: bool = False  # folding made it, around neighbours that repeat together

    @property
    def ancestors(self) -> list["Scope"]:
        """From the outermost scope to this one, without the root."""
        chain, scope = [], self
        while scope.parent is not None:
            chain.append(scope)
            scope = scope.parent
        return chain[::-1]

    @property
    def depth(self) -> int:
        """The number of scopes from the outermost to this one; scopes made by folding do not count."""
        return sum(not scope.virtual for scope in self.ancestors)

    @property
    def path(self) -> str:
        return "/".join(scope.name for scope in self.ancestors)


@dataclass
class Array:
    """An array that a vertex returns: its result, or one of several outputs."""

    shape: tuple[int, ...]
    dtype: str
    device: str = ""
    name: str = ""  # name of the output, if the op has several
    value: Any = None  # values.Summary of the array, if asked for
    gradient: Any = None  # values.Summary of the gradient that arrives at the array

    @property
    def text(self) -> str:
        return f"{self.dtype} {shape_text(self.shape)}".strip()


@dataclass(eq=False)
class Vertex:
    """An op, a tensor where gradients end (leaf, parameter), a constant, or several of them folded into one.

    kind: "op", "leaf", "parameter", "constant", "box" (a folded scope), "sum" (an accumulation point of
    gradients) or "seed" (where the backward pass starts).
    """

    kind: str
    title: str  # name of the op, of the tensor, of the scope
    scope: Scope
    arrays: list[Array] = field(default_factory=list)
    id: int = 0  # position in the graph, in the order of recording
    name: str = ""  # the name of the output, if the user gave one
    arguments: dict[str, str] = field(default_factory=dict)  # numbers and keyword arguments, as text
    ports: list[str] = field(default_factory=list)  # names of the array arguments, if their order matters
    formula: str = ""  # LaTeX
    source: str = ""  # source of the formula
    line: str = ""  # file:line where it was recorded
    saved_bytes: int = 0  # bytes that the tape keeps for the gradient
    saved_shapes: tuple[tuple[int, ...], ...] = ()  # shapes of the arrays in these bytes
    saved: list[tuple[str, Any]] = field(default_factory=list)  # (name, values.Summary) of these arrays, in view "both"
    primitive: Any = None  # the Primitive of an op
    seconds: float | None = None
    is_output: bool = False
    order: int = 0  # 0: recorded in the forward pass, 1: by a backward pass
    highlighted: bool = False
    contributions: int = 0  # the number of gradients that are summed at it; the largest over its outputs
    by_output: dict[str, int] = field(default_factory=dict)  # the number of gradients summed at each output
    count: int = 1  # the number of identical vertices that it stands for
    ops: int = 1  # in a box: the number of ops in one repetition
    parameters: int = 0  # in a box: the number of elements of its parameters
    seq: int = 0  # number of the tape node

    @property
    def is_op(self) -> bool:
        return self.kind in ("op", "box")


@dataclass(eq=False)
class Edge:
    """A value that flows from ``source`` to ``target``; or, with kind "gradient", a gradient that flows so."""

    source: Vertex
    target: Vertex
    kind: str = "value"
    argument: str = ""  # argument of the op that reads the value: the target, or the source of a gradient
    output: str = ""  # output of the op that made the value, if it has several: the source, or the target of a gradient
    label: str = ""
    carried: bool = False  # from one folded repetition to the next
    highlighted: bool = False
    count: int = 1
    gradient: Any = None  # values.Summary of the gradient that flows, if asked for
    local: Any = None  # on a gradient edge between scalars: the derivative of the source by the target


def count_gradients(vertices, edges) -> None:
    """Count the gradients that are summed at each vertex. Gradients of different outputs are not summed."""
    for vertex in vertices:
        vertex.by_output = {}
    for edge in edges:
        if edge.kind == "gradient":
            edge.target.by_output[edge.output] = edge.target.by_output.get(edge.output, 0) + 1
    for vertex in vertices:
        vertex.contributions = max(vertex.by_output.values(), default=0)


def shape_text(shape) -> str:
    """The text of a shape: ``(32, 64)`` or ``(3,)``; "" for a scalar."""
    return str(tuple(shape)) if shape else ""


def copied(vertex: Vertex, **changes) -> Vertex:
    return replace(vertex, arrays=[replace(array) for array in vertex.arrays], **changes)
