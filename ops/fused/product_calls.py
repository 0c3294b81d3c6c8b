"""Products of matrices and of stacks of them by kernels, where BLAS takes more time; None where it does not."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.fused import LEAST, find, is_on
from tinygrad_ms.ops.fused.calls import SMALL
from tinygrad_ms.ops.fused.tiles import LANES

__all__: list[str] = []

LIGHT, HEAVY = 1 << 19, 120 << 20  # multiplications of a product of two matrices: beyond these BLAS is as fast
LONG = 1024  # the sum is over so many numbers at most
HIGH = 128  # a copy of b pays from so many rows of a on


def product(a, b):
    """a b."""
    if a.size < LEAST > b.size or not (isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray) and is_on()):
        return None
    if not (a.ndim > 1 < b.ndim and a.dtype.char == b.dtype.char == "f" and a.flags.aligned and b.flags.aligned):
        return None
    if a.shape[-1] != b.shape[-2] or b.shape[-1] % LANES:
        return None
    return of_two(a, b) if a.ndim == b.ndim == 2 else of_stacks(a, b)


def times(xp, a, b):
    """xp.matmul(a, b)."""
    y = product(a, b)
    return xp.matmul(a, b) if y is None else y


def of_two(a, b):
    """a b for two matrices."""
    by_rows, work = a.strides[1] == 4, a.size * b.shape[1]
    if not LIGHT <= work <= (HEAVY if by_rows else HEAVY // 3) or a.shape[1] > LONG:
        return None
    if min(*a.shape, *b.shape) < LANES or any(4 not in x.strides for x in (a, b)):
        return None
    if b.strides[1] == 4 and a.shape[0] < HIGH:
        return None
    if not (run := find("matrix_product", max(a, b, key=lambda x: x.size))):
        return None
    y = numpy.empty_like(a, order="C", shape=(a.shape[0], b.shape[1]))
    run(y, a, b)
    return y


def of_stacks(a, b):
    """a b for stacks of small matrices."""
    (n, k), m, axes = a.shape[-2:], b.shape[-1], max(a.ndim, b.ndim)
    if not 2 < min(a.ndim, b.ndim) <= axes <= 4 or k > SMALL or m > SMALL or n > 2 * SMALL:
        return None
    by_rows = b.strides[-1] == 4  # else by columns, which a kernel turns
    if not by_rows and (k % LANES or not a.strides[-1] == b.strides[-2] == 4 or max(n, m) > max(k, SMALL // 2)):
        return None
    a, b = (x if x.ndim == 4 else x[:, None] if x.ndim == axes else x[None] for x in (a, b))
    batch = [max(p, q) for p, q in zip(a.shape[:2], b.shape[:2])]
    if any(p not in (1, q) for x in (a, b) for p, q in zip(x.shape, batch)):
        return None
    if not (run := find("products" if by_rows else "turned_products", max(a, b, key=lambda x: x.size))):
        return None
    y = numpy.empty_like(a, order="C", shape=(*batch, n, m))
    xp, b = BACKENDS[type(a)].xp, b if by_rows else b.mT
    run(y, *(x if x.shape[:2] == tuple(batch) else xp.broadcast_to(x, (*batch, *x.shape[2:])) for x in (a, b)))
    return y if axes == 4 else y[:, 0]
