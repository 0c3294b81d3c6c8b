"""Products of stacks of matrices: out <- alpha a b + beta out, on devices by one call of the BLAS library.

CuPy's ``matmul`` copies the transposed matrices of a stack, takes a temporary for an ``out`` with gaps, and computes
pointers on the device where stacks broadcast. Here the layout goes to BLAS as it is: flags for transposes, the length
of a row in memory, the distance between matrices, 0 where one matrix serves all.
"""

from itertools import product as pairs
from math import prod
from typing import Any, NamedTuple

from numpy import broadcast_shapes

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import launcher

BLAS = frozenset(("float16", "bfloat16", "float32", "float64"))
CALLS = 2  # one after the other where no single distance leads through a stack; beyond that its matrices are copied


class Gemm(NamedTuple):
    """One call, as cuBLAS reads it: columns first, so that first and second change places and C^T = B^T A^T.

    Each of a, b and out is (array, first element, transposed, length of a row, distance of matrices in elements).
    """

    rows: int
    columns: int
    inner: int
    matrices: int
    a: Any
    b: Any
    out: Any
    alpha: float
    beta: float


def product(xp, a, b, out=None, alpha=1.0, beta=0.0):
    """alpha a b + beta out for raw a (..., n, k) and b (..., k, m), whose leading dimensions broadcast.

    ``out`` does not overlap a or b; it is returned. Where the library of the arrays has no such call, by ``matmul``.
    """
    found = launcher(a)
    if found is not None and a.dtype == b.dtype and a.dtype.name in BLAS and a.ndim > 1 < b.ndim:
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
    (n, k), m = a.shape[-2:], b.shape[-1]
    if b.shape[-2] != k:
        raise ValueError(f"a has shape {a.shape} and b {b.shape}: the inner dimensions {k} and {b.shape[-2]} differ")
    batch = a.shape[:-2] if a.shape[:-2] == b.shape[:-2] else broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = xp.empty((*batch, n, m), a.dtype)
    if not out.size or not k:
        out[...] = beta * out if beta else 0
        return out
    places = layout(out)
    if places is None:
        y = strided(gemm, xp, a, b, None, alpha)
        out[...] = y + beta * out if beta else y
        return out
    if places[0]:
        strided(gemm, xp, b.mT, a.mT, out.mT, alpha, beta)
        return out
    a, b = (x if layout(x) else xp.ascontiguousarray(x) for x in (a, b))
    axes = joint_axes(batch, a, b, out)
    if prod(extent for extent, *_ in axes[1:]) > CALLS:
        a, b = (
            x if x.shape[:-2] == batch else xp.ascontiguousarray(xp.broadcast_to(x, (*batch, *x.shape[-2:])))
            for x in (a, b)
        )
        axes = joint_axes(batch, a, b, out)
    (count, *steps), *others = axes
    laid: list = [(x, *layout(x)) for x in (a, b, out)]  # type: ignore[misc]
    for index in pairs(*(range(extent) for extent, *_ in others)):
        starts = [sum(i * axis[which] for i, axis in zip(index, others)) for which in (1, 2, 3)]
        operands = [(x, start, turned, row, step) for (x, turned, row), start, step in zip(laid, starts, steps)]
        first, second, third = operands
        gemm(Gemm(n, m, k, count, first, second, third, alpha, beta))
    return out


def layout(x):
    """(Whether the matrices of x lie in memory column by column, the length of a row there); None if in neither way."""
    rows, columns = x.shape[-2:]
    down, along = (step // x.itemsize for step in x.strides[-2:])
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return False, down if rows > 1 else max(columns, 1)
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return True, along if columns > 1 else max(rows, 1)
    return None


def joint_axes(batch, *arrays):
    """The axes of the stacks as (extent, step of each array in elements), the longest first; with as few as can be."""
    steps = [[0] * (len(batch) + 2 - x.ndim) + [s // x.itemsize for s in x.strides[:-2]] for x in arrays]
    shapes = [(1,) * (len(batch) + 2 - x.ndim) + x.shape[:-2] for x in arrays]
    axes: list[tuple] = []
    for i, extent in enumerate(batch):
        if extent == 1:
            continue
        here = [step[i] if shape[i] > 1 else 0 for step, shape in zip(steps, shapes)]
        if axes and all(before == extent * step for before, step in zip(axes[-1][1:], here)):
            axes[-1] = (axes[-1][0] * extent, *here)
        else:
            axes.append((extent, *here))
    return sorted(axes, reverse=True) or [(1, *[0] * len(arrays))]
