"""Reductions over axes: sums, products, moments. Sources: Parr and Howard, 2018.

``axis`` is None (all axes), an int or a tuple; negative axes count from the end. ``keepdims`` keeps the reduced axes
with size one. Empty arrays and integers are summed as in NumPy. Half precision is reduced in float32, above 4,096 terms
in float64, and rounded once. Bad axes raise ValueError.
"""

import builtins
import math

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.primitive import linear, no_derivative, primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.float_errors import ignoring
from tinygrad_ms.ops.blocks import SMALL
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.creation import ones_like, zeros_like
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.extremes import max
from tinygrad_ms.ops.running_sums import running_sums
from tinygrad_ms.ops.scale import homogeneous, over_norm
from tinygrad_ms.ops.shapes import (
    all_axes,
    along,
    before,
    broadcast_to,
    concat,
    flip,
    inverse_permutation,
    permute_dims,
    restore_axes,
)

__all__ = [
    "all", "any", "count_nonzero", "cumprod", "cumsum", "logsumexp", "mean", "prod", "std", "sum", "var",
]  # fmt: skip


def _sum_vjp(g, x_shape, axis, keepdims):
    """The cotangent of x: every element receives the cotangent of its sum."""
    if type(g) in ONE and not g.ndim and math.prod(x_shape) <= SMALL:
        y = numpy.empty(x_shape, g.dtype)
        y[...] = g
        return y
    g = restore_axes(g, x_shape, axis, keepdims)
    shape = before(g, len(x_shape)) + x_shape
    if type(g) is not numpy.ndarray or math.prod(shape) > SMALL:
        return broadcast_to(g, shape=shape)
    y = numpy.empty(shape, g.dtype)  # NumPy takes five times as long to make a view
    y[...] = g
    return y


ONE = {numpy.ndarray, numpy.float32, numpy.float64}  # the types of a gradient of one number


def count(x_shape, axis) -> int:
    """How many elements are reduced to one."""
    if axis is None:
        return math.prod(x_shape)
    return math.prod(x_shape[a] for a in all_axes("reduction", axis, len(x_shape))) if x_shape else 1


def _wide(x, axis):
    """x in the dtype that its elements are reduced in."""
    return wide(x, count(x.shape, axis)) if x.dtype.char in HALF else x


def _as_of(y, x):
    """The result y of a reduction, rounded to the dtype of x if x has half precision."""
    return y.astype(x.dtype) if x.dtype.char in HALF else y


# --- sums ---------------------------------------------------------------------------------------------------


@linear(
    transpose=_sum_vjp,
    batched=True,
    formula=r"y = \sum_i x_i:\quad \bar x_i = \bar y",
    source="Parr and Howard, section 4.4",
    notation=r"\sum {0}",
)
def sum(xp, x, axis=None, keepdims=False):
    """The sum over ``axis``. The sum of no elements is 0. Booleans are counted.

    >>> tg.sum([[1.0, 2.0], [3.0, 4.0]], axis=0)
    Tensor([4., 6.], dtype=float32)
    >>> tg.sum([[1.0, 2.0], [3.0, 4.0]], axis=1, keepdims=True).shape
    (2, 1)
    """
    if x.dtype.char in HALF:
        return wide(x, count(x.shape, axis)).sum(axis=axis, keepdims=keepdims).astype(x.dtype)
    return x.sum(axis=axis, keepdims=keepdims)


@linear(
    transpose=lambda g, x_shape, axis, keepdims: _sum_vjp(
        wide(g) / builtins.max(count(x_shape, axis), 1), x_shape, axis, keepdims
    ),
    batched=True,
    formula=r"y = \frac{1}{n} \sum_i x_i:\quad \bar x_i = \frac{\bar y}{n}",
    source="Parr and Howard, section 4.4",
    floats=True,
)
def mean(xp, x, axis=None, keepdims=False):
    """The mean over ``axis``, for integers in float32. The mean of no elements is NaN.

    Where the sum is beyond the range of the dtype, the mean is right on the CPU; on a GPU it is infinite.

    >>> tg.mean([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([1.5, 3.5], dtype=float32)
    """
    z = _wide(x, axis)
    if BACKENDS[type(x)].name != "cpu":
        return _as_of(z.mean(axis=axis, keepdims=keepdims), x)
    with ignoring("over", "invalid"):
        total = z.sum(axis=axis, keepdims=keepdims)
    n = x.size // (total.size or 1)

    def by_parts():
        small = 2.0 ** -n.bit_length()
        return (z * small).sum(axis=axis, keepdims=keepdims) / (n * small)

    return _as_of(_or_again(xp, total / n, by_parts), x)


