"""The normal distribution function and gelu, which is made of it; both accurate in the tails.

Phi(-a) = e^(-a^2 / 2) R(a) for a >= 0, with R(a) = e^(z^2) erfc(z) / 2 at z = a / sqrt 2. (a + c) R(a) is a smooth
function of u = (a - c) / (a + c), which maps all a >= 0 to [-1, 1): a polynomial fits it to the last digit.
"""

import math

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import in_blocks, logistic
from tinygrad_ms.ops.comparisons import clip
from tinygrad_ms.ops.smooth_activations import kept, sigmoid, sigmoid_slope

__all__ = ["gelu"]

_DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
_MIDDLE = 3.5  # c
# fmt: off
_MILLS = {  # by the bytes of the dtype, lowest first: interpolation in the Chebyshev points, with 80 bits
    4: [0.7444160754359381, -0.5655618166517034, 0.31542496996814995, -0.11605090623513166, 0.017407829634494224,
        0.0064759719669856206, -0.003189069718099354, -0.0004438007590011737, 0.0004765144244470295,
        6.391468944495493e-05, -7.526595388488433e-05, -1.4323968099239081e-05, 1.1171730383334004e-05,
        2.1011894542214787e-06, -1.0853269919527028e-06],
    8: [0.7444160754359381, -0.5655618160537758, 0.31542496988794944, -0.11605092871436996, 0.017407832602367078,
        0.006476218927634856, -0.0031891010568178076, -0.00044501304646098525, 0.00047665720268963733,
        6.703390545615556e-05, -7.5585310201507e-05, -1.8791814503623852e-05, 1.150914997819062e-05,
        5.660154821237075e-06, -1.1711518854224077e-06, -1.494694076258255e-06, -1.337649930531904e-07,
        3.1383181834907803e-07, 1.1494788765276098e-07, -4.566726900016558e-08, -3.154901931971519e-08,
        3.371441251779881e-09, 3.8068235327322645e-09],
}
# fmt: on


def bell(xp, a, c, itemsize):
    """e^(-c a^2) for a >= 0, to the digits of a dtype with so many bytes, though c a^2 is large."""
    a = xp.minimum(a, 40.0)  # where it is 0, for c >= 1 / 2
    square = a * a
    q = xp.exp(-c * square)
    if itemsize == 8:  # else the square has digits to spare
        split = a * (2.0**27 + 1)
        high = split - (split - a)
        low = a - high
        q *= 1 - c * (((high * high - square) + 2 * high * low) + low * low)  # what the square has rounded away
    return q


def mills_ratio(a, itemsize):
    """R(a) for a >= 0, to the digits of a dtype with so many bytes."""
    w = 1 / (a + _MIDDLE)
    u = 1 - (2 * _MIDDLE) * w
    lowest, *others = _MILLS[max(itemsize, 4)]
    p = others.pop() * u
    for c in reversed(others):
        p += c
        p *= u
    return (p + lowest) * w


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
    q, tail = bell(xp, size, 0.5, itemsize), mills_ratio(size, itemsize)
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


def _gelu_kernel(xp, x, itemsize):
    size = xp.abs(x)
    q, tail = bell(xp, size, 0.5, itemsize), mills_ratio(size, itemsize)
    above = (x > 0).astype(x.dtype)
    y = xp.minimum(x, 0) * (q * tail) + xp.maximum(x, 0) * (1 - q * tail)
    return y, above + (1 - 2 * above) * (q * (tail - _DENSITY * size))


def _gelu_tanh_kernel(xp, x):
    z = xp.clip(x, -_END, _END)
    w, r, s = logistic(xp, 2 * _ROOT * (z + _CUBIC * z * z * z))
    return x * s, s + x * (w * r * r) * (2 * _ROOT * (1 + 3 * _CUBIC * z * z))


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
        return kept(*in_blocks(xp, _gelu_tanh_kernel, x))
    if approximate != "none":
        raise ValueError(f"gelu: approximate is {approximate!r}; it must be 'none' or 'tanh'")
    return kept(*in_blocks(xp, _gelu_kernel, x, x.dtype.itemsize))
