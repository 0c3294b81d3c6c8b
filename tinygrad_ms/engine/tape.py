"""The tape: what a recorded op leaves behind (Node), where gradients end (Leaf), and the order of it all (tape_of)."""

import itertools
import weakref
from operator import attrgetter
from typing import Any

from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.around.sentences import freed_error, in_place_error
from tinygrad_ms.lines import line_of

NUMBERS = frozenset((float, int, bool))  # Python numbers are weak scalars: they take the dtype of the arrays
tick = itertools.count(1).__next__  # the next number of the tape: of an op, or of an in-place change
last_change = [0]  # the number of the last in-place change of any tensor
_sequence = attrgetter("seq")


class Place:
    """What the tape keeps of a value instead of the value: shape, dtype, backend, and when it was changed.

    counter: a list that all share who show the same memory, with the number of the tape at the last in-place change.
    It is made when somebody asks, which whoever can change the value has to; until then it is None.
    """

    __slots__ = ("shape", "dtype", "backend", "counter", "__weakref__")
    counter: Any

    def counter_of(self) -> list[int]:
        if self.counter is None:
            self.counter = [0]
        return self.counter


class Constant(Place):
    """An argument off the tape, as a picture shows it; never the data."""

    __slots__ = ("name",)

    def __init__(self, shape, dtype, backend, name=None):
        self.shape, self.dtype, self.backend, self.name, self.counter = shape, dtype, backend, name, None


class Node(Place):
    """One recorded op.

    A node keeps raw arrays, never tensors. So dropping a result frees the graph, with no garbage collector.

    seq: grows along the tape: a topological order for free. plan: the primitive, and what of it this call needs
    (primitive.Plan); None: no op. parents: per argument: Node, Constant, or the Python number itself. saved: what the
    rules read, in the order of plan.names; None once freed. constants: keyword arguments of the call: axis=, ...
    shape, dtype, counter: of the output; where there are several, each is an Output, shape is None, and counter has
    those of the saved ones by their index. code, offset: of the call outside this package; a line number only when
    shown. hooks: functions applied to the gradient of the output.
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
        """Raise where the rules of this node would read what is gone, or what was changed since."""
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
    """A place where gradients end: a tensor of the user's with ``requires_grad``, or the input of a transform."""

    __slots__ = ("tensor", "name")
    op = "leaf"

    def __init__(self, shape, dtype, backend, tensor=None, name=None):
        super().__init__(None, (), (), {}, shape, dtype, backend, current_state().scope, None, 0)
        self.tensor = weakref.ref(tensor) if tensor is not None else None  # where ``backward`` leaves the gradient
        self.name = name


class Output(Node):
    """One of the several outputs of the op ``parents[0]``: ``constants["index"]`` says which."""

    __slots__ = ()
    op = "item"

    def __init__(self, node: Node, index: int, array):
        super().__init__(
            None, (node,), (), {"index": index}, array.shape, array.dtype, node.backend, node.scope, node.code,
            node.offset,
        )  # fmt: skip
        self.counter = node.counter.get(index)


def tape_of(roots, until=(), since: int = 0) -> list[Node]:
    """The nodes that ``roots`` reach in the order they were recorded: a Wengert list.

    The search ends at the nodes in ``until``, and leaves out what was recorded before number ``since``.
    """
    seen = set(roots)
    tape = list(seen)
    for node in tape:  # which grows on the way
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
