"""Arithmetic of large arrays on several threads: the numbers and the warnings are those of NumPy."""

from collections.abc import Callable
from functools import cache

import numpy

from tinygrad_ms.ops.fused.chains import chain
from tinygrad_ms.ops.fused.team import pays

__all__: list[str] = []

NAMES = "add", "subtract", "multiply", "divide", "sqrt"
LARGE = 200_000  # elements: for fewer a thread saves little


def share_arithmetic(ops, is_on):
    """From now on these ops run on several threads, while is_on() holds."""
    for primitive, function in ops:
        if function.__name__ in NAMES:
            primitive.direct[numpy.ndarray] = shared(function, is_on)


def shared(function, is_on) -> Callable:
    """The ufunc of one or two arguments."""

    def run(*given):
        for x in given:
            if type(x) is numpy.ndarray and x.size >= LARGE:
                return (
                    y if pays(x.size) and is_on() and (y := on_team(function, given)) is not None else function(*given)
                )
        return function(*given)

    return run


def on_team(function, given):
    """The result; None where arrays differ in shape or dtype or have gaps, or NumPy may have a warning to give."""
    arrays = [x for x in given if type(x) is numpy.ndarray]
    first = arrays[0]
    for x in arrays:
        if x.shape != first.shape or x.dtype is not first.dtype or not (x.flags.c_contiguous and x.flags.aligned):
            return None
    if first.dtype.char not in "fd" or numpy.geterr()["under"] != "ignore":
        return None
    values = [x.reshape(-1) if type(x) is numpy.ndarray else float(x) for x in given]
    y = numpy.empty_like(first)
    (total,) = loop(function.__name__, tuple(map(type, values)), first.dtype.name)((y.size,), *values, y.reshape(-1))
    return y if total == 0 else None


@cache
def loop(name, kinds, real):
    """The loop. It adds up 0 y, which is not 0 if a y is infinite or no number."""
    inputs = {f"x{k}": "0" if kind is float else "1" for k, kind in enumerate(kinds)}
    run = chain([("y", name, *inputs), ("z", "multiply", "y", 0.0)], inputs, {"y": ""}, ["z"], real=real)
    samples = [0.0 if kind is float else numpy.empty(2, real) for kind in kinds]
    run.prepare([*samples, numpy.empty(2, real)])
    return run
