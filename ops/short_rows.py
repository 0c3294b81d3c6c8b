"""Short rows are copied into columns where that makes reductions faster: NumPy reduces several columns at once."""

from functools import cache, reduce
from itertools import product
from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import ones

__all__: list[str] = []

SHORT = 64  # up to so many elements of a row the two copies save time


def as_columns(x, axis):
    """A copy of the raw array x. Its columns are the rows of x along ``axis``. None if that would be slower."""
    n = x.shape[-1] if axis == -1 and x.shape else 0
    if 1 < n <= SHORT and x.size >= 16 * n and BACKENDS[type(x)].name == "cpu":
        return (x if x.ndim == 2 else x.reshape((-1, n))).T.copy()
    return None


def most(columns):
    """The largest element of each column. ``columns.max`` would add Python frames."""
    return numpy.maximum.reduce(columns, 0)


def total(columns):
    """The sum of each column by BLAS, in half of the time of a reduction; ``dot`` takes half of that of ``@``."""
    one = _ones(columns.dtype, len(columns))
    return one.dot(columns) if type(columns) is numpy.ndarray else one @ columns


@cache
def _ones(dtype, n):
    return ones(dtype)[:n]


FEW, MANY = 8, 1 << 12  # axes of up to FEW elements go one by one, in arrays of more than MANY


def slices(x, axis):
    """An index for each element along the short ``axis`` of the raw array x. Its slice keeps all axes.

    None where NumPy's own reductions and broadcasts are as fast. NumPy runs a loop for every row, even for short ones.
    """
    if axis is None or x.size < MANY or BACKENDS[type(x)].name != "cpu":
        return None
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    if not 0 < prod(x.shape[a] for a in axes) <= FEW:
        return None
    ranges = [[slice(i, i + 1) for i in range(n)] if a in axes else [slice(None)] for a, n in enumerate(x.shape)]
    return list(product(*ranges))


def folded(function, x, axis, keepdims):
    """The raw array x reduced over ``axis``, slice by slice, by ``function`` of two arrays. None as above."""
    places = slices(x, axis)
    if places is None:
        return None
    y = reduce(function, [x[place] for place in places])
    return y if keepdims else y.squeeze(axis)
