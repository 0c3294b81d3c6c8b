"""gelu, the exact one and the tanh approximation. Both are accurate in the tails."""

import math
from functools import cache

import numpy

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import decay, fused, in_blocks, pulled, step
from tinygrad_ms.ops.comparisons import clip
from tinygrad_ms.ops.normal import DENSITY, FAR, bell, gaussian, horner, mills_ratio, normal_cdf, product, turned
from tinygrad_ms.ops.quick_gelu import TANH_C, TANH_E_C, TANH_N_C, quick_gelu_tanh
from tinygrad_ms.ops.rows import widest
from tinygrad_ms.ops.smooth_activations import kept, sigmoid, sigmoid_slope
from tinygrad_ms.ops.tables import finder

__all__ = ["gelu"]

# The slope at -a is e^(-a^2 / 2) n(a), n(a) = R(a) - a / sqrt(2 pi), where R is Mills' ratio (ops/normal.py). In
# float64 n(a) = n(c) + (a - c) p(a) with p < 0. The c here is within 2e-6 of the zero of n, so that n(c) is tiny. Its
# few bits make a - c exact.
_C, _N_C = 0.7517929077148438, -7.916497586207787e-07
# fmt: off
_P = [  # p by powers of (a - 5) / (a + 5), lowest first: in Chebyshev points up to 40
    -0.4514354558809415, 0.08979651679972052, -0.06048777654525628, 0.03553510262258716, -0.0178078234058824,
    0.007334308078207625, -0.002302183001093818, 0.0004405305397952403, 1.51957527533166e-05, -4.064698197428496e-05,
    9.201154253562887e-06, 1.9928235465662147e-06, -1.3601157458027394e-06, -2.1620701547606102e-08,
    1.686622311733662e-07, -1.2147214078661387e-08, -2.1645260028169152e-08, 2.1805604795824965e-09,
    2.7232385692948147e-09, -1.695416812188732e-10, -2.2260865433274264e-10]
# fmt: on


def _less_line(xp, a, tail, itemsize):
    """n(a) for 0 <= a <= 40 and tail = R(a)."""
    if itemsize < 8:  # float64 has digits to spare
        slope = DENSITY * a
        return xp.subtract(tail, slope, out=slope)
    slope = horner(turned(a), _P)
    slope *= a - _C
    slope += _N_C
    return slope


_CUBIC = 0.044715
_ROOT = math.sqrt(2 / math.pi)
_END = 100.0  # beyond this the tanh of the approximation is -1 or 1
_LINE = 1.5957691216057308, -9.96930880911092e-17  # 2 sqrt(2 / pi), and the rounding error of this float
_CUBE = 0.07135481627260025, -6.175149918155315e-19  # 0.044715 times that
_IN_FLOAT32 = tuple((high := float(numpy.float32(c)), c - high) for c, _ in (_LINE, _CUBE))  # the same


@fused("gelu", sample=(8,))
def _gelu_kernel(xp, x, itemsize):
    size = xp.minimum(xp.abs(x), FAR)
    tail = mills_ratio(xp, size, itemsize)
    above = step(x)
    q = bell(xp, size, 0.5, itemsize)
    slope = _less_line(xp, size, tail, itemsize)
    slope *= q
    part = slope * above  # the value at a is 1 minus the value at -a
    slope -= part
    slope -= part
    slope += above
    tail *= size
    tail *= q
    y = xp.maximum(x, 0)
    y -= tail
    return y, slope


# The slope is s (1 + E + x k) / (1 + E) with E = e^v and k = dv/dx. With d = x - c, E_c and v_c at c, its numerator is
# n(c) + d m + (E + E_c) tanh((v - v_c) / 2), where m and (v - v_c) / d are the positive polynomials below; as above.


@fused("gelu_tanh")
def _gelu_tanh_kernel(xp, x):
    z = xp.clip(x, -_END, _END)
    a = xp.abs(z)
    w, times_w = _decay_of_cubic(xp, a)
    y = (xp.maximum(x, 0) + times_w(xp.minimum(z, 0))) / (1 + w)
    d = -TANH_C - a  # that of -a
    m = a - TANH_C
    m *= a
    m += TANH_C**2
    m *= _CUBE[0]
    t = m + _LINE[0]
    t *= d
    t *= 0.5
    t = xp.tanh(t, out=t)
    t *= w + TANH_E_C
    t += TANH_N_C
    m *= 3
    m += _LINE[0]
    m *= d
    m += t
    m /= 1 + w * (w + 2)
    slope = times_w(m)
    return y, xp.where(x > 0, 1 - slope, slope)


