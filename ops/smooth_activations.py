"""Smooth activation functions, and logaddexp, the smooth maximum; softplus is a special case of it.

Each is made of one exponential of a number that is not positive. So nothing overflows, and no tail is rounded away. The
forward makes the derivative of the same exponential and leaves it for the rule (``cache=``). docs/accuracy.md has the
measured errors.
"""

import math
from functools import cache

import numpy

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.blocks import (
    SMALL,
    bump,
    decay,
    fused,
    in_blocks,
    is_small,
    log1p,
    over_bump,
    over_square,
    step,
    times,
    times_slope,
)  # fmt: skip
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.rows import binary
from tinygrad_ms.ops.trigonometric import tanh

__all__ = [
    "log_sigmoid", "logaddexp", "sigmoid", "silu", "softplus",
]  # fmt: skip


def kept(y, slope):
    """The return value of a forward: the result, and what the rule may read."""
    return y, (slope,)


# --- the logistic function ----------------------------------------------------------------------------------


@fused("sigmoid_rule", takes=2)
def _slope_kernel(xp, x, g):
    return (g * bump(xp.exp(-xp.abs(x))),)


def _quick_slope(xp, x, out, g):
    y, e = out
    xp.exp(x, out=e)
    return (xp.divide(g, over_bump(xp, e, y), out=y),)


@elementwise(
    derivative=lambda x, y: -y * tanh(0.5 * x),
    formula=r"y = \frac{e^{-|x|}}{(1 + e^{-|x|})^2}, \quad \frac{dy}{dx} = -y \tanh \frac{x}{2}",
    source="ai-edu, equation 70: the derivative of sigmoid, not rounded to 0 where sigmoid x is rounded to 1",
    floats=True,
)
def sigmoid_slope(xp, x):
    """1 / (4 cosh^2 (x / 2))."""
    return in_blocks(xp, _slope_kernel, x, 1, double=False, quick=_quick_slope, spare=1)[0]


_NUMBERS = (0.0, 1.0, -1.0, 0.5, 0.25)


@cache
def _arrays_of(dtype):
    """The numbers as arrays. Beside a small array, NumPy takes as long to convert a number as to compute."""
    return tuple(numpy.array(value, dtype) for value in _NUMBERS)


def _sigmoid_rule(g, x):
    """g / (4 cosh^2 (x / 2)). Small arrays are computed as in the rule of tanh."""
    if is_small(x):
        *_, half, quarter = _arrays_of(x.dtype)
        return over_square(quarter * g, numpy.cosh, half * x)
    return times_slope(g, x, sigmoid_slope, _slope_kernel, _quick_slope, spare=1)


@elementwise(
    rule=_sigmoid_rule,
    formula=r"\frac{dy}{dx} = y (1 - y) = \frac{e^{-|x|}}{(1 + e^{-|x|})^2}",
    source="ai-edu, equation 70",
    floats=True,
)
def sigmoid(xp, x):
    """1 / (1 + e^-x)."""
    if x.size <= SMALL and x.dtype.char not in HALF:
        zero, one, minus, *_ = _arrays_of(x.dtype) if isinstance(x, numpy.ndarray) else _NUMBERS
        return xp.exp(xp.minimum(x, zero)) / (one + xp.exp(xp.copysign(x, minus)))
    return in_blocks(xp, _sigmoid_kernel, x, double=False, quick=_quick_sigmoid, spare=1)[0]


@fused("sigmoid")
def _sigmoid_kernel(xp, x):
    w = xp.exp(-xp.abs(x))
    return (xp.maximum(w, step(x)) / (1 + w),)


def _quick_sigmoid(xp, x, out):
    y, q = out
    xp.exp(x, out=y)
    return (xp.divide(y, xp.add(y, 1, out=q), out=y),)


# The slope is s n(x) / (1 + e^x), n(x) = 1 + x + e^x. With d = x - c, n(x) = n(c) + d + (e^x + e^c) tanh(d / 2). The
# c here is within 1e-6 of the zero, so that n(c) is tiny and the other terms have one sign. Its few bits make d exact.
_C, _E_C, _N_C = -1.2784652709960938, 0.2784643399735158, -9.31022577970721e-07  # c, e^c, n(c)


