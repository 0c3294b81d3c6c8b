"""Rows that are laid as columns, where NumPy's reductions are faster so: it reduces several columns at once."""

from functools import reduce
from itertools import product
from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import ones

__all__: list[str] = []

SHORT = 64  # elements of a row up to which the two copies cost less than they save


def as_columns(x, axis):
    """A copy of the raw array x whose columns are the rows of x along ``axis``; None where that is slower."""
    n = x.shape[-1] if axis == -1 and x.shape else 0
    if 1 < n <= SHORT and x.size >= 16 * n and BACKENDS[type(x)].name == "cpu":
        return x.reshape((-1, n)).T.copy()
    return None


def as_rows(columns, shape):
    """The columns as rows again, of an array of ``shape``."""
    return columns.T.copy().reshape(shape)


def most(columns):
    """The largest of each column; without the frames of Python in ``columns.max``."""
    return numpy.maximum.reduce(columns, 0)


def total(columns):
    """The sum of each column; BLAS takes half of the time of a reduction."""
    return ones(columns.dtype)[: len(columns)] @ columns


FEW, MANY = 8, 1 << 12  # elements of axes up to which they are taken one by one, in an array that is large enough


def slices(x, axis):
    """The indices of the elements along the short ``axis`` of the raw array x, each for a slice that keeps all axes.

    None where NumPy's own reductions and broadcasts are as fast: they make a loop of its own for every row of an array,
    however short.
    """
    if axis is None or x.size < MANY or BACKENDS[type(x)].name != "cpu":
        return None
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    if not 0 < prod(x.shape[a] for a in axes) <= FEW:
        return None
    ranges = [[slice(i, i + 1) for i in range(n)] if a in axes else [slice(None)] for a, n in enumerate(x.shape)]
    return list(product(*ranges))


def folded(function, x, axis, keepdims):
    """The raw array x reduced over ``axis`` by ``function`` of two arrays, slice by slice; None as above."""
    places = slices(x, axis)
    if places is None:
        return None
    y = reduce(function, [x[place] for place in places])
    return y if keepdims else y.squeeze(axis)
