"""Smooth activation functions, with logaddexp (the smooth maximum) that softplus is a case of.

Each is made of one exponential of a number that is not positive, so that nothing overflows and no tail is rounded away.
A forward leaves its derivative, made of the same exponential, for the rule (``cache=``).
docs/accuracy.md has the errors that were measured.
"""

import math
from functools import cache

import numpy

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.blocks import SMALL, bump, decay, fused, in_blocks, log1p, step, times, times_slope
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.rows import binary
from tinygrad_ms.ops.trigonometric import tanh

__all__ = [
    "log_sigmoid", "logaddexp", "sigmoid", "silu", "softplus",
]  # fmt: skip


def kept(y, slope):
    """What a forward returns: the result, and what the rule may read."""
    return y, (slope,)


# --- the logistic function ----------------------------------------------------------------------------------


@fused("sigmoid_rule")
def _slope_kernel(xp, x, g):
    return (g * bump(xp.exp(-xp.abs(x))),)


def _quick_slope(xp, x, out, g):
    return (xp.divide(g, _over_slope(xp.exp(xp.abs(x))), out=out[0]),)


def _over_slope(e):
    """1 / (e / (1 + e)^2)."""
    q = 1 / e
    q += e
    q += 2
    return q


@elementwise(
    derivative=lambda x, y: -y * tanh(0.5 * x),
    formula=r"y = \frac{e^{-|x|}}{(1 + e^{-|x|})^2}, \quad \frac{dy}{dx} = -y \tanh \frac{x}{2}",
    source="002 (70): the derivative of sigmoid, not rounded to 0 where sigmoid x is rounded to 1",
    floats=True,
)
def sigmoid_slope(xp, x):
    """1 / (4 cosh^2 (x / 2))."""
    return in_blocks(xp, _slope_kernel, x, 1, double=False, quick=_quick_slope)[0]


_NUMBERS = (0.0, 1.0, -1.0, 0.5, 0.25)


@cache
def _arrays_of(dtype):
    """They as arrays: beside a small array, NumPy takes as long to convert a number as to compute."""
    return tuple(numpy.array(value, dtype) for value in _NUMBERS)


def _sigmoid_rule(g, x):
    """g / (4 cosh^2 (x / 2)), of small arrays as in the rule of tanh."""
    if isinstance(x, numpy.ndarray) and x.size <= SMALL and x.dtype.char not in HALF:
        *_, half, quarter = _arrays_of(x.dtype)
        c = numpy.cosh(half * x)
        return quarter * g / c / c
    return times_slope(g, x, sigmoid_slope, _slope_kernel, _quick_slope)


@elementwise(
    rule=_sigmoid_rule,
    formula=r"\frac{dy}{dx} = y (1 - y) = \frac{e^{-|x|}}{(1 + e^{-|x|})^2}",
    source="002 (70)",
    floats=True,
)
def sigmoid(xp, x):
    """1 / (1 + e^-x)."""
    if x.size <= SMALL and x.dtype.char not in HALF:
        zero, one, minus, *_ = _arrays_of(x.dtype) if isinstance(x, numpy.ndarray) else _NUMBERS
        return xp.exp(xp.minimum(x, zero)) / (one + xp.exp(xp.copysign(x, minus)))
    return in_blocks(xp, _sigmoid_kernel, x, double=False, quick=_quick_sigmoid)[0]


@fused("sigmoid")
def _sigmoid_kernel(xp, x):
    w = xp.exp(-xp.abs(x))
    return (xp.maximum(w, step(x)) / (1 + w),)


def _quick_sigmoid(xp, x, out):
    e = xp.exp(x)
    q = e + 1
    return (xp.divide(e, q, out=out[0]),)


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
    q = xp.negative(x)
    xp.exp(q, out=q)
    e = 1 / q
    d = x - _C
    t = xp.multiply(d, 0.5, out=out[1])
    xp.tanh(t, out=t)
    t *= xp.add(e, _E_C, out=out[0])
    t += _N_C
    d += t
    e += q
    e += 2  # (1 + e^x) / s
    q += 1  # 1 / s
    return xp.divide(x, q, out=out[0]), xp.divide(d, e, out=out[1])


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
    return kept(*in_blocks(xp, _silu_kernel, x, double=False, quick=_quick_silu, quick_in="fd", results=2))


@fused("softplus")
def _softplus_kernel(xp, x, beta):
    z = beta * x
    w = xp.exp(-xp.abs(z))
    return (xp.maximum(z, 0) + log1p(xp, w)) / beta, xp.maximum(w, step(z)) / (1 + w)


def _quick_softplus(xp, x, out, beta):
    z = x if beta == 1 else -x if beta == -1 else beta * x
    e = xp.exp(z)
    w = 1 / e
    xp.minimum(w, e, out=w)
    q = e + 1
    slope = xp.divide(e, q, out=out[1])
    y = log1p(xp, w)
    y = xp.add(y, xp.maximum(z, 0, out=q), out=out[0])
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
    source="002 (4), (6), (51)",
)
def softplus(xp, x, beta=1.0):
    """ln(1 + e^(beta x)) / beta without overflow: a smooth relu; for beta = 1 it is logaddexp(x, 0)."""
    return kept(*in_blocks(xp, _softplus_kernel, x, beta, double=False, quick=_quick_softplus, results=2))


def log_sigmoid(x) -> Tensor:
    """ln sigmoid(x) = -ln(1 + e^-x), elementwise, without underflow. Gradient 1 - sigmoid(x)."""
    return softplus(as_operand(x), beta=-1.0)


def _gap(a, b):
    """a - b, at least in float32; -inf, whose sigmoid is 0, where both are -inf."""
    a, b = (x if type(x) in NUMBERS else wide(x) for x in (a, b))
    if any(type(x) in NUMBERS and x != -math.inf for x in (a, b)):
        return a - b
    return a - where((a == -math.inf) & (b == -math.inf), 0, b)


# fmt: off
logaddexp = binary("logaddexp", "ln(e^a + e^b) without overflow: a smooth maximum.",
                   derivative=(lambda a, b: sigmoid(_gap(a, b)), lambda a, b: sigmoid(_gap(b, a))),
                   formula=r"y = \ln(e^a + e^b), \quad dy = \sigma(a - b)\,da + \sigma(b - a)\,db",
                   source="002 (4), (6), (51)", floats=True, symmetric=True,
                   notes="The gradients where both are -inf are 0, as of logsumexp; NaN where both are inf.")
# fmt: on
