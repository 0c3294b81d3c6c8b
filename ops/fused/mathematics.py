"""Functions of a real number that a compiler can vectorise: polynomials and selects, no branch and no table.

All compute in float64, with a relative error of about 1e-10, for float32 arguments. The result is rounded once, so one
function alone is within 0.51 ulp. NaN stays NaN, and infinities give limits. Selects let a NaN through, as in
``a if x > a else x``.
Coefficients: minimax fits by reweighted least squares (Lawson 1961). Ranges: Muller, Elementary Functions, 3rd ed.,
chapters 9 to 11.
"""

from tinygrad_ms.ops.fused.machine import bits, from_bits, two_to

__all__: list[str] = []

ROUND = 6755399441055744.0  # 1.5 2^52; a number plus it has the nearest integer in its lowest bits
LN2 = 0.6931471805599453
ONE = 0x3FF0000000000000  # the bits of 1.0
ROOT = 0x3FE6A09E667F3BCD  # of sqrt(1 / 2)
INF = float("inf")
NAN = float("nan")


def power_and_rest(x):
    """s = 2^n and d = s (e^r - 1) with x = n ln 2 + r: e^x = s + d. Far out s is 0 or infinite."""
    x = 710.0 if x > 710.0 else x
    x = -709.2 if x < -709.2 else x
    n = (x * 1.4426950408889634 + ROUND) - ROUND
    r = x - n * LN2
    q = 0.0013945876153709813 + r * 0.00019768274114476142
    q = 0.041666272934202685 + r * (0.008333567428513872 + r * q)
    q = 1.0000000002063172 + r * (0.5000000076989678 + r * (0.1666666517468522 + r * q))
    s = two_to(n)
    return s, s * (r * q)


def exp(x):
    s, d = power_and_rest(x)
    return s + d


def expm1(x):
    s, d = power_and_rest(x)
    return d + (s - 1.0)


def log(x):
    """2 atanh(f / (f + 2)) + e ln 2 for x = 2^e (1 + f) with 1 + f between sqrt(1 / 2) and sqrt 2."""
    u = bits(x) + (ONE - ROOT)
    e = from_bits((u >> 52) | 0x4330000000000000) - 4503599627371519.0
    f = from_bits((u & 0xFFFFFFFFFFFFF) + ROOT) - 1.0
    s = f / (f + 2.0)
    z = s * s
    p = 0.20000167595727258 + z * (0.14268654264664917 + z * 0.11791075929841457)
    y = 2.0 * s + (2.0 * s * z * (0.33333332822726885 + z * p) + e * LN2)
    y = y if x > 0.0 else (-INF if x == 0.0 else NAN)
    return y if x < INF else x


def log1p(x):
    """ln(1 + x). For tiny x, which 1 + x rounds away, it is two terms of the series."""
    y = log(1.0 + x)
    return x - 0.5 * x * x if abs(x) < 1e-5 else y


def mills_ratio(a):
    """R(a) = e^(a^2 / 2) Phi(-a) for 0 <= a <= 15: a polynomial of 1 / (a + 4)."""
    t = 1.0 / (a + 4.0)
    p = 21581.970259423866 + t * (-64246.84841059231 + t * (89910.87946469632 + t * -48383.37330325865))
    p = 10.165459376517376 + t * (770.424574961939 + t * (-3962.1032353035444 + t * p))
    p = 5.848872020760048 + t * (24.145709082462943 + t * p)
    return t * (0.3989107343605265 + t * (1.5988848932797752 + t * p))


def erf(x):
    """erf(x): a polynomial for |x| < 1, and beyond 1 - 2 e^(-x^2) R(sqrt(2) |x|) with the sign of x."""
    size = 10.0 if abs(x) > 10.0 else abs(x)
    z = size * size
    p = 0.005220945443721474 + z * (-0.0008482829005927221 + z * (0.00011256949083880277 + z * -9.641519463143907e-06))
    p = 0.11283781974168865 + z * (-0.026865400045949662 + z * p)
    near = x * (1.1283791670580208 + z * (-0.37612638434654966 + z * p))
    far = 1.0 - 2.0 * exp(-z) * mills_ratio(1.4142135623730951 * size)
    far = -far if x < 0.0 else far
    return far if z > 1.0 else near


HALF_PI = 1.5707963267341256  # its first 33 bits, so that multiples are exact, and the rest
REST = 6.077100506506192e-11
FAR = 1e6  # above this, multiples of HALF_PI are not exact


def wave(x, quarters):
    """sin(x + quarters pi / 2) for |x| <= FAR: a multiple of pi / 2 is taken away (Cody and Waite 1980)."""
    k = x * 0.6366197723675814 + ROUND
    n = bits(k) + quarters
    k -= ROUND
    r = (x - k * HALF_PI) - k * REST
    z = r * r
    p = 0.008333329374130838 + z * (-0.0001983933099930536 + z * 2.718274491042459e-06)
    q = -0.0013888883738030651 + z * (2.479951588539451e-05 + z * -2.7209892379598314e-07)
    sine = r + r * z * (-0.1666666664152698 + z * p)
    cosine = 1.0 - 0.5 * z + z * z * (0.04166666662265297 + z * q)
    y = cosine if n & 1 else sine
    return -y if n & 2 else y


def sin(x):
    return wave(x, 0)


def cos(x):
    return wave(x, 1)
