"""The normal distribution function and gelu, which is made of it; both accurate in the tails.

Phi(-a) = e^(-a^2 / 2) R(a) for a >= 0, with R(a) = e^(z^2) erfc(z) / 2 at z = a / sqrt 2: Mills' ratio, scaled.
"""

import math

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import decay, in_blocks, step
from tinygrad_ms.ops.comparisons import clip
from tinygrad_ms.ops.smooth_activations import kept, sigmoid, sigmoid_slope

__all__ = ["gelu"]

_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_MIDDLE = 6.0
_FAR = 40.0  # where e^(-a^2 / 2) is 0
# fmt: off
_MILLS = {  # by the bytes of the dtype: numerator and denominator, lowest first: minimax up to 14 and 40, with 200 bits
    4: ([0.5000000025458818, 0.43716394836167727, 0.18239227018028853, 0.04034764584048629, 0.004073499451987923],
        [1.0, 1.6722128344812324, 1.1990129489312082, 0.46724424242528234, 0.10114336651685958, 0.010210620079108546]),
    8: ([0.5, 0.8287489172683894, 0.6808952195696275, 0.3583373661167092, 0.1325327867209051, 0.035833266238796325,
         0.0071631830559955, 0.001046750565342388, 0.00010742432092464395, 7.041391150742692e-06,
         2.266525654507389e-07],
        [1.0, 2.4553823953396443, 2.8209021432479067, 2.005699322464554, 0.9829682595270657, 0.34963299646600493,
         0.09240919286588378, 0.01822357374882435, 0.0026414647139133374, 0.00026984097393893143,
         1.7650150151215055e-05, 5.681337290763615e-07]),
}
# fmt: on


def product(a, b):
    """a b of float64, and what it has rounded away (Dekker 1971)."""
    p = a * b
    (a, low), (b, tail) = _halves(a), _halves(b)
    return p, ((a * b - p) + a * tail + low * b) + low * tail


def _halves(a):
    split = a * (2.0**27 + 1)
    high = split - (split - a)
    return high, a - high


def bell(xp, a, c, itemsize):
    """e^(-c a^2) for a >= 0, to the digits of a dtype with so many bytes, though c a^2 is large."""
    a = xp.minimum(a, _FAR)
    if itemsize < 8:
        square = a.astype("float64")
        square *= square
        square *= -c
        return xp.exp(square, out=square).astype(a.dtype, copy=False)
    square, error = product(a, a)
    return xp.exp(-c * square) * (1 - c * error)


def mills_ratio(xp, a, itemsize):
    """R(a) for 0 <= a <= 40, to the digits of a dtype with so many bytes."""
    above, below = _MILLS[max(itemsize, 4)]
    if itemsize < 8:
        y = horner(a, above)
        y /= horner(a, below)
        return y
    near, z = xp.minimum(a, _MIDDLE), 1 / xp.maximum(a, _MIDDLE)  # far out by powers of 1 / a, of which the first count
    far = z * horner(z, above[::-1]) / horner(z, below[::-1])
    return xp.where(a < _MIDDLE, horner(near, above) / horner(near, below), far)


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
    source="002 (6) and the chain rule",
    floats=True,
)
def gaussian(xp, x, *, c):
    """e^(-c x^2), also far out, where c x^2 as a float would have too few digits."""
    return in_blocks(xp, lambda xp, x, *given: (bell(xp, xp.abs(x), *given),), x, c, x.dtype.itemsize)[0]


def _normal_kernel(xp, x, itemsize):
    size = xp.abs(x)
    q, tail = bell(xp, size, 0.5, itemsize), mills_ratio(xp, xp.minimum(size, _FAR), itemsize)
    above = (x > 0).astype(x.dtype)
    return (above + (1 - 2 * above) * (q * tail),)


@elementwise(
    derivative=lambda x: _DENSITY * gaussian(x, c=0.5),
    formula=r"y = \Phi(x), \quad \frac{dy}{dx} = \frac{1}{\sqrt{2 \pi}} e^{-x^2 / 2}",
    source="definition: the integral of the normal density from -inf to x",
    floats=True,
)
def normal_cdf(xp, x):
    """The normal distribution function, also far out at the left, where it is small."""
    return in_blocks(xp, _normal_kernel, x, x.dtype.itemsize)[0]


