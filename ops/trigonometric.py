"""Trigonometric and hyperbolic functions with their inverses: the table of derivatives of ai-edu, equations 8 to 21."""

import numpy

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import (
    MANY,
    SMALL,
    bump,
    decay_and_rest,
    fused,
    in_blocks,
    is_small,
    on_devices,
    over_bump,
    over_square,
    times_slope,
)
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.elementwise import hypot, sqrt
from tinygrad_ms.ops.rows import Unary, binary, unary

__all__ = [
    "acos", "acosh", "acot", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "cot", "coth", "csc",
    "sec", "sin", "sinh", "tan", "tanh",
]  # fmt: skip


def _over_square(a, b, c):
    """c / (a^2 + b^2) without overflow; 0 at the origin."""
    r = hypot(a, b)
    r = where(r == 0, 1, r)
    return c / r / r


def _bell(x):
    """1 / (1 + x^2). float16 is computed in float32, because the square of 256 is infinite in float16."""
    x = wide(x)
    return 1 / (1 + x * x)


def _times_bell(xp, x, g):
    return (g / (1 + x * x),)


def _quick_bell(xp, x, out, g):
    (y,) = out
    xp.multiply(x, x, out=y)
    y += 1
    return (xp.divide(g, y, out=y),)


# fmt: off
# --- angles ---------------------------------------------------------------------------------------------------------

sin = unary("sin", "The sine of x in radians.", derivative=lambda x: cos(x),
            formula=r"\frac{dy}{dx} = \cos x", source="ai-edu, equation 8", floats=True)
cos: Unary = unary("cos", "The cosine of x in radians.", derivative=lambda x: -sin(x),
            formula=r"\frac{dy}{dx} = -\sin x", source="ai-edu, equation 9", floats=True)
tan = unary("tan", "The tangent of x in radians, sin x / cos x.", derivative=lambda y: 1 + y * y,
            formula=r"\frac{dy}{dx} = \sec^2 x = 1 + y^2", source="ai-edu, equation 10", floats=True)
cot = unary("cot", "The cotangent of x in radians, cos x / sin x.", lambda xp, x: 1 / xp.tan(x),
            derivative=lambda y: -1 - y * y, formula=r"\frac{dy}{dx} = -\csc^2 x = -(1 + y^2)",
            source="ai-edu, equation 11", floats=True, notes="At 0: value inf, gradient -inf.")
sec = unary("sec", "The secant of x in radians, 1 / cos x.", lambda xp, x: 1 / xp.cos(x),
            derivative=lambda x, y: y * tan(x), formula=r"\frac{dy}{dx} = \sec x \tan x",
            source="ai-edu, equations 9 and 33", floats=True)
csc = unary("csc", "The cosecant of x in radians, 1 / sin x.", lambda xp, x: 1 / xp.sin(x),
            derivative=lambda x, y: -y * cot(x), formula=r"\frac{dy}{dx} = -\csc x \cot x",
            source="ai-edu, equations 8 and 33", floats=True, notes="At 0: value inf, gradient -inf.")

asin = unary("asin", "The angle in [-pi/2, pi/2] with that sine.", "arcsin",
             derivative=lambda x: 1 / sqrt((1 - x) * (1 + x)), formula=r"\frac{dy}{dx} = \frac{1}{\sqrt{1 - x^2}}",
             source="ai-edu, equation 12", floats=True,
             notes="At -1 and 1 the gradient is inf; value and gradient are NaN outside.")
acos = unary("acos", "The angle in [0, pi] with that cosine.", "arccos",
             derivative=lambda x: -1 / sqrt((1 - x) * (1 + x)), formula=r"\frac{dy}{dx} = -\frac{1}{\sqrt{1 - x^2}}",
             source="ai-edu, equation 13", floats=True,
             notes="At -1 and 1 the gradient is -inf; value and gradient are NaN outside.")
atan = unary("atan", "The angle in (-pi/2, pi/2) with that tangent.", "arctan",
             rule=lambda g, x: times_slope(g, x, _bell, _times_bell, _quick_bell, beyond=MANY),
             formula=r"\frac{dy}{dx} = \frac{1}{1 + x^2}", source="ai-edu, equation 14", floats=True)
acot = unary("acot", "The angle in (0, pi) with that cotangent.", lambda xp, x: xp.arctan2(1, x),
             derivative=lambda x: -_bell(x), formula=r"\frac{dy}{dx} = -\frac{1}{1 + x^2}",
             source="ai-edu, equation 15", floats=True,
             notes="The continuous branch: acot x = pi/2 - atan x, also for negative x.")
atan2 = binary("atan2", "The angle in [-pi, pi] of the point with ordinate a and abscissa b.", "arctan2",
               derivative=(lambda a, b: _over_square(a, b, b), lambda a, b: _over_square(a, b, -a)),
               formula=r"dy = \frac{b\,da - a\,db}{a^2 + b^2}", source="ai-edu, equations 14 and 52", floats=True,
               notes="At (0, 0) both gradients are 0, as in PyTorch. The value jumps by 2 pi across a = 0, b < 0.")

# --- hyperbolic functions -------------------------------------------------------------------------------------------

