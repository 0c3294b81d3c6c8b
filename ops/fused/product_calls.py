"""Products of matrices and of stacks of them by kernels, where BLAS takes more time; None where it does not."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.fused import LEAST, find
from tinygrad_ms.ops.fused.calls import SMALL
from tinygrad_ms.ops.fused.tiles import LANES

__all__: list[str] = []

LIGHT, HEAVY = 1 << 19, 120 << 20  # multiplications of a product of two matrices: beyond these BLAS is as fast
LONG, HIGH = 1024, 128  # the sum is over so many numbers at most; a copy of b pays from so many rows of a on


def product(a, b):
    """a b."""
    if a.size < LEAST > b.size or not (isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray)):
        return None
    if not a.dtype.char == b.dtype.char == "f" or min(a.ndim, b.ndim) < 2 or b.shape[-1] % LANES:
        return None
    return of_two(a, b) if a.ndim == b.ndim == 2 else of_stacks(a, b)


def times(xp, a, b):
    """xp.matmul(a, b)."""
    y = product(a, b)
    return xp.matmul(a, b) if y is None else y


def of_two(a, b):
    """a b for two matrices."""
    (n, k), (inner, m), a_by_rows, b_by_rows = a.shape, b.shape, a.strides[1] == 4, b.strides[1] == 4
    if k != inner or n < LANES or not LANES <= k <= LONG or n < HIGH and b_by_rows:
        return None
    if not LIGHT <= n * k * m <= (HEAVY if a_by_rows else HEAVY // 3):
        return None
    if not (a_by_rows or a.strides[0] == 4) or not (b_by_rows or b.strides[0] == 4) or not (run := kernel(a, b)):
        return None
    y = numpy.empty_like(a, order="C", shape=(n, m))
    run(y, a, b)
    return y


def kernel(a, b, name="matrix_product"):
    """The kernel for these arrays, if there is one."""
    aligned = a.flags.aligned and b.flags.aligned
    return find(name, a if a.size > b.size else b) if aligned else None


def of_stacks(a, b):
    """a b for stacks of small matrices."""
    (n, k), m, axes = a.shape[-2:], b.shape[-1], max(a.ndim, b.ndim)
    if not 2 < min(a.ndim, b.ndim) <= axes <= 4 or k != b.shape[-2] or k > SMALL or m > SMALL or n > 2 * SMALL:
        return None
    by_rows = b.strides[-1] == 4  # else by columns, which a kernel turns
    if not by_rows and (k % LANES or not a.strides[-1] == b.strides[-2] == 4 or max(n, m) > max(k, SMALL // 2)):
        return None
    a, b = (x if x.ndim == 4 else x[:, None] if x.ndim == axes else x[None] for x in (a, b))
    batch = [max(p, q) for p, q in zip(a.shape[:2], b.shape[:2])]
    if any(p not in (1, q) for x in (a, b) for p, q in zip(x.shape, batch)):
        return None
    if not (run := kernel(a, b, "products" if by_rows else "turned_products")):
        return None
    y = numpy.empty_like(a, order="C", shape=(*batch, n, m))
    xp, b = BACKENDS[type(a)].xp, b if by_rows else b.mT
    run(y, *(x if x.shape[:2] == tuple(batch) else xp.broadcast_to(x, (*batch, *x.shape[2:])) for x in (a, b)))
    return y if axes == 4 else y[:, 0]
