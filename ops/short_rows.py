"""Rows that are laid as columns, where NumPy's reductions are faster so: it reduces several columns at once."""

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
