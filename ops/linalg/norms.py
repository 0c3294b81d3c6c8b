"""Norms of vectors and matrices: norm, matrix_norm; the table of every kind of norm stands here.

``axis`` is None (all axes), an int or a tuple, as of the reductions.
"""

import math

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, is_float
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.elementwise import abs
from tinygrad_ms.ops.linalg.decompositions import svdvals
from tinygrad_ms.ops.matrix_sign.msign import nuclear_norm
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.reductions import max, sum
from tinygrad_ms.ops.scale import homogeneous, over_norm
from tinygrad_ms.ops.shapes import all_axes, moveaxis, restore_axes, squeeze

__all__ = ["matrix_norm", "norm"]


@primitive(
    vjp=lambda g, x, y, axis, keepdims: (
        restore_axes(g, x.shape, axis, keepdims) * over_norm(x, restore_axes(y, x.shape, axis, keepdims))
    ),
    jvp=lambda t, x, y, axis, keepdims: (t * over_norm(x, restore_axes(y, x.shape, axis, keepdims))).sum(
        axis=axis, keepdims=keepdims
    ),
    formula=r"y = \sqrt{\textstyle\sum_i x_i^2}:\quad \bar x = \bar y \, \frac{x}{y}",
    source="004, section 1, and the chain rule",
    floats=True,
    notes="The gradient at 0 is 0.",
)
def euclidean_norm(xp, x, axis=None, keepdims=False):
    """The square root of the sum of squares over ``axis``, of x of any scale; infinite only where it must be."""
    return homogeneous(xp, x, axis, keepdims, lambda z: xp.sqrt((z * z).sum(axis=axis, keepdims=True)))


def _largest_sum(x, summed, compared, keepdims):
    y = max(sum(abs(x), axis=summed, keepdims=True), axis=compared, keepdims=True)
    return y if keepdims else squeeze(y, (summed, compared))


def _of_last_axes(function):
    """A function of the matrices in the last two axes as one of the matrices in any two, (x, axis, keepdims)."""

    def norm_of_axes(x, axis, keepdims):
        y = function(moveaxis(x, axis, (-2, -1)))
        return restore_axes(y, x.shape, axis, False) if keepdims else y

    return norm_of_axes


VECTOR_NORMS = {  # ord: function of (x, axis, keepdims)
    2: euclidean_norm,
    1: lambda x, axis, keepdims: sum(abs(x), axis=axis, keepdims=keepdims),
    math.inf: lambda x, axis, keepdims: max(abs(x), axis=axis, keepdims=keepdims),
}
MATRIX_NORMS = {  # ord: function of (x, axis, keepdims), axis being those of the rows and the columns
    "fro": euclidean_norm,
    1: lambda x, axis, keepdims: _largest_sum(x, axis[0], axis[1], keepdims),
    math.inf: lambda x, axis, keepdims: _largest_sum(x, axis[1], axis[0], keepdims),
    2: _of_last_axes(lambda x: svdvals(x).max(axis=-1)),  # gradient u_1 v_1^T, shared where the largest repeats
    -2: _of_last_axes(lambda x: svdvals(x).min(axis=-1)),
    "nuc": _of_last_axes(nuclear_norm),
}


def norm(x, ord=None, axis=None, keepdims=False):
    """The norm of vectors or matrices, as ``numpy.linalg.norm`` defines it.

    axis: an int for vectors along it, two for matrices with those rows and columns; None: x as a whole.
    ord: None: the root of the sum of squares, of any number of axes.
        Of vectors: 2 (the same), 1 (the sum of absolute values), inf (the largest of them).
        Of matrices: "fro" (as None), 1 (the largest such sum of a column), inf (of a row),
        2 and -2 (the largest and smallest singular value), "nuc" (the sum of the singular values).
    The gradient of every norm at 0 is 0; the largest share it equally at ties. Raises ValueError for any
    other ord.
    """
    x = as_operand(x)
    if not is_float(x.dtype):
        x = x.astype(DEFAULT_FLOAT)
    if ord is None:
        return euclidean_norm(x, axis=axis, keepdims=keepdims)
    axes = all_axes("norm", axis, x.ndim)
    norms: dict = {1: VECTOR_NORMS, 2: MATRIX_NORMS}.get(len(axes), {})
    if ord not in norms:
        what = {1: "vectors", 2: "matrices"}.get(len(axes), f"{len(axes)} axes together")
        raise ValueError(
            f"norm: ord={ord!r} of {what} (x has shape {x.shape}, axis={axis}) is unknown;"
            f" expected {', '.join(map(repr, (None, *norms)))}"
        )
    return norms[ord](x, axis=axes, keepdims=keepdims)


def matrix_norm(x, ord="fro", keepdims=False):
    """The norm of the matrices in the last two axes: "fro", "nuc", 2, -2, 1 or inf, as in ``norm``."""
    return norm(x, ord, axis=(-2, -1), keepdims=keepdims)
