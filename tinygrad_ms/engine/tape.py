"""The tape: what a recorded op leaves behind (Node), where gradients end (Leaf), and the order of it all (tape_of)."""

import itertools
import weakref
from operator import attrgetter

from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.around.sentences import freed_error, in_place_error

_number = itertools.count(1)
_sequence = attrgetter("seq")


class Node:
    """One recorded op.

    A node keeps raw arrays, never tensors. So dropping a result frees the graph, with no garbage collector.
    """

    __slots__ = (
        "seq", "plan", "parents", "saved", "versions_at_save", "constants", "shape", "dtype", "backend", "scope",
        "code", "offset", "hooks", "__weakref__",
    )  # fmt: skip

    def __init__(self, plan, parents, saved, versions_at_save, constants, shape, dtype, backend, scope, code, offset):
        self.seq = next(_number)  # grows along the tape: a topological order for free
        self.plan = plan  # the primitive, and what of it this call needs (primitive.Plan); None: no op
        self.parents = parents  # per argument: Node, Constant, or the Python number itself
        self.saved = saved  # what the rules read, in the order of plan.names; None once freed
        self.versions_at_save = versions_at_save  # (counter, its value, argument) of every saved tensor
        self.constants = constants  # keyword arguments of the call: axis=, keepdims=, ...
        self.shape = shape  # of the output; None for an op with several, each of which is an Output
        self.dtype = dtype
        self.backend = backend
        self.scope = scope
        self.code, self.offset = code, offset  # of the call outside this package; a line number only when shown
        self.hooks = None  # functions applied to the gradient of the output

    @property
    def op(self) -> str:
        return self.plan.primitive.name

    def check(self) -> None:
        """Raise where the rules of this node would read what is gone, or what was changed since."""
        if self.saved is None:
            raise freed_error(self)
        for counter, version, argument in self.versions_at_save:
            if counter[0] != version:
                raise in_place_error(self, argument)

    def counter_of(self, k: int = 0) -> list[int]:
        """The version counter of output ``k``: made when somebody asks, which whoever can change the data has to."""
        for counter, _, argument in self.versions_at_save:
            if argument == -1 - k:
                return counter
        counter = [0]
        if self.plan is not None and k in self.plan.outputs:
            self.versions_at_save = (*self.versions_at_save, (counter, 0, -1 - k))
        return counter

    @property
    def line(self) -> str:
        """``file:line`` of the call that recorded this node."""
        if self.code is None:
            return "an unknown line"
        lines = [line for start, end, line in self.code.co_lines() if start <= self.offset < end and line]
        return f"{self.code.co_filename}:{lines[0] if lines else self.code.co_firstlineno}"

    def __repr__(self):
        return f"<Node {self.seq} {self.op} {self.shape}>"


class Leaf(Node):
    """A place where gradients end: a tensor of the user's with ``requires_grad``, or the input of a transform."""

    __slots__ = ("tensor", "name")
    op = "leaf"

    def __init__(self, shape, dtype, backend, tensor=None, name=None):
        super().__init__(None, (), (), (), {}, shape, dtype, backend, current_state().scope, None, 0)
        self.tensor = weakref.ref(tensor) if tensor is not None else None  # where ``backward`` leaves the gradient
        self.name = name


class Output(Node):
    """One of the several outputs of the op ``parents[0]``: ``constants["index"]`` says which."""

    __slots__ = ()
    op = "item"

    def __init__(self, node: Node, index: int, array):
        super().__init__(
            None, (node,), (), (), {"index": index}, array.shape, array.dtype, node.backend, node.scope, node.code,
            node.offset,
        )  # fmt: skip

    def counter_of(self, k: int = 0) -> list[int]:
        return self.parents[0].counter_of(self.constants["index"])


class Constant:
    """An argument off the tape, as a picture shows it: shape, dtype, name; never the data."""

    __slots__ = ("shape", "dtype", "backend", "name")

    def __init__(self, shape, dtype, backend, name=None):
        self.shape, self.dtype, self.backend, self.name = shape, dtype, backend, name


def tape_of(roots, until=(), since: int = 0) -> list[Node]:
    """The nodes that ``roots`` reach in the order they were recorded: a Wengert list.

    The search ends at the nodes in ``until``, and leaves out what was recorded before number ``since``.
    """
    seen = set(roots)
    stack = list(seen)
    tape = []
    while stack:
        node = stack.pop()
        tape.append(node)
        if until and node in until:
            continue
        for parent in node.parents:
            if (
                isinstance(parent, Node)
                and parent not in seen
                and (not since or parent.seq >= since or parent in until)
            ):
                seen.add(parent)
                stack.append(parent)
    tape.sort(key=_sequence)
    return tape


def nodes_reaching(targets, tape) -> set[Node]:
    """The nodes of ``tape`` from which a gradient can reach ``targets``."""
    reaching = set(targets)
    for node in tape:
        if any(isinstance(parent, Node) and parent in reaching for parent in node.parents):
            reaching.add(node)
    return reaching
