"""The plain data of a picture: vertices, edges and nested scopes. It knows no drawing."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(eq=False)
class Scope:
    """A cluster: one visit of a ``with scope(name)`` or of a module. The root has no parent and no name."""

    name: str = ""
    parent: "Scope | None" = None
    count: int = 1  # how many identical visits it stands for
    virtual: bool = False  # made by folding, around neighbours that repeat together

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
        """How many scopes of the user's it is nested in, itself included."""
        return sum(not scope.virtual for scope in self.ancestors)

    @property
    def path(self) -> str:
        return "/".join(scope.name for scope in self.ancestors)


@dataclass
class Array:
    """What a vertex hands on: one array, or one of the outputs of an op that has several."""

    shape: tuple[int, ...]
    dtype: str
    device: str = ""
    name: str = ""  # of the output, where the op has several
    value: Any = None  # values.Summary of the array, where asked for
    gradient: Any = None  # values.Summary of the gradient that arrives at it

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
    name: str = ""  # of the output, where the user gave one
    arguments: dict[str, str] = field(default_factory=dict)  # numbers and keyword arguments, as text
    ports: list[str] = field(default_factory=list)  # names of the array arguments where their order matters
    formula: str = ""  # LaTeX
    source: str = ""  # of the formula
    line: str = ""  # file:line where it was recorded
    saved_bytes: int = 0  # what the tape keeps for the gradient
    saved_shapes: tuple[tuple[int, ...], ...] = ()  # of the arrays among it
    saved: list[tuple[str, Any]] = field(default_factory=list)  # (name, values.Summary) of each, in view "both"
    primitive: Any = None  # of an op
    seconds: float | None = None
    is_output: bool = False
    order: int = 0  # 0: recorded in the forward pass, 1: by a backward pass
    highlighted: bool = False
    contributions: int = 0  # how many gradients are summed at it, at most, where it has several outputs
    by_output: dict[str, int] = field(default_factory=dict)  # how many gradients are summed at each of its outputs
    count: int = 1  # how many identical vertices it stands for
    ops: int = 1  # in a box: how many ops it hides, of one repetition
    parameters: int = 0  # in a box: how many numbers its parameters hold
    seq: int = 0  # of the tape node

    @property
    def is_op(self) -> bool:
        return self.kind in ("op", "box")


@dataclass(eq=False)
class Edge:
    """A value that flows from ``source`` to ``target``, or (kind "gradient") a gradient the other way
    round."""

    source: Vertex
    target: Vertex
    kind: str = "value"
    argument: str = ""  # of the target (of the source for a gradient)
    output: str = ""  # of the source, where it has several (of the target for a gradient)
    label: str = ""
    carried: bool = False  # from one folded repetition to the next
    highlighted: bool = False
    count: int = 1
    gradient: Any = None  # values.Summary of what a gradient edge carries, where asked for
    local: Any = None  # on a gradient edge between scalars: the derivative of the source by the target


def count_gradients(vertices, edges) -> None:
    """Set how many gradients are summed at each vertex: those of different outputs are no terms of one sum."""
    for vertex in vertices:
        vertex.by_output = {}
    for edge in edges:
        if edge.kind == "gradient":
            edge.target.by_output[edge.output] = edge.target.by_output.get(edge.output, 0) + 1
    for vertex in vertices:
        vertex.contributions = max(vertex.by_output.values(), default=0)


def shape_text(shape) -> str:
    """``(32, 64)``, ``(3,)``; the empty text for a scalar."""
    return str(tuple(shape)) if shape else ""


def copied(vertex: Vertex, **changes) -> Vertex:
    return replace(vertex, arrays=[replace(array) for array in vertex.arrays], **changes)
