"""The backward walk through elementwise ops of large arrays: runs of them that come again are one compiled loop.

A rule reads and writes whole arrays, and for large ones memory takes most of its time. In a loop the gradients between
the ops of a run stay in registers (``rules.py``). The walk sees the nodes as ever.
"""

from math import prod

import numpy

from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.tape import NUMBERS, Node, last_change
from tinygrad_ms.ops.fused.rules import find_loop

__all__: list[str] = []

LARGE = 1 << 16  # elements: from so many on memory takes most of the time of a rule
TOGETHER = 32  # nodes: the arrays that they saved are freed when all of them are done


def from_the_end(tape, grads):
    """The tape in reverse order. Elementwise ops are done here if the tape ends with large arrays."""
    large = prod(tape[-1].shape or ()) >= LARGE or (len(tape) > 1 and prod(tape[-2].shape or ()) >= LARGE)
    return through(tape, grads) if large and not current_state().hooks else reversed(tape)


def through(tape, grads):
    """The nodes in reverse order. Runs of nodes that fit have sent their gradients before they come."""
    run: list[Node] = []
    for node in reversed(tape):
        large = is_large_and_elementwise(node)
        if run and not (large and len(run) < TOGETHER and node.shape == run[0].shape and node.dtype is run[0].dtype):
            send(run, grads)
            yield from run
            run = []
        if large:
            run.append(node)
        else:
            yield node
    send(run, grads)
    yield from run


def is_large_and_elementwise(node) -> bool:
    """Whether all that the rules of the node read and send are large arrays of NumPy in one layout, or numbers."""
    plan, shape, dtype = node.plan, node.shape, node.dtype
    if plan is None or not plan.primitive.each or node.constants or node.hooks or not plan.pullbacks:
        return False
    if node.backend.array_type is not numpy.ndarray or dtype.char not in "fd" or prod(shape) < LARGE:
        return False
    if node.saved is None or last_change[0] > node.seq:
        node.check()
    if not all(type(x) in NUMBERS or (fits(x, node) and x.flags.c_contiguous) for x in node.saved):
        return False
    return all(node.parents[i].shape == shape and node.parents[i].dtype is dtype for i, _, _ in plan.pullbacks)


def fits(x, node) -> bool:
    return type(x) is numpy.ndarray and x.shape == node.shape and x.dtype is node.dtype


def send(run, grads):
    """Run the rules of the nodes as a loop, if there is one. What goes to other nodes is put into ``grads``.

    A slot is the place of a node in the run; behind these are the slots of the other nodes.
    """
    inside = set(run)
    outside = dict.fromkeys(
        p for node in run for i, _, _ in node.plan.pullbacks if (p := node.parents[i]) not in inside
    )
    places = [*run, *outside]
    given = {slot: grads[p] for slot, p in enumerate(places) if p in grads}
    if len(run) < 2 or not all(
        fits(g, run[0]) and (g.flags.c_contiguous or not any(g.strides)) for g in given.values()
    ):
        return
    slots = {p: slot for slot, p in enumerate(places)}
    work = [([(slots[node.parents[i]], *rule) for i, *rule in node.plan.pullbacks], node.saved) for node in run]
    shape, dtype = run[0].shape, run[0].dtype
    if loop := find_loop(tuple([node.plan for node in run]), work, given, dtype, prod(shape)):
        for slot in given:
            del grads[places[slot]]
        made = {slots[p]: numpy.empty(shape, dtype) for p in outside}
        grads |= {places[slot]: made[slot] for slot in loop({slot: y.reshape(-1) for slot, y in made.items()})}
