"""Sliding windows, for convolutions, and their transpose, which adds up overlapping windows."""

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import linear
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import all_axes, along
from tinygrad_ms.options import as_int

__all__ = ["sliding_window_view"]

SOURCE = "a 0-1 matrix that takes an element into every window it lies in; its transpose"


@linear(
    transpose=lambda g, x_shape, window, axes: overlap_add(g, shape=x_shape, window=window, axes=axes),
    formula=r"y_{p,q} = x_{p+q}:\quad \bar x_i = \sum_{p+q=i} \bar y_{p,q}",
    source=SOURCE,
    view=True,
    moves=True,
)
def _sliding_window_view(xp, x, /, window, axes):
    """The windows of x in new axes at the end: a view."""
    return xp.lib.stride_tricks.sliding_window_view(x, window, axes)


@linear(
    transpose=lambda g, window, axes: _sliding_window_view(g, window=window, axes=axes),
    formula=r"y_i = \sum_{p+q=i} g_{p,q}:\quad \bar g_{p,q} = \bar y_{p+q}",
    source=SOURCE,
    flops=lambda arrays, outputs, constants: arrays[0].size,  # one addition for each element
)
def overlap_add(xp, g, /, shape, window, axes):
    """Zeros of ``shape`` with the windows g added at their places, one axis after the other, in long runs."""
    y = wide(g) if axes else g.copy()
    for axis, size in zip(axes, window):
        parts = [y[along(len(shape), i, i + 1)].squeeze(len(shape)) for i in range(size)]
        now = (*y.shape[:axis], shape[axis], *y.shape[axis + 1 : len(shape)], *y.shape[len(shape) + 1 :])
        y = xp.zeros_like(parts[0], shape=now)  # in the order that its memory has
        for i, part in enumerate(parts):
            y[along(axis, i, i + part.shape[axis])] += part
    return y.astype(g.dtype, copy=False)


def sliding_window_view(x, window_shape, axis=None):
    """Every window of ``window_shape`` along ``axis`` (None: all axes), in new axes at the end. A read-only view.

    (..., n) with windows of k along the last axis becomes (..., n - k + 1, k), as in NumPy. A convolution is a sum over
    windows, ``einsum("nchwij,kcij->nkhw", sliding_window_view(x, (5, 5), (2, 3)), weight)``. For a step s take every
    s-th window by ``[:, :, ::s, ::s]``. Raises ValueError where a window is longer than its axis.
    """
    x = as_operand(x)
    sizes = window_shape if isinstance(window_shape, (tuple, list)) else (window_shape,)
    window = tuple(as_int(n, "sliding_window_view: window_shape", least=1) for n in sizes)
    axes = all_axes("sliding_window_view", axis, x.ndim)
    if len(window) != len(axes) or any(n > x.shape[a] for n, a in zip(window, axes)):
        raise ValueError(
            f"sliding_window_view: x has shape {x.shape} and window_shape is {window} along the axes {axes};"
            " expected one size for each axis, none longer than it"
        )
    return _sliding_window_view(x, window=window, axes=axes)
