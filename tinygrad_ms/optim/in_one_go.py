"""Compiled steps of large parameters on a CPU: those of a group together, so that all threads share them."""

from collections.abc import Callable

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.fused import LEAST, find, is_on, loaded

STEPPED: set[Callable] = set()  # each ``update`` that does what the kernel does which ``Optimizer.kernel`` names


def by_kernel(update):
    """Mark an ``update`` of that kind."""
    STEPPED.add(update)
    return update


def run_kernel(optimizer, p, g, state, options) -> bool:
    """The step of one parameter. False where no kernel takes its arrays."""
    plain = type(p) is numpy.ndarray  # the kernel takes numbers of Python, and rounds them
    if not (plain or BACKENDS[type(p)].recorder):
        return False
    numbers = optimizer.scalars(options, state["step"]) if plain else optimizer.numbers(p, options, state)
    name, values = optimizer.kernel(options, numbers)
    arrays = p, g, *(state[buffer] for buffer in optimizer.buffers(options))
    if run := find(name, *arrays):
        run(*arrays, *values)
    return bool(run)


def together(optimizer, work, now) -> list:
    """Make the steps of all parameters that go together, as number ``now`` of the tape.

    Returns the items of ``work`` that are left: small ones, those with gaps, and those that may show one memory.
    """
    if not is_on() or sum(item[0].size >= LEAST for item in work) < 2:
        return work
    found: dict[tuple, list] = {}
    left = []
    for item in work:
        array, g, state, group, p, fresh = item
        large = type(array) is numpy.ndarray and array.size >= LEAST and array.dtype.char in "fd" and not fresh
        if large and isinstance(array.base, (numpy.ndarray, type(None))) and hasattr(p, "version_counter"):
            arrays = array, g, *(state[buffer] for buffer in optimizer.buffers(group))
            if all(a.flags.c_contiguous and a.flags.aligned for a in arrays):
                found.setdefault((id(group), state["step"], array.dtype), []).append((item, arrays))
                continue
        left.append(item)
    for (_, step, dtype), pairs in found.items():
        items, lists = zip(*pairs)
        options, owners = items[0][3], {id(p if p.base is None else p.base) for p, *_ in lists}
        name, values = optimizer.kernel(options, optimizer.scalars(options, step + 1))
        kernel = loaded().get(name)
        if len(owners) < max(2, len(items)) or kernel is None or not kernel.ready(dtype):
            left += items
            continue
        kernel.over(lists, *map(float, values))
        for _, _, state, _, p, _ in items:
            state["step"] += 1
            p.version_counter()[0] = now
    return left
