"""Means and mean squares of rows, for kernels: in float32 part by part, or in float64 for what leaves its range.

center: 1.0 for layer_norm, 0.0 for rms_norm. weight: a vector like a row, or a number.
"""

from math import sqrt

from numpy import float32, float64

from tinygrad_ms.ops.fused.machine import at, wide_loop

__all__: list[str] = []

INF = float("inf")
PART = 4096  # numbers of a row that are added up in float32
FEW = 16
LOW = 1e-25  # for a smaller sum of squares, lost subnormal squares could matter


def sums_of(x, g, weight, m):
    """With c = x - m and u = g weight: the sums of c, c^2, c u and u."""
    first, second, along, across = 0.0, 0.0, 0.0, 0.0
    for j in range(x.size):
        c, u = x[j] - m, g[j] * at(weight, j)
        first += c
        second += c * c
        along += c * u
        across += u
    wide_loop(1)
    return first, second, along, across


def moments_of(x, m):
    """The first two of them."""
    first, second = 0.0, 0.0
    for j in range(x.size):
        c = x[j] - m
        first += c
        second += c * c
    wide_loop(1)
    return first, second


def products_of(x, g, weight):
    """The second and the third for m = 0."""
    second, along = 0.0, 0.0
    for j in range(x.size):
        second += x[j] * x[j]
        along += x[j] * (g[j] * at(weight, j))
    wide_loop(1)
    return second, along


def squares_of(x):
    total = 0.0
    for j in range(x.size):
        total += x[j] * x[j]
    wide_loop(1)
    return total


def first_mean(x):
    """About the mean: of the first few numbers."""
    count, total = min(x.size, FEW), float64(0.0)
    for j in range(count):
        total += x[j]
    return float32(total / count)


def moments(x, center):
    """m, about the mean, how far the mean is off it, and the sum of squares about the mean. Both are 0 for rms_norm."""
    m, low, square = float32(0.0), float64(0.0), float64(0.0)
    if center == 0.0:
        for start in range(0, x.size, PART):
            square += squares_of(x[start : start + PART])
        return m, low, square
    m = first_mean(x)
    for _ in range(2):  # once more where the first numbers say little about the others
        first, second = float64(0.0), float64(0.0)
        for start in range(0, x.size, PART):
            one, two = moments_of(x[start : start + PART], m)
            first += one
            second += two
        low = first / x.size
        square = second - low * low * x.size
        if not low * low * x.size > square:
            break
        m = float32(m + low)
    return m, low, square


def pulled_moments(x, g, weight, center):
    """Those three, and with u = g weight the sums of c u, where c is x less its mean or x itself, and of u."""
    m, low, square, along, across = float32(0.0), float64(0.0), float64(0.0), float64(0.0), float64(0.0)
    if center == 0.0:
        for start in range(0, x.size, PART):
            part = slice(start, start + PART)
            two, three = products_of(x[part], g[part], at(weight, part))
            square += two
            along += three
        return m, low, square, along, across
    m = first_mean(x)
    for _ in range(2):  # once more where the first numbers say little about the others
        first, square, along, across = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
        for start in range(0, x.size, PART):
            part = slice(start, start + PART)
            one, two, three, four = sums_of(x[part], g[part], at(weight, part), m)
            first += one
            square += two
            along += three
            across += four
        low = first / x.size
        square -= low * low * x.size
        if not low * low * x.size > square:
            break
        m = float32(m + low)
    return m, low, square, along - low * across, across


def careful_moments(x, eps, center):
    """The mean, or 0, and (mean(c^2) + eps)^(-1/2)."""
    mean, square = float64(0.0), float64(0.0)
    for j in range(x.size):
        mean += float64(x[j])
    mean = mean / x.size if center != 0.0 else float64(0.0)  # also of what is not finite, where nothing is centred
    for j in range(x.size):
        c = float64(x[j]) - mean
        square += c * c
    return mean, 1.0 / sqrt(square / x.size + eps)


def pulled_means(g, x, weight, eps, center):
    """The mean of x in two parts, r, the means of c u and of u, and whether float32 is enough."""
    m, low, square, along, across = pulled_moments(x, g, weight, center)
    if LOW < square < INF:
        inverse = 1.0 / float64(x.size)
        return float64(m), low, 1.0 / sqrt(square * inverse + eps), along * inverse, across * inverse, True
    mean, r = careful_moments(x, eps, center)
    along, across = float64(0.0), float64(0.0)
    for j in range(x.size):
        u = float64(g[j]) * float64(at(weight, j))
        along += (float64(x[j]) - mean) * u
        across += u
    return mean, float64(0.0), r, along / x.size, across / x.size if center != 0.0 else float64(0.0), False
