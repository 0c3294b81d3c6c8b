"""Products of many small matrices: a transposed second factor is laid out anew, for which BLAS takes twice the time."""

import numpy

from tinygrad_ms.ops.fused import find, is_on
from tinygrad_ms.replay.trace import Entry, Storage, Value

FEW, INNER, WIDE = 16, 64, 128  # rows of the first factor at least; rows and columns of the second at most
TOGETHER = 4096  # numbers of all second factors at least


class Transposed:
    """A copy of matrices whose columns lie one behind the other; its rows do."""

    __name__, written = "transposed", ()

    def __call__(self, x, out=None):
        out = numpy.empty(x.shape, x.dtype) if out is None else out
        k, n = x.shape[-2:]
        rows = [a.reshape((-1, k * n)) for a in (x.mT, out)]
        if run := find("transposed", *rows):
            run(*rows, k)
        else:
            out[...] = x
        return out


TRANSPOSED = Transposed()


def lay_out(plan) -> None:
    """Put such copies into the entries of a plan."""
    kept: list[Entry] = []
    if not is_on():
        return
    for e in plan.entries:
        if e.function is numpy.matmul and e.kind == "call" and not e.writes and len(e.args) == 2:
            x, y = (plan.resolve(a) for a in e.args)
            if type(x) is Value and type(y) is Value and pays(x, y):
                copy = plain_copy(y, e.errors)
                kept.append(copy)
                e.args = (e.args[0], copy.outs)
                plan.inputs.pop(e, None)
        kept.append(e)
    plan.entries = kept


def pays(x, y) -> bool:
    if y.kind is not numpy.ndarray or y.dtype.char != "f" or x.dtype != y.dtype or len(x.shape) < 3 or len(y.shape) < 3:
        return False
    (k, n), size = y.shape[-2:], y.dtype.itemsize
    expected = size
    for axis in (len(y.shape) - 2, len(y.shape) - 1, *range(len(y.shape) - 3, -1, -1)):
        if y.shape[axis] != 1 and y.strides[axis] != expected:
            return False
        expected *= y.shape[axis]
    return 1 < k <= INNER and 1 < n <= WIDE and x.shape[-2] >= FEW and expected // size >= TOGETHER


def plain_copy(y, errors) -> Entry:
    value = Value.__new__(Value)
    for name in ("shape", "dtype", "kind"):
        setattr(value, name, getattr(y, name))
    value.storage, value.root, value.thing, value.scalar, value.lifted = Storage("buffer"), True, None, False, False
    strides, step = [], y.dtype.itemsize
    for n in y.shape[::-1]:
        strides.append(step)
        step *= n
    value.strides = tuple(strides[::-1])
    value.storage.count, value.storage.maker = step // y.dtype.itemsize, "call"
    entry = Entry("call", TRANSPOSED, (y,), None, value)
    entry.errors, entry.label = errors, "transposed"
    value.entry = entry
    return entry
