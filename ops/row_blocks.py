"""Functions of the rows of a matrix on a CPU: some rows at a time, so that all steps on them stay in the cache."""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import MOST_ONES, ones
from tinygrad_ms.ops.scale import in_range

__all__: list[str] = []

BLOCK = 256 << 10  # bytes of one block
FEW = 15  # elements of a row, for which NumPy's own loop takes most of the time
FEWEST = 1 << 15  # elements of a matrix; softmax of fewer takes no longer as a whole


def as_matrices(axes, x, *others, least=FEWEST):
    """The raw arrays with the elements along ``axes``, the last ones, as rows of matrices.

    None unless they are float32 or float64 arrays in the memory of the host, all of one kind, with ``least`` elements.
    """
    kind = type(x)
    if kind not in BACKENDS or BACKENDS[kind].name != "cpu" or x.size < least or x.dtype.char not in "fd":
        return None
    n = prod(x.shape[x.ndim - len(axes) :])
    if not FEW < n <= MOST_ONES or not are_last(axes, x):
        return None
    for a in (x, *others):
        if type(a) is not kind or a.dtype != x.dtype or a.shape != x.shape or not a.flags.c_contiguous:
            return None
    return [a.reshape((-1, n)) for a in (x, *others)]


def are_last(axes, x) -> bool:
    """Whether ``axes``, in any order, are the last ones of x."""
    return sorted(a + x.ndim * (a < 0) for a in axes) == [*range(x.ndim - len(axes), x.ndim)]


def as_lines(x, axes, *factors):
    """Each number, or array with the shape of the last axes ``axes`` of x, as a vector; None if there is another."""
    shape, lines = x.shape[x.ndim - len(axes) :], []
    for a in factors:
        if not hasattr(a, "shape"):
            lines.append(numpy.full(prod(shape), a, x.dtype))
        elif a.shape == shape and a.dtype == x.dtype:
            lines.append(a.reshape((-1,)))
        else:
            return None
    return lines


def in_parts(*matrices):
    """The matrices, which have the same number of rows, in parts."""
    step = min(max(1, BLOCK // matrices[0][:1].nbytes), MOST_ONES)
    for start in range(0, len(matrices[0]), step):
        yield [m[start : start + step] for m in matrices]


def softmax(xp, x, axis, logarithm=False):
    """softmax of the raw array x along its last axis, or its logarithm. None where this is no way to compute it."""
    if type(axis) is not int or (found := as_matrices((axis,), x)) is None:
        return None
    (rows,) = found
    y, one = xp.empty_like(rows), ones(x.dtype)[: rows.shape[1]]
    for part, z in in_parts(rows, y):
        xp.subtract(part, xp.max(part, axis=1, keepdims=True), out=z)
        if logarithm:
            z -= xp.log(xp.exp(z) @ one)[:, None]
        else:
            xp.exp(z, out=z)
            z /= (z @ one)[:, None]
    return y.reshape(x.shape)


def softmax_rule(g, y, axis, logarithm=False):
    """The gradient of that function, from its result y. None as above."""
    if type(axis) is not int or (found := as_matrices((axis,), y, g)) is None:
        return None
    xp, one = BACKENDS[type(y)].xp, ones(y.dtype)[: y.shape[-1]]
    dx = xp.empty_like(found[0])
    for p, part, z in in_parts(*found, dx):
        if logarithm:
            xp.exp(p, out=z)
            z *= (part @ one)[:, None]
            xp.subtract(part, z, out=z)
        else:
            xp.subtract(part, xp.vecdot(part, p)[:, None], out=z)
            z *= p
    return dx.reshape(y.shape)


def normalize(xp, x, weight, bias, axes, eps, center):
    """The forward of ``ops/normalization.py``. None where this is no way to compute it."""
    found = as_matrices(axes, x, least=1)
    if (lines := found and as_lines(x, axes, weight, bias)) is None:
        return None
    y = xp.empty_like(found[0])
    for part, z in in_parts(*found, y):
        if (r := _normalized(xp, part, z, eps, center)) is None:
            return None
        z *= r
        z *= lines[0]
        z += lines[1]
    return y.reshape(x.shape)


def normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center):
    """The gradients of x, weight and bias for that function. None as above."""
    found, shape = as_matrices(axes, x, g, least=1), x.shape[x.ndim - len(axes) :]
    lines = found and as_lines(x, axes, weight)
    if lines is None or not needed[0] or (needed[2] and bias_shape != shape):
        return None
    xp, (w,), n = BACKENDS[type(x)].xp, lines, found[0].shape[1]
    dx, one = xp.empty_like(found[0]), ones(x.dtype)
    c, dw, db = None, xp.zeros(n, x.dtype), xp.zeros(n, x.dtype)
    for part, u, z in in_parts(*found, dx):
        c = xp.empty_like(part) if c is None or len(c) > len(part) else c
        if (r := _normalized(xp, part, c, eps, center)) is None:
            return None
        xp.multiply(u, c, out=z)
        if needed[1]:
            dw += r[:, 0] @ z
        if needed[2]:
            db += one[: len(z)] @ u
        along = (z @ w)[:, None] * (r * r / n)
        xp.multiply(u, w, out=z)
        if center:
            z -= (u @ w)[:, None] / n
        c *= along
        z -= c
        z *= r
    return dx.reshape(x.shape), dw.reshape(shape) if needed[1] else None, db.reshape(shape) if needed[2] else None


def _normalized(xp, x, c, eps, center):
    """Write the centred rows of x, or x itself, into c. Return (mean(c^2) + eps)^(-1/2) of each, None out of range."""
    n = x.shape[1]
    with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if center:
            xp.subtract(x, (x @ ones(x.dtype)[:n])[:, None] / n, out=c)
        else:
            c[...] = x
        r = 1 / (xp.vecdot(c, c)[:, None] / n + eps) ** 0.5
    return r if in_range(r, x) else None
