"""Products of stacks of matrices: out <- alpha a b + beta out, on devices by one call of the BLAS library.

CuPy's ``matmul`` copies the transposed matrices of a stack, takes a temporary for an ``out`` with gaps, and computes
pointers on the device where stacks broadcast. Here the layout goes to BLAS as it is: flags for transposes, the length
of a row in memory, the distance between matrices, 0 where one matrix serves all.
"""

from functools import lru_cache
from itertools import product as pairs
from math import prod
from typing import NamedTuple

from numpy import broadcast_shapes

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import launcher

BLAS = "eEfd"  # the characters of the dtypes that it multiplies
CALLS = 2  # one after the other where no single distance leads through a stack; beyond that its matrices are copied


class Operand(NamedTuple):
    """Where matrices lie, in elements: the first, whether column by column, the length of a row, the distance."""

    start: int
    turned: bool
    row: int
    step: int


class Gemm(NamedTuple):
    """One call. cuBLAS reads columns first: there a and b change places, and C^T = B^T A^T."""

    rows: int
    columns: int
    inner: int
    matrices: int
    a: Operand
    b: Operand
    out: Operand


def product(xp, a, b, out=None, alpha=1.0, beta=0.0):
    """alpha a b + beta out for raw a (..., n, k) and b (..., k, m), whose leading dimensions broadcast.

    ``out`` does not overlap a or b; it is returned. Where the library of the arrays has no such call, by ``matmul``.
    """
    found = launcher(a)
    if found is not None and a.dtype == b.dtype and a.dtype.char in BLAS and a.ndim > 1 < b.ndim:
        return strided(found.gemm, xp, a, b, out, alpha, beta)
    if beta == 0:
        y = xp.matmul(a, b) if out is None else xp.matmul(a, b, out=out)
        if alpha != 1:
            y *= alpha
        return y
    y = xp.matmul(a, b)
    y *= alpha
    out *= beta
    out += y
    return out


def times(a, b):
    """a @ b of arrays or Tensors; stacks of a device by ``product``."""
    if launcher(a) is None or (a.ndim < 3 and b.ndim < 3):
        return a @ b
    return product(BACKENDS[type(a)].xp, a, b)


def strided(gemm, xp, a, b, out=None, alpha=1.0, beta=0.0):
    """``product`` by calls of ``gemm``."""
    if out is None:
        batch = a.shape[:-2] if a.shape[:-2] == b.shape[:-2] else broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    calls = calls_for(a.shape, a.strides, b.shape, b.strides, out.shape, out.strides, a.itemsize)
    if calls is None:
        return rearranged(gemm, xp, a, b, out, alpha, beta)
    for call in calls:
        gemm(call, a, b, out, alpha, beta)
    return out


def rearranged(gemm, xp, a, b, out, alpha, beta):
    """``strided`` where BLAS cannot take the arrays as they lie: they are empty, turned, or copied."""
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: the inner dimensions differ")
    batch, size = out.shape[:-2], a.itemsize
    if not out.size or not a.shape[-1]:
        out[...] = beta * out if beta else 0
        return out
    laid = layout(out.shape, out.strides, size)
    stretched = [x.shape[:-2] != batch for x in (a, b)]
    if laid is not None and laid[0]:
        strided(gemm, xp, b.mT, a.mT, out.mT, alpha, beta)
    elif not all(layout(x.shape, x.strides, size) for x in (a, b)):
        a, b = (x if layout(x.shape, x.strides, size) else xp.ascontiguousarray(x) for x in (a, b))
        strided(gemm, xp, a, b, out, alpha, beta)
    elif laid is None or not any(stretched) and a.flags.c_contiguous and b.flags.c_contiguous:
        y = strided(gemm, xp, a, b, None, alpha)
        out[...] = y + beta * out if beta else y
    else:
        copied = stretched if any(stretched) else [True, True]
        whole = ((*batch, *x.shape[-2:]) for x in (a, b))
        pairs_of = zip((a, b), copied, whole)
        a, b = (xp.ascontiguousarray(xp.broadcast_to(x, shape)) if copy else x for x, copy, shape in pairs_of)
        strided(gemm, xp, a, b, out, alpha, beta)
    return out


@lru_cache(4096)
def calls_for(a_shape, a_strides, b_shape, b_strides, out_shape, out_strides, itemsize) -> tuple[Gemm, ...] | None:
    """The calls for arrays that lie so in memory; None where there are none, or too many."""
    shapes, strides = (a_shape, b_shape, out_shape), (a_strides, b_strides, out_strides)
    laid = [layout(shape, steps, itemsize) for shape, steps in zip(shapes, strides)]
    if a_shape[-1] != b_shape[-2] or 0 in (*a_shape, *b_shape, *out_shape) or None in laid or laid[2][0]:  # type: ignore
        return None
    (count, *steps), *others = joint_axes(out_shape[:-2], shapes, strides, itemsize)
    if prod(extent for extent, *_ in others) > CALLS:
        return None
    made = []
    for index in pairs(*(range(extent) for extent, *_ in others)):
        starts = [sum(i * axis[which] for i, axis in zip(index, others)) for which in (1, 2, 3)]
        a, b, out = (Operand(start, *place, step) for start, place, step in zip(starts, laid, steps))  # type: ignore
        made.append(Gemm(a_shape[-2], b_shape[-1], a_shape[-1], count, a, b, out))
    return tuple(made)


def layout(shape, strides, itemsize):
    """(Whether matrices lie in memory column by column, the length of a row there); None if in neither way."""
    rows, columns = shape[-2:]
    down, along = (step // itemsize for step in strides[-2:])
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return False, down if rows > 1 else max(columns, 1)
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return True, along if columns > 1 else max(rows, 1)
    return None


def joint_axes(batch, shapes, strides, itemsize):
    """The axes of the stacks as (extent, step of each array in elements), the longest first; with as few as can be."""
    axes: list[tuple] = []
    for i in range(len(batch)):
        here = []
        for shape, steps in zip(shapes, strides):
            k = i - len(batch) - 2
            here.append(steps[k] // itemsize if -k <= len(shape) and shape[k] > 1 else 0)
        if batch[i] == 1:
            continue
        if axes and all(before == batch[i] * step for before, step in zip(axes[-1][1:], here)):
            axes[-1] = (axes[-1][0] * batch[i], *here)
        else:
            axes.append((batch[i], *here))
    return sorted(axes, reverse=True) or [(1, 0, 0, 0)]