def _or_again(xp, y, again):
    """The result y of a reduction on the CPU. Where it is not finite it is ``again()``: a sum may overflow."""
    if not y.ndim:
        return y if abs(y) < math.inf else again()
    finite = numpy.isfinite(y)
    return y if finite.all() else xp.where(finite, y, again())


def _cumsum_vjp(g, x_shape, axis):
    """The sums from each element to the end. For a NumPy array the reversed array is not copied."""
    if isinstance(g, numpy.ndarray) and g.dtype.char not in HALF and (axis is not None or g.ndim == len(x_shape) == 1):
        if (y := running_sums(g, axis, backwards=True)) is not None:
            return y
        y, axis = numpy.empty(g.shape, g.dtype), axis or 0
        numpy.flip(g, axis).cumsum(axis, out=numpy.flip(y, axis))
        return y
    return flip(cumsum(flip(g, axis=axis), axis=axis), axis=axis).reshape(x_shape)


@linear(
    transpose=_cumsum_vjp,
    formula=r"y_i = \sum_{j \le i} x_j:\quad \bar x_j = \sum_{i \ge j} \bar y_i",
    source="Parr and Howard, section 4.4",
)
def cumsum(xp, x, axis=None):
    """The running sums along ``axis`` (None: of the flattened x)."""
    if (y := running_sums(x, axis)) is not None:
        return y
    return _as_of(xp.cumsum(_wide(x, axis), axis=axis), x)


# --- products: no division, so right at zeros, and for every order of derivative ----------------------------


@primitive(
    vjp=lambda g, x, axis, keepdims: restore_axes(g, x.shape, axis, keepdims) * product_of_others(wide(x), axis),
    jvp=lambda t, x, axis, keepdims: (t * product_of_others(wide(x), axis)).sum(axis=axis, keepdims=keepdims),
    formula=r"y = \prod_i x_i:\quad \bar x_i = \bar y \prod_{j \ne i} x_j",
    source="Parr and Howard, section 2: the product rule",
    batched=True,
)
def prod(xp, x, axis=None, keepdims=False):
    """The product over ``axis``. The product of no elements is 1. Its derivatives are right at zeros, too."""
    return _as_of(_wide(x, axis).prod(axis=axis, keepdims=keepdims), x)


def product_of_others(x, axis):
    """For each element the product of the others: of all before it and of all after it."""
    axes = all_axes("prod", axis, x.ndim)
    order = tuple(a for a in range(x.ndim) if a not in axes) + axes
    moved = permute_dims(x, axes=order)
    rows = moved.reshape((*moved.shape[: x.ndim - len(axes)], count(x.shape, axis)))
    if 0 not in rows.shape:
        before = shifted_product(cumprod(rows, axis=-1), -1)
        after = flip(shifted_product(cumprod(flip(rows, axis=-1), axis=-1), -1), axis=-1)
        rows = before * after
    return permute_dims(rows.reshape(moved.shape), axes=inverse_permutation(order))


def shifted_product(y, axis: int):
    """Running products, shifted by one place: 1, y_0, y_1, ..."""
    axis %= y.ndim
    return concat([ones_like(y[along(axis, 0, 1)]), y[along(axis, 0, -1)]], axis)


def recurrence(a, b, axis: int):
    """The s_i = a_i s_{i-1} + b_i with s_0 = b_0, in log2(n) steps on whole arrays.

    After the step with distance d, b_i holds the last 2d terms and a_i the product of their factors.
    """
    axis %= b.ndim
    n, d = b.shape[axis], 1
    while d < n:
        tail, head, done = along(axis, d, None), along(axis, 0, -d), along(axis, 0, d)
        b = concat([b[done], b[tail] + a[tail] * b[head]], axis)
        a = concat([a[done], a[tail] * a[head]], axis)
        d *= 2
    return b