# --- gelu ---------------------------------------------------------------------------------------------------

_CUBIC = 0.044715
_ROOT = math.sqrt(2 / math.pi)
_END = 100.0  # beyond, the tanh of the approximation is -1 or 1
_LINE = 1.5957691216057308, -9.96930880911092e-17  # 2 sqrt(2 / pi) and, of that, what the float has rounded away
_CUBE = 0.07135481627260025, -6.175149918155315e-19  # 0.044715 times that


def _gelu_kernel(xp, x, itemsize):
    size = xp.minimum(xp.abs(x), _FAR)
    tail = mills_ratio(xp, size, itemsize)
    above = step(x)
    q = bell(xp, size, 0.5, itemsize)
    slope = _DENSITY * size
    xp.subtract(tail, slope, out=slope)
    slope *= q
    part = slope * above  # the slope at -a is q (R(a) - a / sqrt(2 pi)), at a it is 1 minus that
    slope -= part
    slope -= part
    slope += above
    tail *= q
    tail *= size
    y = xp.maximum(x, 0)
    y -= tail
    return y, slope


def _gelu_tanh_kernel(xp, x):
    z = xp.clip(x, -_END, _END)
    w, times_w, k = _decay_of_cubic(xp, z)
    q = 1 + w
    y = (xp.maximum(x, 0) + times_w(xp.minimum(z, 0))) / q
    return y, xp.maximum(w, step(x)) / q + times_w(k * z) / (1 + w * (w + 2))


def _quick_gelu_tanh(xp, x, out):
    v = x.astype("float64")
    k = v * v
    k *= _CUBE[0]
    slope = 3 * k
    k += _LINE[0]
    slope += _LINE[0]
    slope *= v
    k *= v
    e = xp.exp(k, out=k)
    s = e + 1
    xp.divide(e, s, out=s)
    q = 1 / e
    q += e
    q += 2
    slope /= q
    slope += s
    s *= v
    return s, slope


def _decay_of_cubic(xp, z):
    """e^-|v|, a function p -> p e^-|v|, and dv/dz, for v = 2 sqrt(2 / pi) (z + 0.044715 z^3).

    v has twice the digits of z, for its rounding would be magnified by v.
    """
    if z.dtype.itemsize < 8:
        z = z.astype("float64")
    a = xp.abs(z)
    square, d = product(a, a)
    cube, more = product(square, _CUBE[0])
    k = cube + _LINE[0]
    part = k - cube
    error = (cube - (k - part)) + (_LINE[0] - part) + (more + square * _CUBE[1] + d * _CUBE[0] + _LINE[1])
    v, more = product(a, k)
    w, times_w = decay(xp, -v)
    exact = 1 - (more + a * error)
    return w * exact, lambda p: times_w(p * exact), 3 * cube + _LINE[0]


def _gelu_slope(x, approximate):
    if approximate == "none":
        return normal_cdf(x) + x * gaussian(x, c=0.5) * _DENSITY
    z = clip(x, -_END, _END)
    v = 2 * _ROOT * (z + _CUBIC * z * z * z)
    return sigmoid(v) + x * sigmoid_slope(v) * (2 * _ROOT * (1 + 3 * _CUBIC * z * z))


@elementwise(
    rule=lambda g, x, slope, approximate: g * (_gelu_slope(x, approximate) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"y = x\,\Phi(x), \quad \frac{dy}{dx} = \Phi(x) + \frac{x}{\sqrt{2 \pi}} e^{-x^2 / 2}",
    source="Hendrycks and Gimpel, 2016, section 2",
    notes="With approximate='tanh' the derivative is that of the approximation. NaN at -inf, as in PyTorch.",
)
def gelu(xp, x, approximate="none"):
    """x Phi(x), Phi the normal distribution function. ``approximate``: "none" or "tanh".

    The approximation is Phi(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """
    if approximate == "tanh":
        return kept(*in_blocks(xp, _gelu_tanh_kernel, x, double=False, quick=_quick_gelu_tanh, results=2))
    if approximate != "none":
        raise ValueError(f"gelu: approximate is {approximate!r}; it must be 'none' or 'tanh'")
    return kept(*in_blocks(xp, _gelu_kernel, x, x.dtype.itemsize, results=2))
