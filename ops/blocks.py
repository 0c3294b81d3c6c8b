"""Kernels of elementwise functions. They run over blocks of a large array that fit the cache of a CPU."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.ops.fused import LEAST, find
from tinygrad_ms.ops.fused.references import REFERENCES
from tinygrad_ms.ops.lines import empty_on_a_line

__all__: list[str] = []

WIDE = numpy.dtype("float64")
SMALL = 256  # up to so many elements the number of calls decides the time of a kernel
MANY = 1 << 16  # from so many elements on the passes over memory decide it
BLOCK = 96 << 10  # bytes of one block: a few temporaries of that size fit the second cache


def in_blocks(
    xp, kernel, x, *constants, double=True, quick=None, quick_in="fd", beyond=SMALL, results=1, spare=0, beside=None,
    under="raise",
):  # fmt: skip
    """kernel(xp, x, *constants): a tuple of ``results`` arrays like x, each in the dtype of x.

    double: float32 and half precision are computed in float64 and rounded once. Else half precision is computed in
        float32.
    quick: quick(xp, x, out, *constants) computes the same for the dtypes ``quick_in`` on a CPU. It is faster for more
        than ``beyond`` elements. It serves blocks in which nothing overflows or is subnormal; NumPy's flags show other
        blocks, and ``kernel`` computes these in float64. ``out`` holds an array for each result, and ``spare`` more to
        work in: NumPy writes about twice as fast into memory that it has just used.
    beside: an array like x. The kernels get its blocks, too, before the constants.
    under: "ignore" if ``quick`` is right where a number on the way to its results is subnormal.
    """
    if not x.ndim:  # arithmetic on 0-d arrays makes NumPy scalars
        beside = beside if beside is None else beside.reshape((1,))
        found = in_blocks(
            xp, kernel, x.reshape((1,)), *constants, double=double, quick=quick, results=results, beside=beside
        )
        return tuple([y.reshape(()) for y in found])
    if (x.size >= LEAST or type(x) is not numpy.ndarray) and (run := compiled(kernel, x, beside)):
        found = run(x, *(() if beside is None else (beside,)), *constants)
        return (*found, *[None] * (results - len(found)))  # a slope is computed anew, where its rule has a kernel
    cpu, kind = BACKENDS[type(x)].name == "cpu", x.dtype.char
    double = double or (quick is not None and kind == "f")
    quick = quick if cpu and kind in quick_in and x.size > beyond else None

    def careful(part, *more):
        return kernel(xp, part.astype("float64", copy=False) if double else wide(part), *more, *constants)

    others = () if beside is None else (beside,)
    step = BLOCK // (x.itemsize if quick or not double else 8)
    if not quick and (not cpu or x.size <= 4 * step):
        return tuple([y.astype(x.dtype, copy=False) for y in careful(x, *others)])
    x = x if x.flags.forc else xp.ascontiguousarray(x)
    made = [xp.empty_like(x) for _ in range(results)]
    work = [_room(xp, x, step) for _ in range(spare)]
    with numpy.errstate(all="raise", under=under) if quick else numpy.errstate():
        for part, more, out in ((x, others, made + work),) if x.size <= step else _parts(step, x, others, made, work):
            try:
                _store(quick(xp, part, out, *more, *constants) if quick else careful(part, *more), out)
            except FloatingPointError:
                with numpy.errstate(all="ignore"):
                    _store(careful(part, *more), out)
    return tuple(made)


def fused(name, takes=1, sample=(), wide=False):
    """Mark a kernel in NumPy. Large arrays go to the compiled kernel of the same name, where there is one.

    Arrays of a device go to the kernel of ``on_devices``, which takes the other arguments.
    """

    def mark(kernel):
        kernel.fused = name
        return on_devices(name, takes, sample, wide)(kernel)

    return mark


def on_devices(name, takes=1, sample=(), wide=False):
    """Mark a kernel in NumPy: for arrays of a device a kernel of that name is made of it (``ops/fused/devices.py``).

    It may have no decision that depends on values. takes: how many arrays it takes. sample: constants to check it with.
    wide: float32 is computed in float64, as on a CPU.
    """

    def mark(kernel):
        kernel.on_devices, REFERENCES[name] = name, (kernel, takes, sample, wide)
        return kernel

    return mark


def compiled(kernel, x, beside):
    """The compiled kernel that replaces ``kernel`` for these arrays, or None."""
    name = getattr(kernel, "fused" if isinstance(x, numpy.ndarray) else "on_devices", "")
    return find(name, x) if name and beside is None else find(name, x, beside) if name else None


def times(g, slope):
    """g slope, for a rule."""
    run = find("times", g, slope) if g.size >= LEAST else None
    return run(g, slope)[0] if run else g * slope


def pulled(name, g, x, slope, formula):
    """g times the slope at x: ``slope`` from the forward, else by the compiled kernel ``name``, else by ``formula``."""
    if slope is not None:
        return times(g, slope)
    if isinstance(g, numpy.ndarray) and isinstance(x, numpy.ndarray) and x.size >= LEAST:
        g = g if g.flags.c_contiguous else g.copy()
        if run := find(name, x, g):
            return run(x, g)[0]
    return g * formula(wide(x))


def _store(found, out):
    for row, y in zip(out, found):
        if y is not row:
            row[...] = y


def times_slope(g, x, slope, kernel, quick=None, double=False, spare=0, beyond=SMALL):
    """g slope(x). More than ``beyond`` elements on a CPU are computed in blocks, without an array for the slope.

    slope: the op. kernel, quick, double, spare: those of its forward, as in ``in_blocks``. They get g after x; the
    forward passes 1 for it.
    """
    if (
        type(g) is type(x) and type(x) in BACKENDS and BACKENDS[type(x)].name == "cpu" and x.size > beyond
        and g.dtype == x.dtype and x.dtype.char in "fd" and g.shape == x.shape
        and g.flags.c_contiguous and x.flags.c_contiguous
    ):  # fmt: skip
        xp = BACKENDS[type(x)].xp
        return in_blocks(xp, kernel, x, double=double, quick=quick, beside=g, spare=spare)[0]
    if type(x) is not numpy.ndarray and (run := compiled(kernel, x, g)):
        return run(x, g)[0]
    return g * slope(x)


def is_small(x):
    """Whether x is a small float32 or float64 array of NumPy."""
    return isinstance(x, numpy.ndarray) and x.size <= SMALL and x.dtype.char in "fd"


def over_square(g, function, x):
    """g / function(x)^2 in a few calls. float32 uses float64: in float32 the function is 2 ulp off, its square 4."""
    if x.dtype.char == "f":
        c = function(x.astype(WIDE))
        c *= c
        return (g.astype(WIDE) / c).astype(x.dtype)  # two arrays of one dtype are divided in a third of the time
    c = function(x)
    return g / c / c  # twice by c, because c^2 may overflow


def _parts(step, x, others, made, work):
    """x, the others and ``work`` as arrays of one layout, in parts of at most ``step`` elements."""
    flat, *rows = (a.reshape(-1, order="A") for a in (x, *others, *made))
    for start in range(0, x.size, step):
        stop = min(start + step, x.size)
        parts = [row[start:stop] for row in rows]
        yield flat[start:stop], parts[: len(others)], parts[len(others) :] + [w[: stop - start] for w in work]


def _room(xp, x, step):
    """Memory for a temporary. In NumPy, loads of a part of a large array meet one line of the cache."""
    if x.size <= step:
        return xp.empty_like(x)
    return empty_on_a_line(step, x.dtype) if type(x) is numpy.ndarray else xp.empty(step, x.dtype)


# --- pieces of kernels --------------------------------------------------------------------------------------


def none(condition):
    """Whether the host knows that no element is true. On a device it would have to wait, so it does not know."""
    return isinstance(condition, numpy.ndarray) and not condition.any()


def decay(xp, z, itemsize=8):
    """e^z, and a function p -> p e^z. That one keeps its digits where e^z is subnormal."""
    limit = 600 if z.dtype.itemsize == 8 else 80
    if itemsize < 8 or (limit == 80 and isinstance(z, numpy.ndarray)) or none(z < -limit):  # a CPU: half precision
        w = xp.exp(z)
        return w, lambda p: p * w
    near, far = xp.exp(xp.maximum(z, -limit)), xp.exp(xp.minimum(z + limit, 0))
    return near * far, lambda p: p * near * far


def decay_and_rest(xp, x):
    """v = e^-|x| and 1 - v^2 in float64, for x in float32. In float64 the difference has enough digits for float32.

    Raises FloatingPointError if an x is so near 0 that it has not enough digits. Such a block is computed differently.
    """
    v = xp.abs(x).astype("float64")
    v = xp.exp(xp.negative(v, out=v), out=v)
    rest = xp.multiply(v, v)
    xp.subtract(1, rest, out=rest)
    if rest.min() < 1e-7:
        raise FloatingPointError
    return v, rest


def step(x):
    """1 where x >= 0, else 0."""
    return (x >= 0).astype(x.dtype)


def over_bump(xp, e, out):
    """(1 + e)^2 / e = 1 / e + e + 2. For e = e^x it is the reciprocal of the slope of the logistic function."""
    xp.divide(1, e, out=out)
    out += e
    out += 2
    return out


def bump(w):
    """w / (1 + w)^2 for 0 <= w <= 1. The square is rounded once. For w = e^-|x| it is the slope of the sigmoid."""
    q = w + 2
    q *= w
    q += 1
    return w / q


# fmt: off
_ATANH = [  # (2 atanh(v / 2) / v - 1) / v^2 for v <= 2 / 3 by powers of v^2 in float32, lowest first
    0.083332895, 0.01250776625, 0.00218448578125, 0.00055028625]
# fmt: on


def log1p(xp, w, out=None, v=None, u=None):
    """ln(1 + w) for 0 <= w <= 1. ``out``, ``v``, ``u``: arrays like w for the result and to work in.

    In float64 it is ln u with the rounded u = 1 + w, plus a first-order term for the rounding error of u. In float32,
    where NumPy's logarithm is 2 ulp off, it is 2 atanh(v / 2) with v = w / (1 + w / 2).
    """
    if w.dtype.itemsize == 8:
        u = xp.add(w, 1, out=u)
        y, v = xp.log(u, out=out), xp.subtract(u, 1, out=v)
        xp.subtract(w, v, out=v)
        v /= u
        y += v
        return y
    v = xp.multiply(w, 0.5, out=v)
    v += 1
    xp.divide(w, v, out=v)
    square = xp.multiply(v, v, out=u)
    *others, p = _ATANH
    p = xp.multiply(square, p, out=out)
    for c in reversed(others):
        p += c
        p *= square
    p *= v
    p += v
    return p


def expm1(xp, m):
    """e^m - 1 for m <= 0 by tanh(m / 2), which is several times as fast as expm1."""
    t = 0.5 * m
    xp.tanh(t, out=t)
    q = 1 - t
    t += t
    t /= q
    return t
