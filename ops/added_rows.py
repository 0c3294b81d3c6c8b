"""Rows are added up at places that may repeat. The gradient of an embedding is such a sum."""

from functools import cache
from math import prod

from tinygrad_ms.arrays.registry import BACKENDS

__all__: list[str] = []

LARGE = 1 << 16  # from so many elements on SciPy's product is faster, if it is installed


def add_rows(xp, values, index, shape):
    """Zeros of ``shape`` with ``values`` added at the integer arrays ``index`` of the first axes.

    It is the product P^T values with a sparse matrix P of ones, or one addition into a vector. NumPy's ``add.at`` into
    a vector takes a half to a third of the time that it takes on the rows of a matrix (benchmarks/bench_embedding.py).
    Both ways add in the order of ``index``, so the result is the same.
    """
    row = index[0].astype("int64")
    for item, n in zip(index[1:], shape[1:]):
        row = row * n + item % n
    row, d = row.reshape(-1), prod(shape[len(index) :])
    large = d > 1 and values.size >= LARGE and values.dtype.char in "fd" and BACKENDS[type(values)].name == "cpu"
    if large and (sparse := _sparse_matrix()) is not None:
        k, n = row.size, prod(shape[: len(index)])
        ones = sparse((xp.ones(k, values.dtype), row % n, xp.arange(k + 1)), shape=(k, n))
        return (ones.T @ values.reshape((k, d))).reshape(shape)
    places = row if d == 1 else (row[:, None] * d + xp.arange(d)).reshape(-1)
    y = xp.zeros(shape, values.dtype)
    xp.add.at(y.reshape(-1), places, values.reshape(-1))
    return y


@cache
def _sparse_matrix():
    """SciPy's sparse matrix, or None without SciPy. It is imported here because the import takes time."""
    try:
        from scipy.sparse import csr_array
    except ImportError:
        return None
    return csr_array
