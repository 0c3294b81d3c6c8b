"""Special functions that NumPy lacks or whose derivatives need care: erf, erfc, logit, sinc."""

import functools
import math

import numpy

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import in_blocks, on_devices
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.fused import LEAST, find
from tinygrad_ms.ops.normal import bell, gaussian, mills_ratio
from tinygrad_ms.ops.rows import unary

__all__ = ["erf", "erfc", "logit", "sinc"]

# --- the error function -----------------------------------------------------------------------------------
#
# -ln(1 - erf x) grows like s x near 0, s = 2 / sqrt(pi), and like x^2 far from it. So its ratio to x (x + s)
# is a smooth function between 0.85 and 1. A polynomial p in a variable u that maps [0, 6] to [-1, 1] fits it
# to the last digit; erf x = 1 - exp(-x (x + s) p(u)) then is accurate near 0, too, and 1 beyond 6.

_SLOPE = 2 / math.sqrt(math.pi)
_END, _CENTER = 6.0, 3.0  # u(0) = -1, u(6) = 1; the center is chosen for fast convergence
_SCALE = (_END + 2 * _CENTER) / _END  # u(x) = (_SCALE x - _CENTER) / (x + _CENTER)


@functools.cache
def _erf_polynomial(degree: int) -> list[float]:
    """The coefficients of p, lowest first, by interpolation of math.erf in the Chebyshev points."""
    from numpy.polynomial.chebyshev import cheb2poly

    def ratio(u):
        x = _CENTER * (1 + u) / (_SCALE - u)
        decay = -math.log1p(-math.erf(x)) if x < 0.5 else -math.log(math.erfc(x))
        return decay / (x * (x + _SLOPE))

    n = degree + 1
    values = [ratio(math.sin(math.pi * (n - 1 - 2 * k) / (2 * n))) for k in range(n)]
    weights = []
    for j in range(n):  # the cosine transform, with its angles reduced exactly
        cosines = [math.cos(math.pi * (j * (2 * k + 1) % (4 * n)) / (2 * n)) for k in range(n)]
        weights.append(math.fsum(v * c for v, c in zip(values, cosines)) * (1 if j == 0 else 2) / n)
    return cheb2poly(weights).tolist()


@on_devices("erf_rule", takes=2, sample=(8,))
def _erf_slope(xp, x, g, itemsize):
    return (g * (_SLOPE * bell(xp, xp.abs(x), 1.0, itemsize)),)


def _erf_rule(g, x):
    if type(x) is not numpy.ndarray and (run := find("erf_rule", x, g)):
        return run(x, g, x.dtype.itemsize)[0]
    return g * (_SLOPE * gaussian(x, c=1.0))


@elementwise(
    rule=_erf_rule,
    formula=r"\frac{dy}{dx} = \frac{2}{\sqrt{\pi}} e^{-x^2}",
    source="definition: y = 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x",
    floats=True,
)
def erf(xp, x):
    """The error function, with an error below 1e-15 (float64) or 1e-7 (float32)."""
    degree = 23 if x.dtype.itemsize == 8 else 10
    if (x.size >= LEAST or type(x) is not numpy.ndarray) and (run := find("erf", x)):
        return run(x, degree)[0]
    wide = x.astype("float32") if x.dtype.itemsize < 4 else x
    return _erf_kernel(xp, wide, degree)[0].astype(x.dtype, copy=False)


@on_devices("erf", sample=(10,))
def _erf_kernel(xp, x, degree):
    size = xp.minimum(xp.abs(x), _END)
    u = (_SCALE * size - _CENTER) / (size + _CENTER)
    lowest, *others = _erf_polynomial(degree)
    p = others.pop() * u
    for c in reversed(others):  # Horner's scheme
        p += c
        p *= u
    return (xp.copysign(-xp.expm1(-size * (size + _SLOPE) * (p + lowest)), x),)


@on_devices("erfc", sample=(8,), wide=True)
def _erfc_kernel(xp, x, itemsize):
    size = xp.minimum(xp.abs(x), 28.0)  # where it is 0
    tail = 2 * bell(xp, size, 1.0, itemsize) * mills_ratio(xp, math.sqrt(2) * size, 8)
    below = (x < 0).astype(x.dtype)
    return (2 * below + (1 - 2 * below) * tail,)


