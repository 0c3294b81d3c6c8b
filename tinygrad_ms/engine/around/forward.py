"""Forward mode: one walk over the tape from its start with the JVP rules."""

from typing import Any

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.sums import may_sum_to
from tinygrad_ms.cards import NOWHERE, on_cards
from tinygrad_ms.engine.around.modes import enable_grad
from tinygrad_ms.engine.around.sentences import tangent_error
from tinygrad_ms.engine.backward import saved_as_tensors
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tape import Leaf, Output, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.float_errors import ignoring


def push_forward(nodes, tangents: dict, create_graph=False, since=0, tape=None) -> list:
    """Carry ``tangents`` (by node) along the tape to ``nodes``; None for a node that does not depend on them.

    tape: from ``tape_of``, if it is known.
    """
    tangents = dict(tangents)
    with ignoring("over"), enable_grad() if create_graph else NOWHERE:  # as in backward.walk
        for node in on_cards(tape or tape_of(nodes, until=tangents, since=since), tangents):
            if node in tangents or isinstance(node, Leaf):
                continue
            given: list[Any] = [tangents.get(parent) for parent in node.parents]
            if all(t is None for t in given):
                continue
            t = given[0][node.constants["index"]] if isinstance(node, Output) else run_rule(node, given, create_graph)
            if t is not None:
                tangents[node] = t if node.shape is None else matching(t, node)
    return [tangents.get(node) for node in nodes]


def run_rule(node, incoming, create_graph):
    """The tangent of a node, by its JVP rule, from the tangents of its arguments (None where an argument has none)."""
    node.check()
    if node.plan.primitive.jvp is None:
        raise RuntimeError(f"jvp: {node.op} has no JVP rule; give its primitive jvp=")
    if not node.plan.forward_mode:
        raise RuntimeError(f"jvp: {node.op} (recorded at {node.line}) was not recorded for forward mode")
    saved = saved_as_tensors(node) if create_graph else node.saved
    return node.plan.primitive.jvp(node.plan, incoming, saved, node.constants)


def matching(t, node):
    """A tangent broadcast to the shape of the output, in the dtype of the output."""
    if not (hasattr(t, "dtype") and is_float(t.dtype) and may_sum_to(node.shape, t.shape)):
        raise tangent_error(node, t)
    if t.shape != node.shape:
        t = t + node.backend.xp.zeros(node.shape, dtype=node.dtype)
    t = t if t.dtype == node.dtype else t.astype(node.dtype)
    return t if isinstance(t, Tensor) else as_array(t, node.backend)
