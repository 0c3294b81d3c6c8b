"""The normal distribution function, accurate in the tails.

Phi(-a) = e^(-a^2 / 2) R(a) for a >= 0, with R(a) = e^(z^2) erfc(z) / 2 at z = a / sqrt 2: Mills' ratio, scaled.
"""

import math

from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import in_blocks, none

__all__: list[str] = []

DENSITY = 1 / math.sqrt(2 * math.pi)  # of the normal distribution at 0
MIDDLE = 6.0
FAR = 40.0  # where e^(-a^2 / 2) is 0
# fmt: off
MILLS = {  # by the bytes of the dtype: numerator and denominator, lowest first: minimax up to 14 and 40, with 200 bits
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
    above, below = MILLS[max(itemsize, 4)]
    near = a if itemsize < 8 else xp.minimum(a, MIDDLE)
    y = horner(near, above)
    y /= horner(near, below)
    if itemsize < 8 or none(a > MIDDLE):
        return y
    z = 1 / xp.maximum(a, MIDDLE)  # far out by powers of 1 / a, of which the first count
    return xp.where(a < MIDDLE, y, z * horner(z, above[::-1]) / horner(z, below[::-1]))


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
    """The normal distribution function, also far out at the left, where it is small."""
    return in_blocks(xp, _normal_kernel, x, x.dtype.itemsize)[0]
