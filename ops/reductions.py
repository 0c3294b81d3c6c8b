"""Reductions over axes: sums, means, extremes, norms."""

from tinygrad_ms.engine.primitive import linear
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.shapes import broadcast_to, expand_reduced


@linear(
    transpose=lambda g, x_shape, axis, keepdims: broadcast_to(expand_reduced(g, x_shape, axis, keepdims), x_shape),
    formula=r"\bar x_{ij} = \bar y_i",
    source="001, section 4.4",
)
def sum(xp, x, axis=None, keepdims=False):
    """Sum over ``axis`` (None: all; an int or a tuple)."""
    return xp.sum(x, axis=axis, keepdims=keepdims)


Tensor.sum = sum
