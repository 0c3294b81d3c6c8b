"""Calls of small arrays in the form that NumPy answers fastest, with the same results bit by bit.

NumPy needs 0.3 us for an elementwise call of equal shapes and dtypes, and two to five times as much for any other.
"""

import math
from functools import cache

import numpy
from numpy.lib.stride_tricks import as_strided

from tinygrad_ms.replay.trace import Entry, Storage, Value

HOST = {numpy.ndarray, numpy.float32, numpy.float64}
METHODS = {numpy.sum: "sum", numpy.prod: "prod", numpy.max: "max", numpy.min: "min"}
SMALL = 4096  # numbers of an array; for more of them, the time of a call is that of its numbers


def simplify(plan) -> None:
    readers: dict[Value, int] = {}
    for e in plan.entries:
        for v in plan.reads(e):
            readers[v] = readers.get(v, 0) + 1
    kept: list[Entry] = []
    for e in plan.entries:
        if e.kind == "call" and e.function in METHODS and getattr(e.args[0], "kind", None) is numpy.ndarray:
            e.function = METHODS[e.function]
        if e.kind == "expect":
            decide(plan, e, kept, readers)
        elif e.kind == "call" and isinstance(e.function, numpy.ufunc) and e.function.signature is None:
            out = e.kwargs.get("out", e.outs)
            if type(out) is Value and out.shape and 0 < math.prod(out.shape) <= SMALL:
                align(plan, e, kept, out)
                widen(plan, e, kept, out)
                not_in_place(plan, e, kept, out)
        elif e.function == "sum" and type(e.outs) is Value:
            sum_of_one(plan, e, kept, e.outs)
        kept.append(e)
    plan.entries = kept


def decide(plan, e, kept, readers) -> None:
    """Whether one number is finite is asked of Python, not of a ufunc."""
    v, answer = plan.resolve(e.args[0]), e.args[1]
    test = v.entry
    if kept and test is kept[-1] and finite(plan, test) and readers[v] == 1 and not test.writes:
        x = plan.resolve(test.args[0])
        x = plan.resolve(x.entry.args[0]) if test.function is numpy.less else x
        if type(x) is Value and x.kind in HOST and x.shape == () and x.dtype.char in "fd":
            e.function, e.args = math.isfinite, (x, answer)
            plan.inputs.pop(e, None)


def finite(plan, test) -> bool:
    """Whether a call asks if x is finite: isfinite(x), or abs(x) < inf."""
    if test.function is not numpy.less:
        return test.function is numpy.isfinite
    size, bound = plan.resolve(test.args[0]), test.args[1]
    maker = size.entry if type(size) is Value else None
    return maker is not None and maker.function is numpy.absolute and not maker.writes and bound == math.inf


def align(plan, e, kept, out) -> None:
    """A parameter has as many axes as the result."""
    args = [*map(plan.resolve, e.args)]
    for i, x in enumerate(args):
        if type(x) is not Value or x.storage.kind != "outside" or type(x.thing) is not numpy.ndarray:
            continue
        if x.shape != out.shape == (1,) * (len(out.shape) - len(x.shape)) + x.shape:
            args[i] = before(e, kept, "reshape", (x, out.shape), out.shape, x.dtype)
            args[i].storage, args[i].root = x.storage, False
    replace(plan, e, args)


def widen(plan, e, kept, out) -> None:
    """Numbers in float32 of a call in float64 become float64 before it. The call itself would do it piece by piece."""
    args, asked = [*map(plan.resolve, e.args)], e.kwargs.get("dtype")
    wide = asked is not None or "out" not in e.kwargs or any(type(x) is Value and x.dtype.char == "d" for x in args)
    if not wide or out.dtype.char != "d" or numpy.dtype(asked or "d").char != "d" or set(e.kwargs) - {"out", "dtype"}:
        return
    for i, x in enumerate(args):
        fits = type(x) is Value and x.dtype.char == "f" and x.kind is numpy.ndarray and x.shape == out.shape
        if fits and in_c(x):
            args[i] = before(e, kept, "astype", (x, out.dtype), out.shape, out.dtype)
    if replace(plan, e, args):
        e.kwargs.pop("dtype", None)


