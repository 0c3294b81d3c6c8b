"""Products of matrices and of stacks of them by kernels, where BLAS takes more time; None where it does not."""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.fused import LEAST, find, is_on
from tinygrad_ms.ops.fused.calls import SMALL
from tinygrad_ms.ops.fused.tiles import LANES

__all__: list[str] = []

LIGHT, HEAVY = 1 << 19, 12 << 20  # multiplications of a product of two matrices: beyond these BLAS is as fast


def product(a, b):
    """a b."""
    if a.size < LEAST > b.size or not (isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray) and is_on()):
        return None
    if not (a.ndim > 1 < b.ndim and a.dtype.char == b.dtype.char == "f" and a.flags.aligned and b.flags.aligned):
        return None
    if a.shape[-1] != b.shape[-2] or b.shape[-1] % LANES:
        return None
    return of_two(a, b) if a.ndim == b.ndim == 2 else of_stacks(a, b)


def of_two(a, b):
    """a b for two matrices."""
    work = prod(a.shape) * b.shape[1]
    if not LIGHT <= work <= HEAVY or min(*a.shape, *b.shape) < LANES or not (a.flags.forc and b.flags.forc):
        return None
    y, larger = numpy.empty_like(a, order="C", shape=(a.shape[0], b.shape[1])), max(a, b, key=lambda x: x.size)
    if not (run := find("matrix_product", larger if larger.flags.c_contiguous else larger.T)):
        return None
    run(y, a, b)
    return y


def of_stacks(a, b):
    """a b for stacks of small matrices."""
    (n, k), m, axes = a.shape[-2:], b.shape[-1], max(a.ndim, b.ndim)
    if not 2 < min(a.ndim, b.ndim) <= axes <= 4 or k > SMALL or max(n, m) > max(k, SMALL // 2):
        return None
    by_rows = b.strides[-1] == 4  # else by columns, which a kernel turns
    if not by_rows and (k % LANES or not a.strides[-1] == b.strides[-2] == 4):
        return None
    a, b = (x if x.ndim == 4 else x[:, None] if x.ndim == axes else x[None] for x in (a, b))
    batch = [max(p, q) for p, q in zip(a.shape[:2], b.shape[:2])]
    if any(p not in (1, q) for x in (a, b) for p, q in zip(x.shape, batch)):
        return None
    y = numpy.empty_like(a, order="C", shape=(*batch, n, m))
    if not (run := find("products" if by_rows else "turned_products", y)):
        return None
    xp, b = BACKENDS[type(a)].xp, b if by_rows else b.mT
    run(y, *(x if x.shape[:2] == y.shape[:2] else xp.broadcast_to(x, (*batch, *x.shape[2:])) for x in (a, b)))
    return y if axes == 4 else y[:, 0]
