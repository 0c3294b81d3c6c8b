"""Norms of vectors and matrices: norm, vector_norm, matrix_norm. Two tables below list every kind of norm.

``axis`` is None (all axes), an int or a tuple, as in the reductions.
"""

import math

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, is_float
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise, primitive
from tinygrad_ms.ops.creation import zeros_like
from tinygrad_ms.ops.elementwise import abs
from tinygrad_ms.ops.extremes import max, min
from tinygrad_ms.ops.linalg.decompositions import svdvals
from tinygrad_ms.ops.matrix_sign.msign import nuclear_norm
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.reductions import sum
from tinygrad_ms.ops.scale import homogeneous, over_norm
from tinygrad_ms.ops.shapes import all_axes, moveaxis, restore_axes, squeeze
from tinygrad_ms.options import is_real

__all__ = ["matrix_norm", "norm", "vector_norm"]


@primitive(
    vjp=lambda g, x, y, axis, keepdims: (
        restore_axes(g, x.shape, axis, keepdims) * over_norm(x, restore_axes(y, x.shape, axis, keepdims))
    ),
    jvp=lambda t, x, y, axis, keepdims: (t * over_norm(x, restore_axes(y, x.shape, axis, keepdims))).sum(
        axis=axis, keepdims=keepdims
    ),
    formula=r"y = \sqrt{\textstyle\sum_i x_i^2}:\quad \bar x = \bar y \, \frac{x}{y}",
    source="AIDIY, section 1, and the chain rule",
    batched=True,
    floats=True,
    notes="The gradient at 0 is 0.",
)
def euclidean_norm(xp, x, axis=None, keepdims=False):
    """The square root of the sum of squares over ``axis``, for x of any scale. It overflows only if it must."""
    return homogeneous(xp, x, axis, keepdims, lambda z: xp.sqrt((z * z).sum(axis=axis, keepdims=True)))


@elementwise(
    derivative=lambda x, exponent, odd: (
        exponent * signed_power(x, exponent=exponent - 1, odd=not odd) if exponent else zeros_like(x)
    ),
    formula=r"y = |x|^q:\ \frac{dy}{dx} = q\,\mathrm{sign}(x)|x|^{q - 1};\quad"
    r" y = \mathrm{sign}(x)|x|^q:\ \frac{dy}{dx} = q\,|x|^{q - 1}",
    source="ai-edu, equation 2",
)
def signed_power(xp, x, *, exponent, odd):
    """|x|^exponent. If ``odd`` it has the sign of x, and is 0 at 0 for a negative exponent, too."""
    with numpy.errstate(divide="ignore"):
        y = xp.abs(x) ** exponent
        return xp.where(x == 0, 0, xp.copysign(y, x)) if odd else y


def _slope(x, y, ord, axis, keepdims):
    """The derivative of the norm y of order p, sign(x_i) |x_i / y|^(p - 1); 0 where x_i or y is 0, and for p = 0."""
    z = over_norm(x, restore_axes(y, x.shape, axis, keepdims))
    return signed_power(z, exponent=ord - 1, odd=True) if ord else zeros_like(z)


@primitive(
    vjp=lambda g, x, y, ord, axis, keepdims: (
        restore_axes(g, x.shape, axis, keepdims) * _slope(x, y, ord, axis, keepdims)
    ),
    jvp=lambda t, x, y, ord, axis, keepdims: (t * _slope(x, y, ord, axis, keepdims)).sum(axis=axis, keepdims=keepdims),
    formula=r"y = (\textstyle\sum_i |x_i|^p)^{1/p}:\quad \bar x_i = \bar y\,\mathrm{sign}(x_i)\,|x_i / y|^{p - 1}",
    source="ai-edu, equation 2 and the chain rule",
    batched=True,
    floats=True,
    notes="The gradient is 0 for an element that is 0, as in PyTorch, although for p < 1 the slope there is"
    " infinite; for p < 0 all of it is 0 where one element is 0. The relative error of the gradient grows as |p|.",
)
def p_norm(xp, x, /, ord, axis=None, keepdims=False):
    """The norm of order p, any finite number, over ``axis``, for x of any scale. p = 0 counts the nonzero elements.

    x is divided by the largest |x_i|, for p < 0 by the smallest. No power of the quotients overflows.
    """
    z, axes = xp.abs(wide(x, x.size)), all_axes("p_norm", axis, x.ndim)
    if ord == 0:
        y = (z != 0).sum(axis=axes, keepdims=True).astype(z.dtype)
    elif not x.size:
        if ord < 0:
            raise ValueError(f"p_norm: x, of shape {x.shape}, has no elements; ord={ord} divides by them")
        y = z.sum(axis=axes, keepdims=True)
    else:
        scale = z.max(axis=axes, keepdims=True) if ord > 0 else z.min(axis=axes, keepdims=True)
        scale = xp.where((scale > 0) & xp.isfinite(scale), scale, 1)
        with numpy.errstate(divide="ignore", over="ignore"):
            y = ((z / scale) ** ord).sum(axis=axes, keepdims=True) ** (1 / ord) * scale
    return (y if keepdims else y.squeeze(axis=axes)).astype(x.dtype, copy=False)