def not_in_place(plan, e, kept, out) -> None:
    """One number is not changed in place, but made anew by the second of two calls."""
    maker, args = out.entry, [*map(plan.resolve, e.args)]
    if set(e.kwargs) != {"out"} or math.prod(out.shape) > 1 or not out.root or maker not in kept:
        return
    if not any(x is out for x in args) or any(
        x.dtype != out.dtype if type(x) is Value else type(x) not in (int, float) for x in args
    ):
        return  # without ``out``, the result has another dtype
    between = [v.storage for k in kept[kept.index(maker) + 1 :] for v in plan.reads(k)]
    if maker.outs is out and maker.kind == "call" and not maker.writes and out.storage not in between:
        maker.outs = first = new(out.shape, out.dtype, maker)
        e.args = tuple([first if x is out else x for x in args])
        e.outs, e.writes, out.entry = out, [], e
        del e.kwargs["out"]
        plan.writers[out.storage].remove(e)
        plan.inputs.pop(e, None)


def sum_of_one(plan, e, kept, out) -> None:
    """The sum of one number x is x + 0."""
    x = plan.resolve(e.args[0])
    if x.kind is not numpy.ndarray or math.prod(x.shape) != 1 or x.dtype.char not in "fd" or out.dtype != x.dtype:
        return
    if out.scalar or e.writes or len(e.args) > 2 or set(e.kwargs) - {"axis", "keepdims"}:
        return
    e.errors = plan.base
    if x.shape != out.shape:
        view = before(e, kept, "reshape", (x, out.shape), out.shape, x.dtype)
        view.storage, view.root, x = x.storage, False, view
    e.function, e.args, e.kwargs, out.lifted = numpy.add, (x, 0.0), {}, out.shape == ()
    plan.inputs.pop(e, None)


def products(plan) -> None:
    """Small matrices are multiplied by ``dot``, which needs half the time of ``matmul``. NumPy's warnings name it."""
    for e in plan.entries:
        out = plan.resolve(e.kwargs.get("out", e.outs))
        if e.function is numpy.matmul and e.kind == "call" and not set(e.kwargs) - {"out"} and type(out) is Value:
            a, b = map(plan.resolve, e.args)
            fine = [
                type(v) is Value and v.kind is numpy.ndarray and len(v.shape) == 2 and v.dtype == out.dtype
                and (1 < math.prod(v.shape) <= SMALL or v is out) and min(v.strides) > 0
                for v in (a, b, out)
            ]  # fmt: skip
            if not all(fine) or out.dtype.char not in "fd" or not in_c(out) or a.storage is b.storage:
                continue
            if same_numbers(*[(v.shape, v.strides, v.dtype) for v in (a, b)]):
                e.function = numpy.dot


SPECIAL = (0.0, -0.0, 1.0, -2.0, numpy.inf, -numpy.inf, numpy.nan, 1e-30, 1e30)


@cache
def same_numbers(*operands) -> bool:
    """Whether ``dot`` and ``matmul`` make the same bits of matrices with these shapes, strides, dtypes: five trials."""
    rng = numpy.random.default_rng(0)
    for i in range(5):
        given = []
        for shape, strides, dtype in operands:
            count = 1 + sum((n - 1) * s for n, s in zip(shape, strides)) // dtype.itemsize
            numbers = rng.standard_normal(count) if i < 3 else rng.choice(SPECIAL, count)
            given.append(as_strided(numbers.astype(dtype), shape, strides))
        with numpy.errstate(all="ignore"):
            if numpy.matmul(*given).tobytes() != numpy.dot(*given).tobytes():
                return False
    return True


def before(e, kept, function, args, shape, dtype) -> Value:
    """The result of another call, which stands before ``e``."""
    entry = Entry("call", function, args)
    entry.errors, entry.label = e.errors, e.label
    entry.outs = new(shape, dtype, entry)
    kept.append(entry)
    return entry.outs


def new(shape, dtype, entry) -> Value:
    """What ``entry`` makes: memory in the order of C."""
    value = Value(Storage("buffer"), numpy.empty(shape, dtype), True, entry)
    value.storage.count, value.storage.maker = math.prod(shape), "call"
    return value


def in_c(v) -> bool:
    return v.strides == numpy.empty(v.shape, v.dtype).strides


def replace(plan, e, args) -> bool:
    if changed := any(a is not plan.resolve(b) for a, b in zip(args, e.args)):
        e.args = tuple(args)
        plan.inputs.pop(e, None)
    return changed
