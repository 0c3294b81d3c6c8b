"""The tape. A Node is a recorded op, a Leaf a place where gradients end. ``tape_of`` lists the nodes in their order."""

import itertools
import weakref
from operator import attrgetter
from typing import Any

from tinygrad_ms.engine.around.sentences import freed_error, in_place_error
from tinygrad_ms.lines import line_of
from tinygrad_ms.scopes import scopes

NUMBERS = frozenset((float, int, bool))  # Python numbers are weak scalars: they take the dtype of the arrays
tick = itertools.count(1).__next__  # numbers of the tape: each op and each in-place change takes the next one
last_change = [0]  # the number of the last in-place change of any tensor
_sequence = attrgetter("seq")


class Place:
    """What the tape keeps in the place of a value: shape, dtype, backend, and when the value was changed.

    counter: a list with one number, that of the tape at the last in-place change. All tensors that show the same memory
    share the list. It is None until somebody asks for it; whoever can change the value asks first.
    """

    __slots__ = ("shape", "dtype", "backend", "counter", "__weakref__")
    counter: Any

    def counter_of(self) -> list[int]:
        if self.counter is None:
            self.counter = [0]
        return self.counter


class Constant(Place):
    """An argument that is not on the tape: what a picture shows of it, never its data."""

    __slots__ = ("name",)

    def __init__(self, shape, dtype, backend, name=None):
        self.shape, self.dtype, self.backend, self.name, self.counter = shape, dtype, backend, name, None


class Node(Place):
    """One recorded op.

    A node keeps raw arrays, never tensors. So the graph is freed with its result, without a garbage collector.

    seq: the number of the node; it grows along the tape, so it gives a topological order.
    plan: a primitive.Plan: the primitive, and what this call needs of it. None: no op.
    parents: for each argument a Node, a Constant, or the Python number itself.
    saved: what the rules read, in the order of plan.names; None once freed.
    constants: the keyword arguments of the call, such as axis=.
    shape, dtype, counter: those of the output. With several outputs each one is an Output; then shape is None, and
    counter is a dict with the counters of the saved outputs.
    code, offset: where the call was made, outside this package. A line number is computed only when it is shown.
    hooks: functions that are applied to the gradient of the output.
    """

    __slots__ = ("seq", "plan", "parents", "saved", "constants", "scope", "code", "offset", "hooks")

    def __init__(self, plan, parents, saved, constants, shape, dtype, backend, scope, code, offset):
        self.seq = tick()
        self.plan, self.parents, self.saved, self.constants = plan, parents, saved, constants
        self.shape, self.dtype, self.backend = shape, dtype, backend
        self.scope, self.code, self.offset = scope, code, offset
        self.hooks = self.counter = None

    @property
    def op(self) -> str:
        return self.plan.primitive.name

    def check(self) -> None:
        """Raise RuntimeError if the rules of this node would read a value that was freed or changed since."""
        if self.saved is None:
            raise freed_error(self)
        parents, plan, seq = self.parents, self.plan, self.seq
        for i in plan.inputs:
            if type(parents[i]) not in NUMBERS and parents[i].counter is not None and parents[i].counter[0] > seq:
                raise in_place_error(self, i)
        if self.counter is not None:
            for k in plan.outputs:
                if (self.counter[k] if plan.several else self.counter)[0] > seq:
                    raise in_place_error(self, -1 - k)

    @property
    def line(self) -> str:
        """``file:line`` of the call that recorded this node."""
        return "an unknown line" if self.code is None else line_of(self.code, self.offset)

    def __repr__(self):
        return f"<Node {self.seq} {self.op} {self.shape}>"


class Leaf(Node):
    """A place where gradients end: a user's tensor with ``requires_grad``, or the input of a transform."""

    __slots__ = ("tensor", "name")
    op = "leaf"

    def __init__(self, shape, dtype, backend, tensor=None, name=None):
        super().__init__(None, (), (), {}, shape, dtype, backend, scopes(), None, 0)
        self.tensor = weakref.ref(tensor) if tensor is not None else None  # where ``backward`` leaves the gradient
        self.name = name


class Output(Node):
    """One of the several outputs of the op ``parents[0]``: ``constants["index"]`` says which."""

    __slots__ = ()
    op = "item"

    def __init__(self, node: Node, k: int, array):
        super().__init__(
            None, (node,), (), {"index": k}, array.shape, array.dtype, node.backend, node.scope, node.code, node.offset,
        )  # fmt: skip
        self.counter = node.counter.get(k)


def tape_of(roots, until=(), since: int = 0) -> list[Node]:
    """The nodes that ``roots`` reach in the order they were recorded: a Wengert list.

    The search ends at the nodes in ``until``. It leaves out what was recorded before number ``since``.
    """
    seen = set(roots)
    tape = list(seen)
    for node in tape:  # the loop appends to this list
        if until and node in until:
            continue
        for parent in node.parents:
            if parent in seen or not isinstance(parent, Node):
                continue
            if not since or parent.seq >= since or parent in until:
                seen.add(parent)
                tape.append(parent)
    tape.sort(key=_sequence)
    return tape


def nodes_reaching(targets, tape) -> set[Node]:
    """The nodes of ``tape`` from which a gradient can reach ``targets``."""
    reaching = set(targets)
    for node in tape:
        if any(isinstance(parent, Node) and parent in reaching for parent in node.parents):
            reaching.add(node)
    return reaching
