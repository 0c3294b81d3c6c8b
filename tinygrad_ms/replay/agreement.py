"""``check=True``: the replay and the step itself from the same state, compared bit by bit; loops, closely."""

from contextlib import ExitStack, contextmanager, suppress

import numpy

from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.optim.whole_steps import undone_on_error
from tinygrad_ms.random import generator
from tinygrad_ms.replay.refusal import equal
from tinygrad_ms.tree import flatten

CLOSE = 1024  # units in the last place of the largest number, which the rounding of loops may come to in a step


def close(a, b) -> bool:
    """Whether arrays differ by no more than what loops of a step may round in another way."""
    if equal(a, b) or a.dtype.kind != "f" or (a.dtype, a.shape) != (b.dtype, b.shape):
        return equal(a, b)
    finite, eps = numpy.isfinite(a), numpy.finfo(a.dtype).eps
    if not numpy.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    a, b = (x[finite].astype("float64") for x in (a, b))
    return bool(abs(a - b).max() <= CLOSE * eps * abs(a).max())


class Undo(Exception):
    """Ends a replay, so that its effects are undone."""


@contextmanager
def put_back(tensors, optimizers, schedules, generators):
    """Gradients, learning rates, schedules and generators are afterwards as before, if nothing is raised."""
    grads = [p.grad for p in tensors]
    contents = [None if p.grad is None else p.grad.data.copy() for p in tensors]
    rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    factors = [o._factor for o in optimizers]
    steps, drawn = [s.steps for s in schedules], [g.bit_generator.state for g in generators]
    yield
    for p, g, content in zip(tensors, grads, contents):
        p.grad = g
        if g is not None:
            g.data[...] = content
    for optimizer, lrs, factor in zip(optimizers, rates, factors):
        optimizer._factor = factor
        for group, lr in zip(optimizer.param_groups, lrs):
            group["lr"] = lr
    for schedule, n in zip(schedules, steps):
        schedule.steps = n
    for source, numbers in zip(generators, drawn):
        source.bit_generator.state = numbers


def run_both(compiled, program, args, kwargs, inputs):
    """The results of the step itself. Raises RuntimeError if the replay had another result or effect."""
    schedules = program.schedules
    optimizers = {**program.optimizers, **{id(s.optimizer): s.optimizer for s in schedules}}.values()
    parameters = {id(t): t for t in (*program.leaves, *program.tensors)}
    parameters |= {id(p): p for o in optimizers for group in o.param_groups for p in group["params"]}
    tensors = list(parameters.values())
    generators = {id(g): g for g in map(generator, program.generators)}.values()

    def state():
        found = [("a parameter", p.data.copy()) for p in tensors]
        found += [("a gradient", p.grad.data.copy() if p.grad is not None else None) for p in tensors]
        for optimizer in optimizers:
            for i, entry in optimizer.state_dict()["state"].items():
                found += [(f"{name} of parameter {i}", value) for name, value in entry.items()]
            found += [("a learning rate", group["lr"]) for group in optimizer.param_groups]
        found += [("a schedule", schedule.steps) for schedule in schedules]
        return found + [("a random generator", str(g.bit_generator.state)) for g in generators]

    with put_back(tensors, optimizers, schedules, generators), suppress(Undo), ExitStack() as stack:
        for states in [optimizer.state for optimizer in optimizers] or [{}]:
            stack.enter_context(undone_on_error(tensors, states))
        replayed = [raw(y) for y in flatten(program(inputs))[0]]
        replayed = [y.copy() if hasattr(y, "copy") else y for y in replayed]
        after = state()
        raise Undo
    result = compiled.run_eager(args, kwargs, inputs)
    compared = [("a result", raw(y)) for y in flatten(result)[0]] + state()
    same = close if program.plan.loops else equal
    for (what, a), b in zip(compared, [*replayed, *(value for _, value in after)], strict=True):
        if not (same(a, b) if hasattr(a, "dtype") and hasattr(b, "dtype") else a == b):
            raise RuntimeError(f"compile: check: {what} is another after the replay than after the step itself")
    return result
