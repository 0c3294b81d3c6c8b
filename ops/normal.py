"""The normal distribution function, accurate in the tails.

Phi(-a) = e^(-a^2 / 2) R(a) for a >= 0, where R(a) = e^(z^2) erfc(z) / 2 with z = a / sqrt 2 is Mills' ratio, scaled.
"""

import math

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import in_blocks, on_devices

__all__: list[str] = []

DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
FAR = 40.0  # beyond this e^(-a^2 / 2) is 0
# fmt: off
_NUMERATOR = [  # of R in float32, lowest first: minimax up to 14
    0.5000000025458818, 0.43716394836167727, 0.18239227018028853, 0.04034764584048629, 0.004073499451987923]
_DENOMINATOR = [
    1.0, 1.6722128344812324, 1.1990129489312082, 0.46724424242528234, 0.10114336651685958, 0.010210620079108546]
_SCALED = [  # (a + 1) R(a) by powers of (a - 5) / (a + 5), lowest first: in Chebyshev points up to 40
    0.46151582985003775, -0.09155228183400917, 0.0310303684259707, 0.010002352385241659, -0.026401042966674067,
    0.024536963243297946, -0.015170415395094575, 0.0065220006738440734, -0.0016760724212402098, 7.791539896184297e-06,
    0.00018233460332349368, -5.360723737658505e-05, -9.897782095693084e-06, 9.058505485209712e-06,
    -6.645126985386993e-08, -1.3041981291689899e-06, 1.222807738066692e-07, 1.9124697360088803e-07,
    -2.1567877175579913e-08, -2.6332491672878587e-08, 1.6129107766244392e-09, 2.196032905924892e-09]
# fmt: on


def product(a, b):
    """The product a b of float64 or float32, and its rounding error (Dekker 1971)."""
    p, wide = a * b, a.dtype.itemsize == 8
    (a, low), (b, tail) = _halves(a, wide), _halves(b, wide)
    return p, ((a * b - p) + a * tail + low * b) + low * tail


def _halves(a, wide):
    split = a * (2.0 ** (27 if wide else 41 if type(a) is float else 12) + 1)  # a number of Python has 53 bits
    high = split - (split - a)
    return high, a - high


def bell(xp, a, c, itemsize):
    """e^(-c a^2) for a >= 0, to the digits of a dtype with so many bytes, though c a^2 is large."""
    a = xp.minimum(a, FAR)
    if itemsize < 8:
        square = a.astype("float64")
        square *= square
        square *= -c
        return xp.exp(square, out=square).astype(a.dtype, copy=False)
    square, error = product(a, a)
    q = xp.exp(-c * square)
    q -= q * (c * error)
    return q


def mills_ratio(xp, a, itemsize):
    """R(a) for 0 <= a <= 40, to the digits of a dtype with so many bytes."""
    y = horner(a, _NUMERATOR) if itemsize < 8 else horner(turned(a), _SCALED)
    y /= horner(a, _DENOMINATOR) if itemsize < 8 else a + 1
    return y


def turned(a):
    """(a - 5) / (a + 5), between -1 and 1."""
    return (a - 5) / (a + 5)


def horner(x, coefficients):
    """The polynomial with these coefficients, lowest first."""
    *others, p = coefficients
    p = p * x
    for c in reversed(others[1:]):
        p += c
        p *= x
    p += others[0]
    return p


@elementwise(
    derivative=lambda x, y, c: -2 * c * x * y,
    formula=r"\frac{dy}{dx} = -2 c x y",
    source="ai-edu, equation 6 and the chain rule",
    floats=True,
)
def gaussian(xp, x, *, c):
    """e^(-c x^2). It is accurate also for large x, where c x^2 as a float has too few digits."""
    return in_blocks(xp, _bell_kernel, x, c, x.dtype.itemsize, quick=_quick_bell, quick_in="f")[0]


@on_devices("gaussian", sample=(0.5, 8), wide=True)
def _bell_kernel(xp, x, c, itemsize):
    return (bell(xp, xp.abs(x), c, itemsize),)


def _quick_bell(xp, x, out, c, itemsize):
    square = x.astype("float64")
    square *= square
    square *= -c
    return (xp.exp(square, out=square),)


@on_devices("normal_cdf", sample=(8,), wide=True)
def _normal_kernel(xp, x, itemsize):
    size = xp.abs(x)
    q, tail = bell(xp, size, 0.5, itemsize), mills_ratio(xp, xp.minimum(size, FAR), itemsize)
    above = (x > 0).astype(x.dtype)
    return (above + (1 - 2 * above) * (q * tail),)


@elementwise(
    derivative=lambda x: DENSITY * gaussian(x, c=0.5),
    formula=r"y = \Phi(x), \quad \frac{dy}{dx} = \frac{1}{\sqrt{2 \pi}} e^{-x^2 / 2}",
    source="definition: the integral of the normal density from -inf to x",
    floats=True,
)
def normal_cdf(xp, x):
    """The normal distribution function. It is accurate also in the left tail, where it is small."""
    return in_blocks(xp, _normal_kernel, x, x.dtype.itemsize)[0]
