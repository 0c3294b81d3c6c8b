"""Kernels of layer_norm and rms_norm. They use float32, part by part; rows that leave its range use float64."""

from math import sqrt

from numpy import float32, float64

from tinygrad_ms.ops.fused.row_kernels import LINE, NUMBER, ROWS, SUMS, row_by_row

__all__: list[str] = []

INF = float("inf")
PART = 4096  # numbers of a row that are added up in float32
FEW = 16
LOW = 1e-25  # for a smaller sum of squares, lost subnormal squares could matter


def share(total, size, center):
    """The mean, or 0, also of what is not finite, where nothing is centred."""
    return total / size if center != 0.0 else float64(0.0)


def first_mean(x, center):
    """About the mean: of the first few numbers."""
    count, total = min(x.size, FEW), float64(0.0)
    for j in range(count):
        total += x[j]
    return float32(share(total, count, center))


def sums_of(x, g, weight, m):
    """With c = x - m and u = g weight: the sums of c, c^2, c u and u."""
    first, second, along, across = 0.0, 0.0, 0.0, 0.0
    for j in range(x.size):
        c, u = x[j] - m, g[j] * weight[j]
        first += c
        second += c * c
        along += c * u
        across += u
    return first, second, along, across


def moments_of(x, m):
    """The first two of them."""
    first, second = 0.0, 0.0
    for j in range(x.size):
        c = x[j] - m
        first += c
        second += c * c
    return first, second


def moments(x, center):
    """m, about the mean, how far the mean is off it, and the sum of squares about the mean."""
    m, low, square = first_mean(x, center), float64(0.0), float64(0.0)
    for _ in range(2):  # once more where the first numbers say little about the others
        first, second = float64(0.0), float64(0.0)
        for start in range(0, x.size, PART):
            one, two = moments_of(x[start : start + PART], m)
            first += one
            second += two
        low = share(first, x.size, center)
        square = second - low * low * x.size
        if not low * low * x.size > square:
            break
        m = float32(m + low)
    return m, low, square


def careful_mean(x, center):
    total = float64(0.0)
    for j in range(x.size):
        total += float64(x[j])
    return share(total, x.size, center)


def carefully_normalized(x, y, weight, eps, center):
    mean, square = careful_mean(x, center), float64(0.0)
    for j in range(x.size):
        c = float64(x[j]) - mean
        square += c * c
    r = 1.0 / sqrt(square / x.size + eps)
    for j in range(x.size):
        y[j] = (float64(x[j]) - mean) * (r * float64(weight[j]))


@row_by_row(ROWS, ROWS, LINE, LINE, NUMBER, NUMBER)
def normalize(x, y, weight, bias, eps, center):
    m, rest, square = moments(x, center)
    low = float32(rest)
    if LOW < square < INF:
        r = float32(1.0 / sqrt(square / x.size + eps))
        for j in range(x.size):
            y[j] = ((x[j] - m) - low) * (r * weight[j]) + bias[j]
    else:
        carefully_normalized(x, y, weight, eps, center)
        for j in range(x.size):
            y[j] += bias[j]


def carefully_pulled(g, x, dx, weight, by_weight, by_bias, eps, center):
    size, mean = x.size, careful_mean(x, center)
    square, along, across = float64(0.0), float64(0.0), float64(0.0)
    for j in range(size):
        c, u = float64(x[j]) - mean, float64(g[j]) * float64(weight[j])
        square += c * c
        along += c * u
        across += u
    r = 1.0 / sqrt(square / size + eps)
    for j in range(size):
        h, u = (float64(x[j]) - mean) * r, float64(g[j]) * float64(weight[j])
        dx[j] = r * (u - share(across, size, center) - h * (r * along / size))
        by_weight[j] += float64(g[j]) * h
        by_bias[j] += g[j]


@row_by_row(ROWS, ROWS, ROWS, LINE, SUMS, SUMS, NUMBER, NUMBER)
def normalize_rule(g, x, dx, weight, by_weight, by_bias, eps, center):
    size, m = x.size, first_mean(x, center)
    inverse = 1.0 / float64(size)
    rest, square, along, across = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
    for _ in range(2):
        first, second, along, across = float64(0.0), float64(0.0), float64(0.0), float64(0.0)
        for start in range(0, size, PART):
            part = slice(start, start + PART)
            one, two, three, four = sums_of(x[part], g[part], weight[part], m)
            first += one
            second += two
            along += three
            across += four
        rest = share(first * inverse, 1, center)
        square = second - rest * rest * size
        if not rest * rest * size > square:
            break
        m = float32(m + rest)
    along -= rest * across
    if LOW < square < INF:
        r = 1.0 / sqrt(square * inverse + eps)
        low, s = float32(rest), float32(r)
        k, a = float32(r * r * along * inverse), float32(share(across * inverse, 1, center))
        for j in range(size):
            c = (x[j] - m) - low
            dx[j] = s * (g[j] * weight[j] - a - c * k)
            by_weight[j] += g[j] * (c * s)
            by_bias[j] += g[j]
    else:
        carefully_pulled(g, x, dx, weight, by_weight, by_bias, eps, center)
