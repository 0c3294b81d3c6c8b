"""Functions of the order of elements along an axis: topk, median, cummax, cummin.

Each finds places by an op without a derivative, and then takes the elements at these places. So the gradient goes to
the elements that were taken.
"""

from math import prod

from tinygrad_ms.engine.primitive import no_derivative
from tinygrad_ms.ops.comparisons import isnan, where
from tinygrad_ms.ops.indexing import argsort, sort, take_along_axis
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import all_axes, along, one_axis, permute_dims, restore_axes
from tinygrad_ms.options import as_int

__all__ = ["cummax", "cummin", "median", "topk"]


def topk(x, k: int, axis: int = -1, largest: bool = True):
    """The k largest (or smallest) elements along ``axis``, in order, and their int64 indices.

    x (..., n, ...) gives two results (..., k, ...). Equal elements keep their order; NaN counts as the largest.
    The gradient goes to where each element came from. Raises ValueError unless 0 <= k <= n.
    """
    x = as_operand(x)
    axis, k = one_axis("topk", axis, x.ndim), as_int(k, "topk: k")
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k={k} of {x.shape[axis]} elements along axis {axis} (x has shape {x.shape})")
    indices = argsort(x, axis=axis, descending=largest)[along(axis, 0, k)]
    return take_along_axis(x, indices, axis), indices


def median(x, axis=None, keepdims: bool = False):
    """The median over ``axis`` (None: all; an int or a tuple). For an even number it is the mean of the middle two.

    It is NaN where an element is NaN, as in NumPy. The middle two share the gradient. Raises ValueError if there are no
    elements.
    """
    x = as_operand(x)
    axes = all_axes("median", axis, x.ndim)
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    n = prod(x.shape[a] for a in axes)
    rows = permute_dims(x, axes=kept + axes).reshape((*(x.shape[a] for a in kept), n))
    if not n:
        raise ValueError(f"median: there are no elements over axis {axis} (x has shape {x.shape})")
    ordered = sort(rows, axis=-1)
    y = ordered[..., n // 2] if n % 2 else (ordered[..., n // 2 - 1] + ordered[..., n // 2]) / 2
    y = where(isnan(ordered[..., -1]), ordered[..., -1], y)  # NaN is sorted to the end
    return restore_axes(y, x.shape, axes, False) if keepdims else y


def _better(xp, a, b, largest):
    """Where a is chosen over b: a is NaN, or a is beyond b. Of equal elements the later one is chosen."""
    return xp.isnan(a) | ((a > b) if largest else (a < b))


@no_derivative(formula=r"k_i = \arg\max_{j \le i} x_j")
def _running_index(xp, x, /, axis, largest):
    """For each element the index of the largest (or smallest) one up to it. Of equal elements it is the last.

    The distance doubles: after the step with distance d, each place knows the best of the last 2 d elements.
    """
    n, d = x.shape[axis], 1
    shape = tuple(n if a == axis else 1 for a in range(x.ndim))
    best = xp.broadcast_to(xp.arange(n).reshape(shape), x.shape)
    while d < n:
        tail, head, done = along(axis, d, None), along(axis, 0, -d), along(axis, 0, d)
        keep = _better(xp, x[head], x[tail], largest) & ~xp.isnan(x[tail])
        x = xp.concatenate([x[done], xp.where(keep, x[head], x[tail])], axis)
        best = xp.concatenate([best[done], xp.where(keep, best[head], best[tail])], axis)
        d *= 2
    return best


def _running(op: str, x, axis: int, largest: bool):
    x = as_operand(x)
    axis = one_axis(op, axis, x.ndim)
    indices = _running_index(x, axis=axis, largest=largest)
    return take_along_axis(x, indices, axis), indices


def cummax(x, axis: int = -1):
    """The largest element so far along ``axis``, and its int64 index. As in PyTorch, of equal elements it is the last.

    Both results have the shape of x. After a NaN everything is NaN. The gradient goes to the elements taken.
    """
    return _running("cummax", x, axis, True)


def cummin(x, axis: int = -1):
    """The smallest element so far along ``axis``, and its int64 index. All else is as in ``cummax``."""
    return _running("cummin", x, axis, False)