def _sums(extreme):
    """The largest or smallest sum of absolute values, of (x, summed axis, compared axis, keepdims)."""

    def norm_of_sums(x, summed, compared, keepdims):
        y = extreme(sum(abs(x), axis=summed, keepdims=True), axis=compared, keepdims=True)
        return y if keepdims else squeeze(y, (summed, compared))

    return norm_of_sums


def _of_last_axes(function):
    """A function (x, axis, keepdims) of matrices in any two axes, from one of matrices in the last two axes."""

    def norm_of_axes(x, axis, keepdims):
        y = function(moveaxis(x, axis, (-2, -1)))
        return restore_axes(y, x.shape, axis, False) if keepdims else y

    return norm_of_axes


_largest_sum, _smallest_sum = _sums(max), _sums(min)
VECTOR_NORMS: dict = {  # ord: function of (x, axis, keepdims); p_norm for any other number
    2: euclidean_norm,
    1: lambda x, axis, keepdims: sum(abs(x), axis=axis, keepdims=keepdims),
    math.inf: lambda x, axis, keepdims: max(abs(x), axis=axis, keepdims=keepdims),
    -math.inf: lambda x, axis, keepdims: min(abs(x), axis=axis, keepdims=keepdims),
}
MATRIX_NORMS: dict = {  # ord: function of (x, axis, keepdims), axis being those of the rows and the columns
    "fro": euclidean_norm,
    1: lambda x, axis, keepdims: _largest_sum(x, axis[0], axis[1], keepdims),
    -1: lambda x, axis, keepdims: _smallest_sum(x, axis[0], axis[1], keepdims),
    math.inf: lambda x, axis, keepdims: _largest_sum(x, axis[1], axis[0], keepdims),
    -math.inf: lambda x, axis, keepdims: _smallest_sum(x, axis[1], axis[0], keepdims),
    2: _of_last_axes(lambda x: svdvals(x).max(axis=-1)),  # gradient u_1 v_1^T, shared where the largest repeats
    -2: _of_last_axes(lambda x: svdvals(x).min(axis=-1)),
    "nuc": _of_last_axes(nuclear_norm),
}


def _floating(x):
    """x as an operand of floats: integers and booleans become the default float."""
    x = as_operand(x)
    return x if is_float(x.dtype) else x.astype(DEFAULT_FLOAT)


def vector_norm(x, ord=2, axis=None, keepdims=False):
    """The norm of order p of the vectors over ``axis``: None (all of x), an int or a tuple; as in the array API.

    ord: a number p: (sum |x_i|^p)^(1/p). inf and -inf: the largest and the smallest |x_i|. 0: the number of nonzero
    elements. No power overflows, so f(s x) = |s| f(x) over the range of the dtype. Integers become float32. As in
    PyTorch, the gradient is 0 where the norm is 0, and for elements that are 0; equal extremes share it equally. The
    gradient of order 0 is 0. float16 cannot hold counts above 65,504; use count_nonzero. Raises ValueError for ord=nan,
    and for no elements where ord < 0 or ord = inf.
    """
    if not is_real(ord) or ord != ord:
        raise ValueError(f"vector_norm: ord={ord!r} is unknown; expected a number, inf or -inf")
    x = _floating(x)
    if ord in VECTOR_NORMS:
        return VECTOR_NORMS[ord](x, axis=axis, keepdims=keepdims)
    return p_norm(x, ord=float(ord), axis=axis, keepdims=keepdims)


def norm(x, ord=None, axis=None, keepdims=False):
    """The norm of vectors or matrices, as ``numpy.linalg.norm`` defines it.

    axis: an int for vectors along this axis, two for matrices with these rows and columns, None for x as a whole.
    ord: None is the root of the sum of squares, for any number of axes.
        For vectors: any number, as in ``vector_norm``: 2 (the root of the sum of squares), 1, 0, 0.5, inf, -inf, ...
        For matrices: "fro" (as None), 1 and inf (the largest sum of absolute values of a column, of a row), -1 and
        -inf (the smallest one), 2 and -2 (the largest and the smallest singular value), "nuc" (the sum of these).
    The gradient of every norm at 0 is 0. Equal extremes share the gradient equally. Raises ValueError for any other
    ord.
    """
    x = _floating(x)
    if ord is None:
        return euclidean_norm(x, axis=axis, keepdims=keepdims)
    axes = all_axes("norm", axis, x.ndim)
    if len(axes) == 1 and is_real(ord) and ord == ord:
        return vector_norm(x, ord, axes, keepdims)
    if len(axes) != 2 or ord not in MATRIX_NORMS:
        what = {1: "vectors", 2: "matrices"}.get(len(axes), f"{len(axes)} axes together")
        expected = {1: "None or a number", 2: ", ".join(map(repr, (None, *MATRIX_NORMS)))}
        raise ValueError(
            f"norm: ord={ord!r} of {what} (x has shape {x.shape}, axis={axis}) is unknown;"
            f" expected {expected.get(len(axes), 'None; or use vector_norm')}"
        )
    return MATRIX_NORMS[ord](x, axis=axes, keepdims=keepdims)


def matrix_norm(x, ord="fro", keepdims=False):
    """The norm of the matrices in the last two axes: "fro", "nuc", or 1, 2, inf and their negatives, as in ``norm``."""
    return norm(x, ord, axis=(-2, -1), keepdims=keepdims)
