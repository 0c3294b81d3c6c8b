"""Special functions that NumPy lacks or whose derivatives need care: erf, sinc."""

import functools
import math

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.rows import unary

__all__ = [
    "erf", "sinc",
]  # fmt: skip

# --- the error function -----------------------------------------------------------------------------------
#
# -ln(1 - erf x) grows from 0 like s x, s = 2 / sqrt(pi), and at last like x^2, so that its ratio to x (x + s)
# is a smooth function between 0.85 and 1. A polynomial p in a variable u that maps [0, 6] to [-1, 1] fits it
# to the last digit; erf x = 1 - exp(-x (x + s) p(u)) then is accurate near 0, too, and 1 beyond 6.

_SLOPE = 2 / math.sqrt(math.pi)
_END, _CENTER = 6.0, 3.0  # u(0) = -1, u(6) = 1; the center is chosen for fast convergence
_SCALE = (_END + 2 * _CENTER) / _END  # u(x) = (_SCALE x - _CENTER) / (x + _CENTER)


@functools.cache
def _erf_polynomial(degree: int) -> list[float]:
    """The coefficients of p, lowest first: interpolation of math.erf in the Chebyshev points."""
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


@elementwise(
    derivative=lambda x: _SLOPE * exp(-x * x),
    formula=r"\frac{dy}{dx} = \frac{2}{\sqrt{\pi}} e^{-x^2}",
    source="definition: y = 2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x",
    floats=True,
)
def erf(xp, x):
    """The error function, with an error below 1e-15 (float64) or 1e-7 (float32)."""
    wide = x.astype("float32") if x.dtype.itemsize < 4 else x
    size = xp.minimum(xp.abs(wide), _END)
    u = (_SCALE * size - _CENTER) / (size + _CENTER)
    lowest, *others = _erf_polynomial(23 if x.dtype.itemsize == 8 else 10)
    p = others.pop() * u
    for c in reversed(others):  # Horner's scheme
        p += c
        p *= u
    return xp.copysign(-xp.expm1(-size * (size + _SLOPE) * (p + lowest)), wide).astype(x.dtype, copy=False)


# --- sinc -------------------------------------------------------------------------------------------------

# fmt: off
sinc = unary("sinc", "sin(pi x) / (pi x), as in NumPy.", derivative=lambda x: sinc_derivative(x, order=1),
             formula=r"y = \frac{\sin \pi x}{\pi x}, \quad \frac{dy}{dx} = \frac{\cos \pi x - y}{x}",
             source="002 (8), (33)", floats=True,
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
    """The derivative of sinc of any order, also near 0, where the quotient rule would divide noise by 0.

    The integral I_n, with z = pi x: near 0 by the power series of the cosine; farther out by parts,
    I_n = (sin(z + n pi / 2) - n I_(n-1)) / z.
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
