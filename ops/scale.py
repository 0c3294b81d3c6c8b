"""Scale: powers of two are taken out of an array before its elements are squared, and put back afterwards.

Squares leave the range of the dtype long before norms do: in float32 above 1e19 and below 1e-19.
"""

import math

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.shapes import all_axes

__all__: list[str] = []


def power_of_two(xp, x, axes):
    """A power of two for each slice of the raw array x over ``axes`` (kept as 1), at most its largest element.

    It is 1 where the largest element is 0 or not finite.
    """
    largest = xp.maximum(x.max(axis=axes, keepdims=True), -x.min(axis=axes, keepdims=True))
    usable = (largest > 0) & xp.isfinite(largest)
    exponent = xp.frexp(xp.where(usable, largest, 1))[1]
    return xp.ldexp(xp.ones_like(largest), exponent - 1)


def in_range(sizes, x) -> bool:
    """Whether the squares behind ``sizes`` (norms, deviations) stayed in range.

    It is False on a device, where the host would have to wait for the answer.
    """
    if BACKENDS[type(x)].name != "cpu":
        return False
    tiny = float(numpy.finfo(x.dtype).tiny)
    return bool(((sizes > tiny**0.4) & (sizes < tiny**-0.4)).all())


def homogeneous(xp, x, axis, keepdims, function):
    """function(x) for x of any scale. It is a reduction that keeps ``axis``, with f(s x) = s f(x) for s > 0.

    Half precision is reduced in a wider dtype. The function may overflow or lose small squares.
    """
    z = wide(x, x.size)
    with numpy.errstate(over="ignore", invalid="ignore"):
        y = function(z)
        axes = all_axes("reduction", axis, x.ndim) if x.ndim else ()
        if x.size and not in_range(y, z):
            s = power_of_two(xp, z, axes)
            y = function(z / s) * s
    return (y if keepdims else y.squeeze(axis=axes)).astype(x.dtype, copy=False)


def over_norm(x, y):
    """x / y for a norm y of x, which cannot overflow; 0 where y is 0."""
    y = wide(y)
    return x / where(y == 0, math.inf, y)
