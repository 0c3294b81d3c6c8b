"""Kernels of elementwise functions, run over blocks of a large array that stay in the cache of a CPU."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.ops.fused import LEAST, find

__all__: list[str] = []

SMALL = 256  # elements: up to here the number of calls decides how long a kernel takes
BLOCK = 96 << 10  # bytes of one block: a few temporaries of that size fit the second cache


def in_blocks(xp, kernel, x, *constants, double=True, quick=None, quick_in="f", beyond=SMALL, results=1, beside=None):
    """kernel(xp, x, *constants), a tuple of ``results`` arrays like x, each in the dtype of x.

    double: float32 and half precision are computed in float64 and rounded once; else half precision in float32.
    quick: quick(xp, x, out, *constants) is the same for float32 (``quick_in``: "fd" for float64, too) on a CPU, faster
        for more than ``beyond`` elements, where no number of it overflows or is below the smallest normal one; it may
        leave its results in the arrays of ``out``. NumPy notes where a block of numbers is not of that kind: it is
        computed by ``kernel`` in float64.
    beside: an array like x, which the kernels get in blocks as well, before the constants.
    """
    if not x.ndim:  # arithmetic would make NumPy scalars of it
        beside = beside if beside is None else beside.reshape((1,))
        found = in_blocks(
            xp, kernel, x.reshape((1,)), *constants, double=double, quick=quick, results=results, beside=beside
        )
        return tuple([y.reshape(()) for y in found])
    if x.size >= LEAST and (run := compiled(kernel, x, beside)):
        return tuple(run(x, *(() if beside is None else (beside,)), *constants))
    cpu = BACKENDS[type(x)].name == "cpu"
    double = double or (quick is not None and x.dtype.char == "f")
    quick = quick if cpu and x.dtype.char in quick_in and x.size > beyond else None

    def careful(part, more=()):
        return kernel(xp, part.astype("float64", copy=False) if double else wide(part), *more, *constants)

    others = () if beside is None else (beside,)
    if not cpu or (quick is None and x.nbytes <= 4 * BLOCK):
        return tuple([y.astype(x.dtype, copy=False) for y in careful(x, others)])
    x = x if x.flags.forc else xp.ascontiguousarray(x)
    made = [xp.empty_like(x) for _ in range(results)]
    flat, *rows = (a.reshape(-1, order="A") for a in (x, *made))
    step = BLOCK // (x.itemsize if quick or not double else 8)
    with numpy.errstate(all="raise" if quick else None):
        for start in range(0, x.size, step):
            part = slice(start, start + step)
            out, more = [row[part] for row in rows], [other.reshape(-1)[part] for other in others]
            try:
                _store(quick(xp, flat[part], out, *more, *constants) if quick else careful(flat[part], more), out)
            except FloatingPointError:
                with numpy.errstate(all="ignore"):
                    _store(careful(flat[part], more), out)
    return tuple(made)


def fused(name):
    """Mark a kernel in NumPy: large arrays go to the compiled one of that name in its place, where there is one."""

    def mark(kernel):
        kernel.fused = name
        return kernel

    return mark


def compiled(kernel, x, beside):
    """The compiled kernel in the place of ``kernel`` for these arrays, or None."""
    name = getattr(kernel, "fused", "")
    return find(name, x) if name and beside is None else find(name, x, beside) if name else None


def times(g, slope):
    """g slope, for a rule."""
    run = find("times", g, slope) if g.size >= LEAST else None
    return run(g, slope)[0] if run else g * slope


def _store(found, out):
    for row, y in zip(out, found):
        if y is not row:
            row[...] = y


def times_slope(g, x, slope, kernel, quick=None, double=False):
    """g slope(x): of large arrays of a CPU block by block, without an array for the slope.

    slope: the op. kernel, quick, double: those of its forward, as for ``in_blocks``; g (there 1) stands behind x.
    """
    if (
        type(g) is type(x) and type(x) in BACKENDS and BACKENDS[type(x)].name == "cpu" and x.nbytes > 4 * BLOCK
        and g.dtype == x.dtype and x.dtype.char in "fd" and g.shape == x.shape
        and g.flags.c_contiguous and x.flags.c_contiguous
    ):  # fmt: skip
        return in_blocks(BACKENDS[type(x)].xp, kernel, x, double=double, quick=quick, beside=g)[0]
    return g * slope(x)


# --- pieces of kernels --------------------------------------------------------------------------------------


def none(condition):
    """Whether no element is true, as far as the host knows: on a device it would have to wait for the answer."""
    return BACKENDS[type(condition)].name == "cpu" and not condition.any()


def decay(xp, z, itemsize=None):
    """e^z, and a function p -> p e^z, which has its digits also where e^z is subnormal in float64."""
    if (itemsize or z.dtype.itemsize) < 8 or none(z < -600):
        w = xp.exp(z)
        return w, lambda p: p * w
    near, far = xp.exp(xp.maximum(z, -600)), xp.exp(xp.minimum(z + 600, 0))
    return near * far, lambda p: p * near * far


def step(x):
    """1 where x >= 0, else 0."""
    return (x >= 0).astype(x.dtype)


def bump(w):
    """w / (1 + w)^2 for 0 <= w <= 1, the square rounded once. With w = e^-|x|: the slope of the logistic function."""
    q = w + 2
    q *= w
    q += 1
    return w / q


# fmt: off
_ATANH = {  # by the bytes of the dtype: (2 atanh(v / 2) / v - 1) / v^2 for v <= 2 / 3 by powers of v^2, lowest first
    4: [
        0.083332895, 0.01250776625, 0.00218448578125, 0.00055028625],
    8: [
        0.08333333333333333, 0.012499999999999852, 0.0022321428571562578, 0.00043402777730931194,
        8.877841747052107e-05, 1.8779960894605164e-05, 4.069573556960833e-06, 8.9525444498468e-07,
        2.068553618408206e-07, 3.572532556319602e-08, 1.8633100749162258e-08],
}
# fmt: on


def log1p(xp, w):
    """ln(1 + w) = 2 atanh(v / 2), v = w / (1 + w / 2), for 0 <= w <= 1: by products, faster than a logarithm."""
    v = 0.5 * w
    v += 1
    xp.divide(w, v, out=v)
    square = v * v
    *others, p = _ATANH[w.dtype.itemsize]
    p = p * square
    for c in reversed(others):
        p += c
        p *= square
    p *= v
    p += v
    return p


def expm1(xp, m):
    """e^m - 1 for m <= 0 by tanh(m / 2), which is several times as fast."""
    t = 0.5 * m
    xp.tanh(t, out=t)
    q = 1 - t
    t += t
    t /= q
    return t