sinh = unary("sinh", "(e^x - e^-x) / 2.", derivative=lambda x: cosh(x),
             formula=r"\frac{dy}{dx} = \cosh x", source="ai-edu, equation 16", floats=True)
cosh: Unary = unary("cosh", "(e^x + e^-x) / 2.", derivative=lambda x: sinh(x),
             formula=r"\frac{dy}{dx} = \sinh x", source="ai-edu, equation 17", floats=True)
tanh = unary("tanh", "sinh x / cosh x.", rule=lambda g, x: (g / (c := numpy.cosh(x, dtype="d")) / c).astype(x.dtype)
                 if isinstance(x, numpy.ndarray) and x.size <= SMALL and x.dtype.char in "fd" else
                 times_slope(g, x, tanh_slope, _tanh_kernel, _quick_tanh, spare=1),
             formula=r"\frac{dy}{dx} = \operatorname{sech}^2 x = 1 - y^2",
             source="ai-edu, equations 18 and 71", floats=True)
coth = unary("coth", "cosh x / sinh x.", lambda xp, x: in_blocks(xp, _coth_kernel, x, double=False)[0],
             rule=lambda g, x: over_square(-g, numpy.sinh, x) if is_small(x) else
                 times_slope(g, x, coth_slope, _coth_slope, _quick_coth_slope, double=True),
             formula=r"\frac{dy}{dx} = -\operatorname{csch}^2 x = 1 - y^2", source="ai-edu, equation 19", floats=True,
             notes="At 0: value inf, gradient -inf.")

asinh = unary("asinh", "The number with that sinh.", "arcsinh", derivative=lambda x: 1 / hypot(x, 1),
              formula=r"\frac{dy}{dx} = \frac{1}{\sqrt{1 + x^2}}", source="ai-edu, equations 4 and 16", floats=True)
acosh = unary("acosh", "The number >= 0 with that cosh.", "arccosh",
              derivative=lambda x: 1 / (sqrt(x - 1) * sqrt(x + 1)), formula=r"\frac{dy}{dx} = \frac{1}{\sqrt{x^2 - 1}}",
              source="ai-edu, equations 4 and 17", floats=True,
              notes="At 1 the gradient is inf; value and gradient are NaN below.")
atanh = unary("atanh", "The number with that tanh.", "arctanh", derivative=lambda x: 1 / ((1 - x) * (1 + x)),
              formula=r"\frac{dy}{dx} = \frac{1}{1 - x^2}", source="ai-edu, equations 4 and 18", floats=True,
              notes="At -1 and 1 both are infinite; outside, the value is NaN and the gradient 1 / (1 - x^2).")
# fmt: on


@fused("tanh_rule", takes=2)
def _tanh_kernel(xp, x, g):
    w = xp.exp(-2 * xp.abs(x))
    return (g * (4 * bump(w)),)


def _quick_tanh(xp, x, out, g):
    y, e = out
    if x.dtype.char == "d":  # NumPy's cosh is accurate enough there for two divisions
        xp.divide(g, xp.cosh(x, out=e), out=y)
        y /= e
        return (y,)
    xp.exp(xp.add(x, x, out=e), out=e)
    xp.divide(g, over_bump(xp, e, y), out=y)
    y *= 4
    return (y,)


@elementwise(
    derivative=lambda x, y: -2 * y * tanh(x),
    formula=r"y = \frac{1}{\cosh^2 x}, \quad \frac{dy}{dx} = -2 y \tanh x",
    source="ai-edu, equation 18: the derivative of tanh, not rounded to 0 where tanh x is rounded to 1",
    floats=True,
)
def tanh_slope(xp, x):
    """1 / cosh^2 x."""
    return in_blocks(xp, _tanh_kernel, x, 1, double=False, quick=_quick_tanh, spare=1)[0]


@on_devices("coth", wide=True)
def _coth_kernel(xp, x):
    t = xp.tanh(x)
    return (xp.divide(1, t, out=t),)


def _quick_coth_slope(xp, x, out, g):
    (y,) = out
    if x.dtype.char == "d":
        s = xp.sinh(x)
        xp.divide(g, xp.multiply(s, s, out=s), out=y)
        return (xp.negative(y, out=y),)
    v, rest = decay_and_rest(xp, x)
    v /= rest
    y[...] = xp.multiply(v, v, out=v)
    y *= -4
    y *= g
    return (y,)


@on_devices("coth_rule", takes=2, wide=True)
def _coth_slope(xp, x, g):
    z = -2 * xp.abs(x)
    d = xp.expm1(z)
    return (g * (-4 * xp.exp(z) / (d * d)),)


@elementwise(
    derivative=lambda x, y: -2 * y * coth(x),
    formula=r"y = -\frac{1}{\sinh^2 x}, \quad \frac{dy}{dx} = -2 y \coth x",
    source="ai-edu, equation 19: the derivative of coth, not rounded to 0 where coth x is rounded to 1",
    floats=True,
)
def coth_slope(xp, x):
    """-1 / sinh^2 x."""
    return in_blocks(xp, _coth_slope, x, 1, quick=_quick_coth_slope)[0]