def _cumprod_vjp(g, x, y, axis):
    """The gradient through y_i = y_{i-1} x_i. In all, y_i receives s_i = g_i + x_{i+1} s_{i+1}."""
    x, y, g = wide(x), wide(y), wide(g)
    if axis is None or not x.shape:
        return _cumprod_vjp(g, x.reshape((x.size,)), y, 0).reshape(x.shape)
    if 0 in x.shape:
        return g
    back = flip(x, axis=axis)
    s = flip(recurrence(shifted_product(back, axis), flip(g, axis=axis), axis), axis=axis)
    return s * shifted_product(y, axis)


def _cumprod_jvp(t, x, y, axis):
    """The tangent of y_i = y_{i-1} x_i is x_i times that of y_{i-1}, plus y_{i-1} t_i."""
    x, y, t = wide(x), wide(y), wide(t)
    if axis is None or not x.shape:
        return _cumprod_jvp(t.reshape((x.size,)), x.reshape((x.size,)), y, 0)
    return t if 0 in x.shape else recurrence(x, shifted_product(y, axis) * t, axis)


@primitive(
    vjp=_cumprod_vjp,
    jvp=_cumprod_jvp,
    formula=r"y_i = y_{i-1} x_i:\quad s_i = \bar y_i + x_{i+1} s_{i+1}, \; \bar x_i = y_{i-1} s_i",
    source="Parr and Howard, section 4.5.1: the chain rule along the recurrence",
)
def cumprod(xp, x, axis=None):
    """The running products along ``axis`` (None: of the flattened x). Its derivatives are right at zeros."""
    return _as_of(xp.cumprod(_wide(x, axis), axis=axis), x)


# --- moments ------------------------------------------------------------------------------------------------


def scaled_deviation(x, axis, correction):
    """(x - mean) / (n - correction)."""
    x = _wide(x, axis)
    return (x - mean(x, axis=axis, keepdims=True)) / builtins.max(count(x.shape, axis) - correction, 0)


@primitive(
    vjp=lambda g, x, axis, correction, keepdims: (
        2 * restore_axes(g, x.shape, axis, keepdims) * scaled_deviation(x, axis, correction)
    ),
    jvp=lambda t, x, axis, correction, keepdims: (
        2 * (t * scaled_deviation(x, axis, correction)).sum(axis=axis, keepdims=keepdims)
    ),
    formula=r"y = \frac{1}{n - c} \sum_i (x_i - m)^2,\quad m = \frac{1}{n} \sum_i x_i:\quad"
    r" \bar x_i = \bar y \, \frac{2 (x_i - m)}{n - c}",
    source="Parr and Howard, section 4.5.2: the path through the mean m cancels",
    batched=True,
    floats=True,
)
def var(xp, x, axis=None, correction=0, keepdims=False):
    """The variance over ``axis``: the sum of squared deviations from the mean, divided by n - correction.

    correction: 0 by default, as in NumPy (which calls it ddof) and the array API. PyTorch's default is 1, the unbiased
    estimate. With no more than ``correction`` elements the result is NaN or infinite.
    """
    z = _wide(x, axis)
    if BACKENDS[type(x)].name != "cpu":
        return _as_of(z.var(axis=axis, ddof=correction, keepdims=keepdims), x)
    with ignoring("over", "invalid"):
        y = z.var(axis=axis, ddof=correction, keepdims=keepdims)

    def with_a_mean_in_range():
        d = scaled_deviation(z, axis, correction)
        return (d * (z - mean(z, axis=axis, keepdims=True))).sum(axis=axis, keepdims=keepdims)

    return _as_of(_or_again(xp, y, with_a_mean_in_range), x)


