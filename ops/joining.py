"""Functions that lay arrays beside each other or subtract neighbours: hstack, vstack, meshgrid, diff, put_along_axis.

They are made of other ops, which give them their derivatives.
"""

from tinygrad_ms.ops.indexing import index_update, places_along
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import along, broadcast_to, concat, one_axis, reshape
from tinygrad_ms.options import as_int

__all__ = ["diff", "hstack", "meshgrid", "put_along_axis", "vstack"]


def hstack(xs):
    """The arrays of the sequence ``xs`` side by side, along axis 1. As in NumPy, vectors are joined along axis 0."""
    xs = [reshape(x, shape=(1,)) if not x.ndim else x for x in map(as_operand, xs)]
    return concat(xs, axis=min(1, xs[0].ndim - 1) if xs else 0)


def vstack(xs):
    """The arrays of the sequence ``xs`` below each other, along axis 0; vectors and numbers count as rows."""
    xs = [reshape(x, shape=(1, x.size)) if x.ndim < 2 else x for x in map(as_operand, xs)]
    return concat(xs, axis=0)


def meshgrid(*xs, indexing: str = "xy") -> tuple:
    """The coordinates of a grid. k vectors of sizes n_1, ..., n_k give k arrays (n_1, ..., n_k), read-only views.

    indexing: "ij", or "xy" with the first two axes swapped, as in NumPy. Raises ValueError for another word, or for
    arrays with more than one axis.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing={indexing!r}; expected 'xy' or 'ij'")
    xs = tuple(map(as_operand, xs))
    if any(x.ndim > 1 for x in xs):
        raise ValueError(f"meshgrid: the arrays have shapes {', '.join(str(x.shape) for x in xs)}; expected vectors")
    order = [1, 0, *range(2, len(xs))] if indexing == "xy" and len(xs) > 1 else list(range(len(xs)))
    shape = tuple(xs[i].size for i in order)
    grids = []
    for i, x in enumerate(xs):
        place = order.index(i)
        grids.append(broadcast_to(reshape(x, shape=(-1,) + (1,) * (len(xs) - 1 - place)), shape=shape))
    return tuple(grids)


def diff(x, n: int = 1, axis: int = -1):
    """The n-th differences of neighbours along ``axis``: x[1:] - x[:-1], n times. Booleans are refused."""
    x = as_operand(x)
    axis, n = one_axis("diff", axis, x.ndim), as_int(n, "diff: n", least=0)
    if x.dtype.kind == "b":
        raise TypeError("diff: x is bool; differences of booleans have no sign, use x.astype('int64')")
    for _ in range(n):
        x = x[along(axis, 1, None)] - x[along(axis, 0, -1 if x.shape[axis] else None)]
    return x


def put_along_axis(x, indices, values, axis: int = -1):
    """A copy y of x with y[i, indices[i, j]] = values[i, j]. It is differentiable in x and in values.

    indices: integers, with as many axes as x. values: a number, or an array that broadcasts to the shape of indices.
    If an index repeats, the array library decides which value stays. ``take_along_axis`` takes the values out again.
    """
    x, grid = places_along("put_along_axis", x, indices, axis)
    return index_update(x, grid, values)