def _quick_tanh(xp, x, out):
    """In float64 for float32, with one exponential and one division; ``quick_gelu_tanh`` for float64."""
    if x.dtype.char == "d":
        return quick_gelu_tanh(xp, x, out)
    v = x.astype("float64")
    k = v * v
    k *= -_CUBE[0]
    slope = -3 * k
    slope += _LINE[0]
    slope *= v
    k -= _LINE[0]
    k *= v
    s = xp.exp(k, out=k)
    s += 1
    xp.divide(1, s, out=s)
    rest = 1 - s  # near 0 it has few digits, and the slope is near 1 there
    slope *= rest
    slope += 1
    slope *= s
    s *= v
    return s, slope


def _decay_of_cubic(xp, a):
    """e^-v and a function p -> p e^-v, for v = 2 sqrt(2 / pi) (a + 0.044715 a^3), a >= 0.

    v has twice the digits of a, because e^-v magnifies the rounding error of v by v.
    """
    line, factor = (_LINE, _CUBE) if a.dtype.itemsize == 8 else _IN_FLOAT32
    square, d = product(a, a)
    cube, more = product(square, factor[0])
    k = cube + line[0]
    part = k - cube
    error = (cube - (k - part)) + (line[0] - part) + (more + square * factor[1] + d * factor[0] + line[1])
    v, more = product(a, k)
    w, times_w = decay(xp, -v)
    exact = 1 - (more + a * error)
    return w * exact, lambda p: times_w(p * exact)


def _gelu_slope(x, approximate):
    if approximate == "none":
        return normal_cdf(x) + x * gaussian(x, c=0.5) * DENSITY
    z = clip(x, -_END, _END)
    v = 2 * _ROOT * (z + _CUBIC * z * z * z)
    return sigmoid(v) + x * sigmoid_slope(v) * (2 * _ROOT * (1 + 3 * _CUBIC * z * z))


_LOW, _HIGH, _CELLS = -12.5, 13, 1024  # the tables: from where, to where, how many cells in the length 1
_find = finder(_LOW, _CELLS)
_DENSITY, _TWO = numpy.array(DENSITY, "float32"), numpy.array(2, "float32")  # NumPy takes them sooner than numbers


@cache
def _tables():
    """Phi and the slope at the middle c of each cell. And the function for e^(-m^2 / 2) with its factor of m^2."""
    c = numpy.arange(_LOW * _CELLS, _HIGH * _CELLS + 1) / _CELLS
    phi, slopes = normal_cdf.primitive.forward(numpy, c), _gelu_kernel(numpy, c, 8)[1]
    exp = ("exp2", -0.5 / math.log(2)) if widest("exp2") else ("exp", -0.5)  # with AVX-512 exp2 takes half the time
    return phi.astype("float32"), slopes.astype("float32"), exp[0], numpy.array(exp[1], "float32")


def _quick_gelu(xp, x, out, *_):
    """In float32 from the tables. Between c and x = c + t both values change by about t times their slope halfway.

    With f = t phi(m), m^2 = c x, that of Phi is f, and that of the slope is (2 - m^2) f. The errors are of order t^3.
    """
    y, slope, t, p, e = out
    phi, slopes, exp, factor = _tables()
    look_up = _find(xp, x, len(phi), t, p)
    xp.multiply(x, t, out=p)
    xp.subtract(x, t, out=t)
    xp.multiply(p, factor, out=e)
    t *= getattr(xp, exp)(e, out=e)
    t *= _DENSITY
    xp.subtract(_TWO, p, out=p)
    p *= t
    slope = look_up(slopes, slope)
    slope += p
    y = look_up(phi, y)
    y += t
    y *= x
    return y, slope


@elementwise(
    rule=lambda g, x, slope, approximate: pulled(
        "gelu_rule" if approximate == "none" else "", g, x, slope, lambda x: _gelu_slope(x, approximate)
    ),
    cache=("slope",),
    floats=True,
    formula=r"y = x\,\Phi(x), \quad \frac{dy}{dx} = \Phi(x) + \frac{x}{\sqrt{2 \pi}} e^{-x^2 / 2}",
    source="Hendrycks and Gimpel, 2016, section 2",
    notes="With approximate='tanh' the derivative is that of the approximation. At -inf both are 0, NaN in PyTorch.",
)
def gelu(xp, x, approximate="none"):
    """x Phi(x), Phi the normal distribution function. ``approximate``: "none" or "tanh".

    The approximation is Phi(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    if approximate == "tanh":
        return kept(*in_blocks(xp, _gelu_tanh_kernel, x, double=False, quick=_quick_tanh, beyond=0, results=2, spare=4))
    if approximate != "none":
        raise ValueError(f"gelu: approximate is {approximate!r}; it must be 'none' or 'tanh'")
    how = dict(quick=_quick_gelu, quick_in="f", results=2, spare=3, under="ignore")
    return kept(*in_blocks(xp, _gelu_kernel, x, x.dtype.itemsize, **how))
