"""Backward for many cotangents at once. One walk, prepared once, gives many rows of a Jacobian.

The cotangents are a stack, with the rows along a new first axis. The rules of a primitive with ``batched=True`` take
the stack as they take one cotangent. The rules of another run row by row, and what they send is stacked again.
"""

from contextlib import nullcontext
from math import prod

from tinygrad_ms.arrays.sums import HALF, sum_to, wide
from tinygrad_ms.cards import on_cards
from tinygrad_ms.engine.around.gradients import pullbacks
from tinygrad_ms.engine.around.modes import enable_grad
from tinygrad_ms.engine.backward import hand_on, saved_as_tensors, step
from tinygrad_ms.engine.tape import Output, nodes_reaching, tape_of
from tinygrad_ms.float_errors import ignoring
from tinygrad_ms.ops.shapes import stack

MOST_ELEMENTS = 1 << 22  # the most elements of the cotangents of one node; more rows go in several stacks


class StackedWalk:
    """The walk from ``roots`` to ``targets``: the nodes between them, in their order."""

    def __init__(self, roots, targets, since=0):
        self.targets = set(targets)
        tape = tape_of(roots, until=self.targets, since=since)
        self.reaching = nodes_reaching(self.targets, tape)
        self.nodes = [node for node in reversed(tape) if node in self.reaching]
        self.hooked = any(node.hooks for node in self.nodes)
        largest = max([prod(node.shape) for node in self.nodes if node.shape is not None], default=1)
        self.most_rows = max(1, MOST_ELEMENTS // max(1, largest))

    def pull(self, root, seed, create_graph=False) -> dict:
        """For a stack ``seed`` of cotangents of ``root``: the stack of cotangents of each target, by target."""
        grads, found = {root: seed}, {}
        with ignoring("over"), enable_grad() if create_graph else nullcontext():  # as in backward.walk
            for node in on_cards(self.nodes, grads):
                g = grads.pop(node, None)
                if g is None:
                    continue
                if node.dtype is not None and g.dtype != node.dtype:
                    g = g.astype(node.dtype)
                if node in self.targets:
                    found[node] = g
                elif isinstance(node, Output):
                    hand_on(node, g, grads, ())
                else:
                    node.check()
                    run = at_once if node.plan.primitive.batched else one_by_one
                    for parent, d in run(node, g, self.reaching, create_graph, len(seed)):
                        if parent in grads:  # half precision in float32, as in backward.step
                            d = (wide(grads[parent]) if d.dtype.char in HALF else grads[parent]) + d
                        grads[parent] = d
        return found


def at_once(node, g, wanted_by, create_graph, rows):
    """(parent, stack of its cotangents) for each parent that is wanted, from rules that take a stack."""
    plan = node.plan
    saved = saved_as_tensors(node) if create_graph else node.saved
    if plan.slots is not None:
        g = tuple(map(g.get, plan.slots))
    for i, rule, positions in plan.pullbacks or pullbacks(node, g, saved, wanted_by):
        parent = node.parents[i]
        if parent in wanted_by and (d := rule(g, *[saved[p] for p in positions])) is not None:
            shape = (rows, *parent.shape)
            if d.shape != shape:  # as in backward.unbroadcast, behind the first axis
                d = sum_to(d, (rows, *(1,) * (len(d.shape) - len(shape)), *parent.shape)).reshape(shape)
            yield parent, d if d.dtype == parent.dtype else d.astype(parent.dtype)


def one_by_one(node, g, wanted_by, create_graph, rows):
    """The same for rules that take one cotangent at a time."""
    sent: list[dict] = [{} for _ in range(rows)]
    for i, row in enumerate(sent):
        one = {k: s[i, ...] for k, s in g.items()} if node.plan.several else g[i, ...]
        step(node, one, row, wanted_by, create_graph, ())
    for parent in {parent: None for row in sent for parent in row}:
        zeros = None if all(parent in row for row in sent) else parent.backend.xp.zeros(parent.shape, parent.dtype)
        yield parent, stack([row.get(parent, zeros) for row in sent])