@fused("silu")
def _silu_kernel(xp, x):
    a = -xp.abs(x)
    w, times_w = decay(xp, a)
    q = 1 + w
    y = (xp.maximum(x, 0) + times_w(xp.minimum(x, 0))) / q
    d = a - _C
    slope = times_w((d + ((w + _E_C) * xp.tanh(0.5 * d) + _N_C)) / (1 + w * (w + 2)))
    return y, xp.where(x > 0, 1 - slope, slope)  # the slopes at x and -x add up to 1


def _quick_silu(xp, x, out):
    y, slope, q, e, d = out
    xp.exp(xp.negative(x, out=q), out=q)
    xp.divide(1, q, out=e)
    xp.subtract(x, _C, out=d)
    xp.tanh(xp.multiply(d, 0.5, out=slope), out=slope)
    slope *= xp.add(e, _E_C, out=y)
    slope += _N_C
    slope += d
    e += q
    e += 2  # (1 + e^x) / s
    slope /= e
    q += 1  # 1 / s
    return xp.divide(x, q, out=y), slope


def _silu_slope(x):
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


@elementwise(
    rule=lambda g, x, slope: times(g, _silu_slope(wide(x)) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"y = x\,\sigma(x), \quad \frac{dy}{dx} = \sigma(x) \, (1 + x \, (1 - \sigma(x)))",
    source="Elfwing, Uchibe and Doya, 2018, eq. (4), (5)",
    notes="NaN at -inf, as in PyTorch.",
)
def silu(xp, x):
    """x sigmoid(x), also called swish."""
    return kept(*in_blocks(xp, _silu_kernel, x, double=False, quick=_quick_silu, results=2, spare=3))


@fused("softplus", sample=(1.0,))
def _softplus_kernel(xp, x, beta):
    z = beta * x
    w = xp.exp(-xp.abs(z))
    return (xp.maximum(z, 0) + log1p(xp, w)) / beta, xp.maximum(w, step(z)) / (1 + w)


def _quick_softplus(xp, x, out, beta):
    y, slope, w, *work = out
    z = x if beta == 1 else xp.multiply(x, beta, out=work[0])
    e = xp.exp(z, out=slope)
    xp.divide(1, e, out=w)
    xp.minimum(w, e, out=w)
    e /= xp.add(e, 1, out=y)
    log1p(xp, w, y, *work[1:])
    y += xp.maximum(z, 0, out=w)
    if beta != 1:
        y /= beta
    return y, slope


def _softplus_slope(x, beta):
    return sigmoid(beta * x)


@elementwise(
    rule=lambda g, x, slope, beta: times(g, _softplus_slope(wide(x), beta) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"y = \tfrac{1}{\beta} \ln(1 + e^{\beta x}), \quad \frac{dy}{dx} = \sigma(\beta x)",
    source="ai-edu, equations 4, 6 and 51",
)
def softplus(xp, x, beta=1.0):
    """ln(1 + e^(beta x)) / beta, without overflow. It is a smooth relu. For beta = 1 it is logaddexp(x, 0)."""
    return kept(*in_blocks(xp, _softplus_kernel, x, beta, double=False, quick=_quick_softplus, results=2, spare=4))


def log_sigmoid(x) -> Tensor:
    """ln sigmoid(x) = -ln(1 + e^-x), elementwise, without underflow. Gradient 1 - sigmoid(x)."""
    return softplus(as_operand(x), beta=-1.0)


def _gap(a, b):
    """a - b, at least in float32. Where both are -inf it is -inf, whose sigmoid is 0."""
    a, b = (x if type(x) in NUMBERS else wide(x) for x in (a, b))
    if isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray):
        with numpy.errstate(invalid="ignore"):
            gap = a - b
        if math.isfinite(gap.sum()):
            return gap
    if any(type(x) in NUMBERS and x != -math.inf for x in (a, b)):
        return a - b
    return a - where((a == -math.inf) & (b == -math.inf), 0, b)


# fmt: off
logaddexp = binary("logaddexp", "ln(e^a + e^b) without overflow: a smooth maximum.",
                   derivative=(lambda a, b: sigmoid(_gap(a, b)), lambda a, b: sigmoid(_gap(b, a))),
                   formula=r"y = \ln(e^a + e^b), \quad dy = \sigma(a - b)\,da + \sigma(b - a)\,db",
                   source="ai-edu, equations 4, 6 and 51", floats=True, symmetric=True,
                   notes="The gradients where both are -inf are 0, as of logsumexp; NaN where both are inf.")
# fmt: on