@elementwise(
    derivative=lambda x: -_SLOPE * gaussian(x, c=1.0),
    formula=r"y = 1 - \mathrm{erf}\,x,\quad \frac{dy}{dx} = -\frac{2}{\sqrt{\pi}} e^{-x^2}",
    source="definition: y = 2 / sqrt(pi) times the integral of e^(-t^2) from x to infinity",
    floats=True,
)
def erfc(xp, x):
    """1 - erf(x). It keeps its digits in the right tail, down to the smallest number, where erf(x) is rounded to 1.

    The error is below 4 ulp in float64; float32 and float16 are rounded once. Its derivative is as accurate.
    """
    return in_blocks(xp, _erfc_kernel, x, x.dtype.itemsize)[0]


# --- the logarithm of the odds ----------------------------------------------------------------------------


@on_devices("logit", sample=(None,), wide=True)
def _logit_kernel(xp, x, eps):
    z = x if eps is None else xp.clip(x, 0, 1)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        middle = xp.abs(z - 0.5) < 0.15  # where z / (1 - z) is close to 1, and 2 z - 1 is exact
        y = xp.where(middle, xp.log1p(xp.where(middle, 2 * z - 1, 0) / (1 - z)), xp.log(z / (1 - z)))
    if eps:
        most = math.log1p(-eps) - math.log(eps)  # 1 - eps may round to 1
        y = xp.clip(y, -most, most)
    return (y,)


def _logit_slope(x, eps):
    low, value = (0, math.nan) if eps is None else (eps, 0)
    outside = (x < low) | (1 - x < low)
    z = where(outside, 0.5, x) + 0  # the gradient at -0.0 is inf, too
    return where(outside, value, 1 / (z * (1 - z)))


@elementwise(
    derivative=_logit_slope,
    formula=r"y = \ln \frac{x}{1 - x}, \quad \frac{dy}{dx} = \frac{1}{x (1 - x)}",
    source="ai-edu, equation 3",
    floats=True,
    notes="At 0 and 1 the value is -inf and inf, the gradient inf; outside, without eps, both are NaN. With eps the"
    " gradient outside eps ... 1 - eps is 0.",
)
def logit(xp, x, eps=None):
    """ln(x / (1 - x)), the inverse of sigmoid, for x in [0, 1]. ``eps``: x is clipped to [eps, 1 - eps] first.

    It is accurate near 0, 1 / 2 and 1. The error is below 3 ulp in float64; float32 and float16 are rounded once.
    Raises ValueError unless eps lies in [0, 1 / 2].
    """
    if eps is not None and not 0 <= eps <= 0.5:
        raise ValueError(f"logit: eps is {eps}; it must be from 0 to 0.5")
    return in_blocks(xp, _logit_kernel, x, eps)[0]


# --- sinc -------------------------------------------------------------------------------------------------

# fmt: off
sinc = unary("sinc", "sin(pi x) / (pi x), as in NumPy.", derivative=lambda x: sinc_derivative(x, order=1),
             formula=r"y = \frac{\sin \pi x}{\pi x}, \quad \frac{dy}{dx} = \frac{\cos \pi x - y}{x}",
             source="ai-edu, equations 8 and 33", floats=True,
             notes="Smooth at 0, with value 1 and derivative 0; derivatives of every order are exact there.")
# fmt: on


@elementwise(
    derivative=lambda x, order: sinc_derivative(x, order=order + 1),
    formula=r"y = \pi^n I_n, \quad I_n = \int_0^1 t^n \cos(\pi x t + \tfrac{n \pi}{2})\,dt, \quad"
    r" \frac{dy}{dx} = \pi^{n + 1} I_{n + 1}",
    source="differentiation of sinc x = integral of cos(pi x t) over t from 0 to 1",
    floats=True,
)
def sinc_derivative(xp, x, *, order):
    """The derivative of sinc of any order. It is right near 0, too, where the quotient rule would divide noise by 0.

    Let z = pi x. Near 0 the integral I_n comes from the power series of the cosine. Elsewhere it comes from integration
    by parts, I_n = (sin(z + n pi / 2) - n I_(n-1)) / z.
    """
    z = math.pi * x
    near = xp.abs(z) <= order + 1

    small = xp.where(near, z, 0)
    first, terms = order % 2, 10 + 2 * order
    series = 0 * small
    for m in reversed(range(terms)):
        k = first + 2 * m
        series = 1 / (math.factorial(k) * (order + k + 1)) - small * small * series
    series = (-1) ** ((order + first) // 2) * small**first * series

    large = xp.where(near, order + 1, z)
    sine, cosine = xp.sin(large), xp.cos(large)
    integral = sine / large
    for n in range(1, order + 1):
        integral = ((sine, cosine, -sine, -cosine)[n % 4] - n * integral) / large
    return math.pi**order * xp.where(near, series, integral)
