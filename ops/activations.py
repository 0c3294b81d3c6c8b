"""Activation functions of neural networks, with logaddexp (the smooth maximum) that softplus is a case of."""

import math

import numpy

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise, primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.rows import binary
from tinygrad_ms.ops.special import erf
from tinygrad_ms.ops.trigonometric import tanh

__all__ = [
    "elu", "gelu", "hardtanh", "leaky_relu", "log_sigmoid", "log_softmax", "logaddexp", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "softmax", "softplus",
]  # fmt: skip

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


# --- exponential ------------------------------------------------------------------------------------------


@elementwise(
    rule=lambda g, x, y, alpha: where(x > 0, g, g * (y + alpha)),
    formula=r"\frac{dy}{dx} = \begin{cases} 1 & x > 0 \\ \alpha e^x = y + \alpha & x \le 0 \end{cases}",
    source="Clevert, Unterthiner and Hochreiter, 2016, eq. (16)",
    floats=True,
    notes="The gradient at 0 is alpha, as in PyTorch.",
)
def elu(xp, x, alpha=1.0):
    """x where x > 0, else alpha (e^x - 1)."""
    return xp.maximum(x, 0) + alpha * xp.expm1(xp.minimum(x, 0))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # fixed point: mean 0, variance 1


@elementwise(
    rule=lambda g, x, y: where(x > 0, _SELU_SCALE * g, g * (y + _SELU_SCALE * _SELU_ALPHA)),
    formula=r"y = \lambda \operatorname{elu}_\alpha x, \quad \frac{dy}{dx}"
    r" = \begin{cases} \lambda & x > 0 \\ y + \lambda \alpha & x \le 0 \end{cases}",
    source="Klambauer, Unterthiner, Mayr and Hochreiter, 2017, eq. (2)",
    floats=True,
    notes="The gradient at 0 is lambda alpha = 1.758, as in PyTorch.",
)
def selu(xp, x):
    """lambda elu(x, alpha) with lambda = 1.0507, alpha = 1.6733: keeps mean 0 and variance 1 across layers."""
    return _SELU_SCALE * (xp.maximum(x, 0) + _SELU_ALPHA * xp.expm1(xp.minimum(x, 0)))


@elementwise(derivative=lambda y: y * (1 - y), formula=r"\frac{dy}{dx} = y (1 - y)", source="002 (70)", floats=True)
def sigmoid(xp, x):
    """1 / (1 + e^-x)."""
    with numpy.errstate(over="ignore"):  # e^-x is infinite where the result rounds to 0
        return 1 / (1 + xp.exp(-x))


def _silu_derivative(x):
    s = sigmoid(x)
    return s * (1 + x * (1 - s))  # y + s (1 - y) would lose all digits where x is large


@elementwise(
    derivative=_silu_derivative,
    formula=r"y = x\,\sigma(x), \quad \frac{dy}{dx} = \sigma(x) \, (1 + x \, (1 - \sigma(x)))",
    source="Elfwing, Uchibe and Doya, 2018, eq. (4), (5)",
    floats=True,
    notes="NaN at -inf, as in PyTorch.",
)
def silu(xp, x):
    """x sigmoid(x), also called swish."""
    with numpy.errstate(over="ignore"):
        return x / (1 + xp.exp(-x))


def _gap(a, b):
    """a - b, at least in float32; -inf, whose sigmoid is 0, where both are -inf."""
    a, b = (x if type(x) in NUMBERS else wide(x) for x in (a, b))
    return where((a == -math.inf) & (b == -math.inf), -math.inf, a - b)


# fmt: off
logaddexp = binary("logaddexp", "ln(e^a + e^b) without overflow: a smooth maximum.",
                   derivative=(lambda a, b: sigmoid(_gap(a, b)), lambda a, b: sigmoid(_gap(b, a))),
                   formula=r"y = \ln(e^a + e^b), \quad dy = \sigma(a - b)\,da + \sigma(b - a)\,db",
                   source="002 (4), (6), (51)", floats=True, symmetric=True,
                   notes="The gradients where both are -inf are 0, as of logsumexp; NaN where both are inf.")
# fmt: on