@primitive(
    vjp=lambda g, x, y, axis, correction, keepdims: (
        restore_axes(g, x.shape, axis, keepdims)
        * over_norm(scaled_deviation(x, axis, correction), restore_axes(y, x.shape, axis, keepdims))
    ),
    jvp=lambda t, x, y, axis, correction, keepdims: (
        t * over_norm(scaled_deviation(x, axis, correction), restore_axes(y, x.shape, axis, keepdims))
    ).sum(axis=axis, keepdims=keepdims),
    formula=r"y = \sqrt{\tfrac{1}{n - c} \sum_i (x_i - m)^2},\quad m = \frac{1}{n} \sum_i x_i:\quad"
    r" \bar x_i = \bar y \, \frac{x_i - m}{(n - c)\,y}",
    source="Parr and Howard, section 4.5.1: the square root of the variance",
    batched=True,
    floats=True,
    notes="The gradient where all elements are equal (y = 0) is 0.",
)
def std(xp, x, axis=None, correction=0, keepdims=False):
    """The standard deviation over ``axis``, the square root of ``var``. Where it is 0, its gradient is 0.

    Its gradient needs deviations from the mean that are in the range of the dtype, like that of ``var``.
    """
    return homogeneous(xp, x, axis, keepdims, lambda z: z.std(axis=axis, ddof=correction, keepdims=True))


# --- the logarithm of a sum of exponentials -----------------------------------------------------------------


def softmax_weights(x, axis):
    """exp(x_i) / sum(exp(x)), the derivative of logsumexp; 0 where all x are -inf.

    It is not exp(x_i - y), because the exponential would magnify the rounding error of y = logsumexp(x). The largest x
    is subtracted first. It is a constant here, because the result does not depend on it.
    """
    if 0 in x.shape:
        return zeros_like(x)
    x = _wide(x, axis)
    largest = max(raw(x), axis=axis, keepdims=True)
    e = exp(x - where(largest == -math.inf, 0, largest))
    total = e.sum(axis=axis, keepdims=True)
    return e / where(total == 0, 1, total)


@primitive(
    vjp=lambda g, x, axis, keepdims: restore_axes(g, x.shape, axis, keepdims) * softmax_weights(x, axis),
    jvp=lambda t, x, axis, keepdims: (t * softmax_weights(x, axis)).sum(axis=axis, keepdims=keepdims),
    formula=r"y = \log \sum_i e^{x_i}:\quad \bar x_i = \bar y \, \frac{e^{x_i}}{\sum_j e^{x_j}}",
    source="ai-edu, equations 4 and 6 and the chain rule",
    batched=True,
    floats=True,
    notes="The gradient is 0 where all elements are -inf, and NaN where one is inf.",
)
def logsumexp(xp, x, axis=None, keepdims=False):
    """log(sum(exp(x))) over ``axis``. It cannot overflow. For no elements it is -inf."""
    axes = all_axes("logsumexp", axis, x.ndim)
    if 0 in x.shape:
        return x.sum(axis=axes, keepdims=keepdims) - math.inf
    given, x = x, _wide(x, axes)
    largest = x.max(axis=axes, keepdims=True)
    total = xp.exp(x - xp.where(xp.isfinite(largest), largest, 0)).sum(axis=axes, keepdims=True)
    y = xp.log(xp.where(total == 0, 1, total)) + largest  # the total is 0 only where the largest is -inf
    return _as_of(y if keepdims else y.squeeze(axis=axes), given)


# --- truth --------------------------------------------------------------------------------------------------


@no_derivative(formula=r"\exists i: x_i \ne 0")
def any(xp, x, axis=None, keepdims=False):
    """Whether an element over ``axis`` is not zero. For no elements it is False."""
    return x.any(axis=axis, keepdims=keepdims)


@no_derivative(formula=r"\forall i: x_i \ne 0")
def all(xp, x, axis=None, keepdims=False):
    """Whether no element over ``axis`` is zero. For no elements it is True."""
    return x.all(axis=axis, keepdims=keepdims)


@no_derivative(formula=r"\#\{i : x_i \ne 0\}")
def count_nonzero(xp, x, axis=None, keepdims=False):
    """How many elements over ``axis`` are not zero."""
    return (x != 0).sum(axis=axis, keepdims=keepdims)
