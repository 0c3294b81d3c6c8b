"""Activation functions of neural networks: the piecewise linear ones, softmax and log_softmax."""

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise, primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.shapes import from_the_end
from tinygrad_ms.ops.short_rows import as_columns, as_rows

__all__ = ["hardtanh", "leaky_relu", "log_softmax", "relu", "relu6", "softmax"]

# --- piecewise linear -------------------------------------------------------------------------------------


@elementwise(
    derivative=lambda y: y > 0,
    formula=r"\frac{dy}{dx} = [x > 0]",
    source="subgradient, as in PyTorch",
    notes="The gradient at 0 is 0.",
)
def relu(xp, x):
    """max(x, 0)."""
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


def _finest(y, fine):
    """The result before it was rounded to half precision, whose error the rules would magnify."""
    return wide(y, y.size) if fine is None else fine


def _softmax_vjp(g, y, fine, axis):
    g, y = wide(g, y.size), _finest(y, fine)
    return y * (g - (g * y).sum(axis=from_the_end(axis, y.ndim), keepdims=True))


@primitive(
    vjp=_softmax_vjp,  # the Jacobian diag(y) - y y^T is symmetric
    jvp=_softmax_vjp,
    cache=("fine",),
    batched=True,
    formula=r"dy_i = y_i \Big( dx_i - \sum_j y_j\,dx_j \Big)",
    source="002 (103)",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def softmax(xp, x, axis=-1):
    """e^x over its sum along ``axis`` (an int or a tuple); without overflow."""
    given, x = x, wide(x, x.size)
    columns = as_columns(x, axis)
    if columns is None:
        e = xp.exp(_shifted(xp, x, axis))
        return _rounded(e / xp.sum(e, axis=axis, keepdims=True), given)
    columns -= columns.max(axis=0)
    e = xp.exp(columns, out=columns)
    e /= e.sum(axis=0)
    return _rounded(as_rows(e, x.shape), given)


def _log_softmax_vjp(g, y, fine, axis):
    return g - exp(_finest(y, fine)) * wide(g, y.size).sum(axis=from_the_end(axis, y.ndim), keepdims=True)


def _log_softmax_jvp(t, y, fine, axis):
    return t - (exp(_finest(y, fine)) * t).sum(axis=axis, keepdims=True)


@primitive(
    vjp=_log_softmax_vjp,
    jvp=_log_softmax_jvp,
    cache=("fine",),
    batched=True,
    formula=r"dy_i = dx_i - \sum_j e^{y_j}\,dx_j",
    source="002 (102)",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def log_softmax(xp, x, axis=-1):
    """x minus the logarithm of the sum of e^x along ``axis`` (an int or a tuple); without overflow."""
    return _rounded(log_probabilities(xp, wide(x, x.size), axis), x)


def _rounded(fine, x):
    """The result in the dtype of x, and what the rules may read: it as it was before, if that is half precision."""
    return (fine, (None,)) if fine.dtype == x.dtype else (fine.astype(x.dtype), (fine,))


def log_probabilities(xp, x, axis):
    """log_softmax of a raw array."""
    columns = as_columns(x, axis)
    if columns is None:
        y = _shifted(xp, x, axis)
        return y - xp.log(xp.sum(xp.exp(y), axis=axis, keepdims=True))
    columns -= columns.max(axis=0)
    columns -= xp.log(xp.exp(columns).sum(axis=0))
    return as_rows(columns, x.shape)


def _shifted(xp, x, axis):
    """x minus its maximum along ``axis``: the same softmax, but e^x cannot overflow."""
    return x - xp.max(x, axis=axis, keepdims=True) if x.size else x.copy()