@elementwise(
    derivative=lambda x, beta: sigmoid(beta * x),
    formula=r"y = \tfrac{1}{\beta} \ln(1 + e^{\beta x}), \quad \frac{dy}{dx} = \sigma(\beta x)",
    source="002 (4), (6), (51)",
    floats=True,
)
def softplus(xp, x, beta=1.0):
    """ln(1 + e^(beta x)) / beta without overflow: a smooth relu; for beta = 1 it is logaddexp(x, 0)."""
    z = beta * x
    return (xp.maximum(z, 0) + xp.log1p(xp.exp(-xp.abs(z)))) / beta


def log_sigmoid(x) -> Tensor:
    """ln sigmoid(x) = -softplus(-x), elementwise, without underflow. Gradient 1 - sigmoid(x)."""
    return -softplus(-x)


def mish(x) -> Tensor:
    """x tanh(softplus(x)), elementwise (Misra, 2019, eq. 1)."""
    return x * tanh(softplus(x))


# --- the normal distribution: gelu ------------------------------------------------------------------------

_CUBIC = 0.044715
_ROOT = math.sqrt(2 / math.pi)


def _gelu_derivative(x, approximate):
    if approximate == "tanh":
        t = tanh(_ROOT * (x + _CUBIC * x * x * x))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _ROOT * (1 + 3 * _CUBIC * x * x)
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


@elementwise(
    derivative=_gelu_derivative,
    formula=r"y = x\,\Phi(x), \quad \frac{dy}{dx} = \Phi(x) + \frac{x}{\sqrt{2 \pi}} e^{-x^2 / 2}",
    source="Hendrycks and Gimpel, 2016, section 2",
    floats=True,
    notes="With approximate='tanh' the derivative is that of the approximation. NaN at -inf, as in PyTorch.",
)
def gelu(xp, x, approximate="none"):
    """x Phi(x), Phi the normal distribution function. ``approximate``: "none" (by erf) or "tanh".

    The approximation is Phi(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(_ROOT * (x + _CUBIC * x * x * x)))
    if approximate != "none":
        raise ValueError(f"gelu: approximate is {approximate!r}; it must be 'none' or 'tanh'")
    return 0.5 * x * (1 + erf.primitive.forward(xp, x / math.sqrt(2)))


# --- along an axis ----------------------------------------------------------------------------------------


def _finest(y, fine):
    """The result before it was rounded to half precision, whose error the rules would magnify."""
    return wide(y, y.size) if fine is None else fine


def _softmax_vjp(g, y, fine, axis):
    g, y = wide(g, y.size), _finest(y, fine)
    return y * (g - (g * y).sum(axis=axis, keepdims=True))


@primitive(
    vjp=_softmax_vjp,  # the Jacobian diag(y) - y y^T is symmetric
    jvp=_softmax_vjp,
    cache=("fine",),
    formula=r"dy_i = y_i \Big( dx_i - \sum_j y_j\,dx_j \Big)",
    source="002 (103)",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def softmax(xp, x, axis=-1):
    """e^x over its sum along ``axis`` (an int or a tuple); without overflow."""
    e = xp.exp(_shifted(xp, wide(x, x.size), axis))
    return _rounded(e / xp.sum(e, axis=axis, keepdims=True), x)


def _log_softmax_vjp(g, y, fine, axis):
    return g - exp(_finest(y, fine)) * wide(g, y.size).sum(axis=axis, keepdims=True)


def _log_softmax_jvp(t, y, fine, axis):
    return t - (exp(_finest(y, fine)) * t).sum(axis=axis, keepdims=True)


@primitive(
    vjp=_log_softmax_vjp,
    jvp=_log_softmax_jvp,
    cache=("fine",),
    formula=r"dy_i = dx_i - \sum_j e^{y_j}\,dx_j",
    source="002 (102)",
    floats=True,
    notes="NaN along an axis that is -inf everywhere.",
)
def log_softmax(xp, x, axis=-1):
    """x minus the logarithm of the sum of e^x along ``axis`` (an int or a tuple); without overflow."""
    shifted = _shifted(xp, wide(x, x.size), axis)
    return _rounded(shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True)), x)


def _rounded(fine, x):
    """The result in the dtype of x, and what the rules may read: it as it was before, if that is half precision."""
    return (fine, (None,)) if fine.dtype == x.dtype else (fine.astype(x.dtype), (fine,))


def _shifted(xp, x, axis):
    """x minus its maximum along ``axis``: the same softmax, but e^x cannot overflow."""
    return x - xp.max(x, axis=axis, keepdims=True) if x.size else x.copy()
