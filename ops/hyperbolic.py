"""The reciprocal hyperbolic functions sech and csch, from exponentials that do not overflow."""

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import decay_and_rest, in_blocks, on_devices, times_slope
from tinygrad_ms.ops.elementwise import power

__all__ = ["csch", "sech"]


@elementwise(
    rule=lambda g, x: times_slope(g, x, sech_slope, _sech_slope, _quick_sech_slope, spare=1),
    formula=r"\frac{dy}{dx} = -\operatorname{sech} x \tanh x",
    source="ai-edu, equation 20",
    floats=True,
)
def sech(xp, x):
    """1 / cosh x, without overflow."""
    return in_blocks(xp, _sech_kernel, x, double=False, quick=_quick_sech, spare=1)[0]


@on_devices("sech", wide=True)
def _sech_kernel(xp, x):
    e = xp.exp(-xp.abs(x))
    return (2 * e / (1 + e * e),)


def _quick_sech(xp, x, out):
    return (xp.divide(2, _two_cosh(xp, x, *out), out=out[0]),)


def _two_cosh(xp, x, y, e):
    xp.exp(xp.abs(x, out=e), out=e)
    e += xp.divide(1, e, out=y)
    return e


@on_devices("sech_rule", takes=2, wide=True)
def _sech_slope(xp, x, g):
    return (g * (-_sech_kernel(xp, x)[0] * xp.tanh(x)),)


def _quick_sech_slope(xp, x, out, g):
    y, c = out
    _two_cosh(xp, x, y, c)
    c *= -0.5
    xp.tanh(x, out=y)
    y /= c
    y *= g
    return (y,)


@elementwise(
    derivative=lambda x: sech(x) - 2 * power(sech(x), 3),
    formula=r"y = -\operatorname{sech} x \tanh x, \quad"
    r" \frac{dy}{dx} = \operatorname{sech} x (1 - 2 \operatorname{sech}^2 x)",
    source="ai-edu, equations 18 and 20: the derivative of sech, from x, so that it is rounded once",
    floats=True,
)
def sech_slope(xp, x):
    """-sech x tanh x."""
    return in_blocks(xp, _sech_slope, x, 1, double=False, quick=_quick_sech_slope, spare=1)[0]


@elementwise(
    rule=lambda g, x: times_slope(g, x, csch_slope, _csch_slope, _quick_csch_slope, double=True),
    formula=r"\frac{dy}{dx} = -\operatorname{csch} x \coth x",
    source="ai-edu, equation 21",
    floats=True,
    notes="At 0: value inf, gradient -inf.",
)
def csch(xp, x):
    """1 / sinh x, without overflow."""
    return in_blocks(xp, _csch_kernel, x, quick=_quick_csch)[0]


def _quick_csch(xp, x, out):
    (y,) = out
    return (xp.divide(1, xp.sinh(x, out=y), out=y),)


def _quick_csch_slope(xp, x, out, g):
    (y,) = out
    if x.dtype.char == "d":
        s = xp.sinh(x)
        s *= s
        xp.divide(xp.sqrt(s + 1), s, out=y)
        xp.negative(y, out=y)
    else:
        v, rest = decay_and_rest(xp, x)
        v *= 2 - rest
        rest *= rest
        y[...] = xp.divide(v, rest, out=v)
        y *= -2
    y *= g
    return (y,)


@on_devices("csch", wide=True)
def _csch_kernel(xp, x):
    size = xp.abs(x)
    return (xp.copysign(2 * xp.exp(-size) / -xp.expm1(-2 * size), x),)


@on_devices("csch_rule", takes=2, wide=True)
def _csch_slope(xp, x, g):
    size = xp.abs(x)
    d = xp.expm1(-2 * size)
    return (g * (-2 * xp.exp(-size) * (2 + d) / (d * d)),)


@elementwise(
    derivative=lambda x: csch(x) + 2 * power(csch(x), 3),
    formula=r"y = -\operatorname{csch} x \coth x, \quad"
    r" \frac{dy}{dx} = \operatorname{csch} x (1 + 2 \operatorname{csch}^2 x)",
    source="ai-edu, equations 19 and 21: the derivative of csch, from x, so that it is rounded once",
    floats=True,
)
def csch_slope(xp, x):
    """-csch x coth x."""
    return in_blocks(xp, _csch_slope, x, 1, quick=_quick_csch_slope)[0]
