"""Functions that move elements without changing them: reshape, transpose, broadcast, concat, split."""

from tinygrad_ms.engine.primitive import linear
from tinygrad_ms.engine.tensor import Tensor


@linear(
    transpose=lambda g, x_shape: g.reshape(x_shape),
    formula=r"\bar x = \mathrm{reshape}(\bar y)",
    source="linear map; its transpose",
    view=True,
)
def _reshape(xp, x, /, shape):
    return x.reshape(shape)


def reshape(x, *shape):
    """x with the same elements in another shape: ``reshape(x, 2, 3)`` or ``reshape(x, (2, -1))``."""
    return _reshape(x, shape=shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)


def unbroadcast(g, shape):
    """Sum ``g`` to ``shape``: the transpose of broadcasting."""
    extra = g.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1))
    return (g.sum(axis=axes, keepdims=True) if axes else g).reshape(shape)


@linear(
    transpose=lambda g, x_shape: unbroadcast(g, x_shape),
    formula=r"\bar x = \sum_{\text{broadcast axes}} \bar y",
    source="001, section 4.3",
    view=True,
)
def broadcast_to(xp, x, /, shape):
    """x repeated along new axes and axes of size one, without a copy."""
    return xp.broadcast_to(x, shape)


def expand_reduced(g, x_shape, axis, keepdims):
    """Give a reduced result its reduced axes back, with size one."""
    if keepdims:
        return g
    axes = range(len(x_shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = {a % len(x_shape) for a in axes}
    return g.reshape(tuple(1 if i in axes else n for i, n in enumerate(x_shape)))


Tensor.reshape = reshape
Tensor.broadcast_to = broadcast_to
