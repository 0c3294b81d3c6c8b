"""Activation functions of neural networks: the piecewise linear ones, softmax and log_softmax."""

from numpy import ndarray

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.primitive import elementwise, primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops import row_blocks
from tinygrad_ms.ops.blocks import fused
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.fused import LEAST, find
from tinygrad_ms.ops.fused.calls import along_rows
from tinygrad_ms.ops.shapes import all_axes, from_the_end
from tinygrad_ms.ops.short_rows import as_columns, most, total

__all__ = ["hardtanh", "leaky_relu", "log_softmax", "relu", "relu6", "softmax"]

# --- piecewise linear -------------------------------------------------------------------------------------


@fused("relu_rule", takes=2)
def _relu_kernel(xp, g, y):
    return (g * (y > 0),)


def _relu_rule(g, y):
    if (g.size >= LEAST or type(g) is not ndarray) and (run := find("relu_rule", g, y)):
        return run(g, y)[0]
    return g * (y > 0)


@elementwise(
    rule=lambda g, y: _relu_rule(g, y),
    formula=r"\frac{dy}{dx} = [x > 0]",
    source="subgradient, as in PyTorch",
    notes="The gradient at 0 is 0.",
)
def relu(xp, x):
    """max(x, 0)."""
    if x.size >= LEAST and (run := find("relu", x)):
        return run(x)[0]
    return xp.maximum(x, 0)


@elementwise(
    rule=lambda g, x, negative_slope: where(x > 0, g, negative_slope * g),
    formula=r"\frac{dy}{dx} = \begin{cases} 1 & x > 0 \\ s & x \le 0 \end{cases}",
    source="Maas, Hannun and Ng, 2013",
    floats=True,
    notes="The gradient at 0 is the negative slope, as in PyTorch.",
)
def leaky_relu(xp, x, negative_slope=0.01):
    """x where x > 0, else ``negative_slope`` x."""
    return xp.maximum(x, 0) + negative_slope * xp.minimum(x, 0)


@elementwise(
    rule=lambda g, x, min, max: where((x > min) & (x < max), g, 0),
    formula=r"\frac{dy}{dx} = [\min < x < \max]",
    source="subgradient, as in PyTorch",
    notes="The gradient at the bounds is 0 (that of clip is 1).",
)
def hardtanh(xp, x, min=-1.0, max=1.0):
    """x limited to the interval from ``min`` to ``max``."""
    return xp.clip(x, min, max)


def relu6(x) -> Tensor:
    """min(max(x, 0), 6), elementwise: ``hardtanh(x, 0, 6)``. Gradient [0 < x < 6]."""
    return hardtanh(x, 0, 6)


# --- along an axis ----------------------------------------------------------------------------------------


def _softmax_vjp(g, y, axis):
    if (g.size >= LEAST or type(g) is not ndarray) and (dx := _large_rule(g, y, axis)) is not None:
        return dx
    return y * (g - (g * y).sum(axis=from_the_end(axis, y.ndim), keepdims=True))


@primitive(
    vjp=_softmax_vjp,  # the Jacobian diag(y) - y y^T is symmetric
    jvp=_softmax_vjp,
    batched=True,
    formula=r"dy_i = y_i \Big( dx_i - \sum_j y_j\,dx_j \Big),\quad"
    r" \bar x_i = y_i \Big( \bar y_i - \sum_j y_j \bar y_j \Big)",
    source="ai-edu, equation 103",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def _softmax(xp, x, axis=-1):
    """e^x divided by its sum, in the precision of x."""
    return probabilities(xp, x, axis)


def softmax(x, axis=-1):
    """e^x divided by its sum along ``axis`` (an int or a tuple), without overflow.

    >>> tg.softmax([[0.0, 0.0], [1000.0, 0.0]])
    Tensor([[0.5, 0.5],
            [1. , 0. ]], dtype=float32)
    """
    return _softmax(x) if _is_plain(x, axis) else _in_float32(_softmax, x, axis)


def _log_softmax_vjp(g, y, axis):
    if (g.size >= LEAST or type(g) is not ndarray) and (dx := _large_rule(g, y, axis, logarithm=True)) is not None:
        return dx
    return g - exp(y) * g.sum(axis=from_the_end(axis, y.ndim), keepdims=True)


@primitive(
    vjp=_log_softmax_vjp,
    jvp=lambda t, y, axis: t - (exp(y) * t).sum(axis=from_the_end(axis, y.ndim), keepdims=True),
    batched=True,
    formula=r"dy_i = dx_i - \sum_j e^{y_j}\,dx_j,\quad \bar x_i = \bar y_i - e^{y_i} \sum_j \bar y_j",
    source="ai-edu, equation 102",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def _log_softmax(xp, x, axis=-1):
    """The logarithm of softmax."""
    return probabilities(xp, x, axis, logarithm=True)


def log_softmax(x, axis=-1):
    """x minus the logarithm of the sum of e^x along ``axis`` (an int or a tuple); without overflow."""
    return _log_softmax(x) if _is_plain(x, axis) else _in_float32(_log_softmax, x, axis)


def _is_plain(x, axis):
    """Whether a call with its defaults does, which takes less time."""
    return type(x) is Tensor and type(axis) is int and axis == -1 and x.data.dtype.char in "fd"


def _in_float32(op, x, axis):
    """Half precision is converted on the tape. So derivatives of any order never see the rounded result."""
    if getattr(getattr(x, "dtype", None), "char", "-") in HALF:
        return op(wide(x, x.size), axis=axis).astype(x.dtype)
    return op(x, axis=axis)


# --- the ways to compute them -----------------------------------------------------------------------------


def probabilities(xp, x, axis, logarithm=False):
    """softmax of a raw array, or its logarithm: by a kernel, else in columns, else in blocks of rows, else whole."""
    name, large = "log_softmax" if logarithm else "softmax", x.size >= LEAST or type(x) is not ndarray
    if large and (y := along_rows(name, x, axis=axis)) is not None:
        return y
    if (z := as_columns(x, axis)) is not None:
        z -= most(z)
        if logarithm:
            z -= xp.log(total(xp.exp(z)))
        else:
            xp.exp(z, out=z)
            z /= total(z)
        return z.T.copy().reshape(x.shape)
    if large and (y := row_blocks.softmax(xp, x, axis, logarithm)) is not None:
        return y
    axis = axis if x.ndim else all_axes(name, axis, 0)
    z = x - xp.max(x, axis=axis, keepdims=True) if x.size else x.copy()  # e^z cannot overflow
    if logarithm:
        return z - xp.log(xp.sum(xp.exp(z), axis=axis, keepdims=True))
    z = xp.exp(z)
    return z / xp.sum(z, axis=axis, keepdims=True)


def _large_rule(g, y, axis, logarithm=False):
    """The gradient of that function, from its result y: by a kernel, else in blocks of rows, else None."""
    dx = along_rows("log_softmax_rule" if logarithm else "softmax_rule", g, y, axis=axis)
    return row_blocks.softmax_rule(g, y, axis, logarithm) if dx is None else dx
