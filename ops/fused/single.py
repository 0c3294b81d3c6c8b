"""The exponential function and its kin in float32 arithmetic, where twice the speed is worth one or two ulp.

As in ``mathematics``, whose words hold here too. Each result is within 4 ulp, also below the smallest normal number.
"""

from tinygrad_ms.ops.fused.compiler import two_to

__all__: list[str] = []

ROUND = 12582912.0  # 1.5 2^23: adding it and taking it away rounds to an integer


def rest(x):
    """n and e^r - 1 for x = n ln 2 + r. ln 2 is taken in two parts, of which the first has few bits."""
    n = (x * 1.4426950408889634 + ROUND) - ROUND
    r = (x - n * 0.693145751953125) - n * 1.428606765330187e-06
    q = 0.041667995953529546 + r * (0.008374135001267984 + r * 0.0013843962019184802)
    return n, r * (1.0000000320524738 + r * (0.4999999423786901 + r * (0.16666431589018027 + r * q)))


def scaled(n, d):
    """(1 + d) 2^n in two steps, so that the result may be subnormal."""
    half = (0.5 * n + ROUND) - ROUND
    return (1.0 + d) * two_to(half) * two_to(n - half)


def limited(x):
    """x where e^x is neither 0 nor infinite."""
    x = 89.0 if x > 89.0 else x
    return -105.0 if x < -105.0 else x


def exp(x):
    n, d = rest(limited(x))
    return scaled(n, d)


def expm1_below(x):
    """e^x - 1 for x <= 0."""
    n, d = rest(-87.0 if x < -87.0 else x)
    s = two_to(n)
    return s * d + (s - 1.0)


def log1p_within(w):
    """ln(1 + w) = 2 atanh(v / 2), v = w / (1 + w / 2), for 0 <= w <= 1."""
    v = w / (1.0 + 0.5 * w)
    z = v * v
    p = 0.083332895 + z * (0.01250776625 + z * (0.00218448578125 + z * 0.00055028625))
    return v + v * z * p
