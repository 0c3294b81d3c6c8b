"""Kernels of elementwise functions, run over blocks of a large array that stay in the cache of a CPU."""

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide

__all__: list[str] = []

SMALL = 256  # elements: up to here the number of calls decides how long a kernel takes
BLOCK = 8192  # elements: a few float64 temporaries of that size fit the second cache


def in_blocks(xp, kernel, x, *constants, double=True):
    """kernel(xp, x, *constants), a tuple of arrays like x, each in the dtype of x.

    ``double``: float32 and half precision are computed in float64 and rounded once; else half precision in float32.
    """

    def run(part):
        return kernel(xp, part.astype("float64", copy=False) if double else wide(part), *constants)

    if x.size <= 2 * BLOCK or BACKENDS[type(x)].name != "cpu" or not x.flags.forc:
        return tuple([y.astype(x.dtype, copy=False) for y in run(x)])
    flat = x.reshape(-1, order="A")
    results: list = []
    for start in range(0, x.size, BLOCK):
        parts = run(flat[start : start + BLOCK])
        results = results or [xp.empty_like(x) for _ in parts]
        for y, part in zip(results, parts):
            y.reshape(-1, order="A")[start : start + BLOCK] = part
    return tuple(results)


def logistic(xp, z):
    """w, r and s: e^-|z|, 1 / (1 + w) and the logistic function of z, which is r or w r; nothing overflows."""
    w = xp.exp(-xp.abs(z))
    r = 1 / (1 + w)
    return w, r, xp.maximum(w, z >= 0) * r


def log1p(xp, w):
    """ln(1 + w) for 0 <= w <= 1 by the logarithm, which is several times as fast, and what 1 + w has rounded away."""
    u = 1 + w
    return xp.log(u) + (w - (u - 1)) / u


def expm1(xp, m):
    """e^m - 1 for m <= 0 by tanh(m / 2), which is several times as fast."""
    t = xp.tanh(0.5 * m)
    return 2 * t / (1 - t)
