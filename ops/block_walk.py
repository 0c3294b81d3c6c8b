"""The backward walk through elementwise ops of large arrays, block by block: gradients between them stay in the cache.

A rule reads and writes whole arrays, and for large ones memory takes most of its time. So the rules of several ops, one
after the other on the tape, all run on one block before the next one. Each number comes from the same operations in
the same order, and the walk sees the nodes as ever. (A gradient that repeats one number, as that of a sum, may leave a
run as a whole array. A rule that has another formula for whole arrays then rounds differently.) With the extra ``fast``
the rules become one compiled loop where the same ops come again and again; then numbers differ by rounding.
"""

import importlib
from functools import cache
from math import prod
from sys import getrefcount

import numpy

from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.backward import ORDERS
from tinygrad_ms.engine.tape import NUMBERS, Node, last_change
from tinygrad_ms.ops.blocks import BLOCK, MANY
from tinygrad_ms.ops.fused import is_on

__all__: list[str] = []

TOGETHER = 32  # nodes: the arrays that they saved are freed when all of them are done
STEP = 3 * BLOCK  # bytes; NumPy reuses temporaries from 2^18 bytes on
ALONE = 2  # the count of references to an array of which no other code knows


def in_blocks_from_the_end(tape, grads):
    """The tape in reverse order. Elementwise ops are done here if the tape ends with large arrays."""
    large = prod(tape[-1].shape or ()) >= MANY or (len(tape) > 1 and prod(tape[-2].shape or ()) >= MANY)
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
    if node.backend.array_type is not numpy.ndarray or dtype.char not in "fd" or prod(shape) < MANY:
        return False
    if node.saved is None or last_change[0] > node.seq:
        node.check()
    if not all(type(x) in NUMBERS or (fits(x, node) and x.flags.c_contiguous) for x in node.saved):
        return False
    return all(node.parents[i].shape == shape and node.parents[i].dtype is dtype for i, _, _ in plan.pullbacks)


def fits(x, node) -> bool:
    return type(x) is numpy.ndarray and x.shape == node.shape and x.dtype is node.dtype


def send(run, grads):
    """Run the rules of the nodes on each block. What goes to other nodes is added to ``grads``.

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
    for slot in given:
        del grads[places[slot]]
    slots = {p: slot for slot, p in enumerate(places)}
    work = [([(slots[node.parents[i]], *rule) for i, *rule in node.plan.pullbacks], node.saved) for node in run]
    shape, dtype = run[0].shape, run[0].dtype
    made = {slots[p]: numpy.empty(shape, dtype) for p in outside}
    flat = {slot: y.reshape(-1) for slot, y in made.items()}
    loop = is_on() and loops().find_loop(tuple([node.plan for node in run]), work, given, dtype, prod(shape))
    done = loop(flat) if loop else in_blocks(work, given, flat, prod(shape), STEP // dtype.itemsize)
    grads |= {places[slot]: made[slot] for slot in done}


def in_blocks(work, given, flat, size, step):
    """The same by NumPy. Returns the slots that a gradient came to."""
    given = {slot: g.reshape(-1) for slot, g in given.items()}
    work = [(rules, [x if type(x) in NUMBERS else x.reshape(-1) for x in saved]) for rules, saved in work]
    here: dict = {}
    for start in range(0, max(size - step, 1), step):  # the last block is up to twice as large
        part = slice(start, start + step if start + 2 * step < size else size)
        here = {slot: g[part] for slot, g in given.items()}
        for k, (rules, saved) in enumerate(work):
            if (g := here.pop(k, None)) is None:
                continue
            saved = [x if type(x) in NUMBERS else x[part] for x in saved]
            for slot, rule, positions in rules:
                if (d := rule(g, *[saved[p] for p in positions])) is not None:
                    if slot in here:
                        d = numpy.add(here[slot], d, out=d if getrefcount(d) == ALONE and d.base is None else None)
                    here[slot] = d
        for slot, d in here.items():
            flat[slot][part] = d
    return here


@cache
def loops():
    """Compiled loops of rules."""
    return importlib.import_module("tinygrad_ms.ops.fused.rules")


ORDERS.append(in_blocks_from_the_end)
