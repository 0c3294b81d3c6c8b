"""The exponential function and relatives in float32 arithmetic, twice as fast as in float64, with errors of 1 or 2 ulp.

The rules of ``mathematics`` hold here, too. Each result is within 4 ulp, also a subnormal one.
"""

from tinygrad_ms.ops.fused.machine import left_of, two_at

__all__: list[str] = []

ROUND = 12583039.0  # 1.5 2^23 + 127; a number plus it has the nearest integer plus 127 in its lowest bits
LIFT = ROUND + 64.0  # gives 2^64 e^x, a normal number also where e^x is not
DROP, MOST = ROUND - 64.0, ROUND + 126.0
DOWN = 5.421010862427522e-20  # 2^-64
TO_TWO = 1.4426950408889634  # 1 / ln 2
LN2, LN2_REST = 0.693145751953125, 1.428606765330187e-06  # ln 2 in two parts, of which the first has few bits


def split(x, shift):
    """n + shift and d = e^r - 1 for x = n ln 2 + r; shift: ROUND or LIFT."""
    t, r, low = parts(x, shift)
    r += low
    return t, r + curve(r)


def parts(x, shift):
    """n + shift and r in two parts, of which the first has no error."""
    t = x * TO_TWO + shift
    n = t - shift
    return t, x - n * LN2, -(n * LN2_REST)


def curve(r):
    """e^r - 1 - r for |r| <= ln 2 / 2. Pairs are added first, so few additions have to wait."""
    z = r * r
    p = (0.04166743531823158 + r * 0.00836626160889864) + z * 0.0013870656257495284
    return z * ((0.4999999701976776 + r * 0.1666654646396637) + z * p)


def bell(a):
    """(1 - 2^-21) e^(-a^2 / 2) for 0 <= a <= 15, a product of two normal numbers. With this factor gelu rounds least.

    a^2 as a float would have too few digits. q = a^2 + 2 n ln 2 is rounded after the product.
    """
    t = LIFT - a * a * (0.5 * TO_TWO)
    n = t - LIFT
    q = left_of(n * (-2.0 * LN2), a, a) + n * (2.0 * LN2_REST)
    p = 1.4116688618124077e-22 + q * (-1.4200001164957554e-23 + q * 1.1889094279832754e-24)
    p = -2.7105043003027674e-20 + q * (6.7762607507569184e-21 + q * (-1.1293534667535742e-21 + q * p))
    return two_at(t), 5.421008277488108e-20 + q * p


def exp(x):
    x = 89.0 if x > 89.0 else x
    t, d = split(-105.0 if x < -105.0 else x, ROUND)
    n = t - ROUND
    half = 0.5 * n + ROUND  # in two steps, so that the result may be subnormal
    return (1.0 + d) * two_at(half) * two_at(n - (half - ROUND) + ROUND)


def exp_below(x):
    """e^x for x <= 0."""
    return lifted_exp(x) * DOWN


def lifted_exp(x):
    """2^64 e^x for x <= 0, and nearly 0 far below."""
    t, d = split(-130.0 if x < -130.0 else x, LIFT)
    return (1.0 + d) * two_at(t)


def expm1_below(x):
    """e^x - 1 for x <= 0."""
    t, d = split(-87.0 if x < -87.0 else x, ROUND)
    s = two_at(t)
    return s * d + (s - 1.0)


def one_and_more(x):
    """2^-64 (1 + e^-x) for x <= 40, infinite far below 0; NaN for NaN alone."""
    t = DROP - x * TO_TWO
    t = MOST if t > MOST else t
    n, s = t - DROP, two_at(t)
    r = (-x - n * LN2) - n * LN2_REST
    return s * (r + curve(r)) + (s + DOWN)


def log1p_within(w):
    """ln(1 + w) = 2 atanh(v / 2), v = w / (1 + w / 2), for 0 <= w <= 1."""
    v = w / (1.0 + 0.5 * w)
    z = v * v
    p = 0.083332895 + z * (0.01250776625 + z * (0.00218448578125 + z * 0.00055028625))
    return v + v * z * p
