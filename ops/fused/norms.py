"""Kernels of layer_norm and rms_norm: in float32, part by part; rows that leave its range once more in float64."""

from math import sqrt

from numpy import float32, float64

from tinygrad_ms.ops.fused.kernels import LINE, NUMBER, ROWS, SUMS, rows

__all__: list[str] = []

INF = float("inf")
PART = 4096  # numbers of a row that are added up in float32
LOW = 1e-25  # a sum of squares below which those lost under the smallest number could count


def share(total, size, center):
    """The mean, or 0, also of what is not finite, where nothing is centred."""
    return total / size if center != 0.0 else float64(0.0)


def sum_of(x):
    total = 0.0
    for j in range(x.size):
        total += x[j]
    return total


def rough_mean(x, center):
    total = float64(0.0)
    for start in range(0, x.size, PART):
        total += sum_of(x[start : start + PART])
    return share(total, x.size, center)


def moments_of(x, m):
    """The sums of c = x - m and of its squares."""
    first, second = 0.0, 0.0
    for j in range(x.size):
        c = x[j] - m
        first += c
        second += c * c
    return first, second


def moments(x, m, center):
    """How far the mean is off m, and the sum of squares about the mean."""
    first, second = float64(0.0), float64(0.0)
    for start in range(0, x.size, PART):
        one, two = moments_of(x[start : start + PART], m)
        first += one
        second += two
    low = share(first, x.size, center)
    return low, second - low * low * x.size


def products_of(x, g, weight, m):
    """With c = x - m and u = g weight: the sums of c u and u."""
    along, across = 0.0, 0.0
    for j in range(x.size):
        u = g[j] * weight[j]
        along += (x[j] - m) * u
        across += u
    return along, across


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


@rows(ROWS, ROWS, LINE, LINE, NUMBER, NUMBER)
def normalize(x, y, weight, bias, eps, center):
    for i in range(x.shape[0]):
        row, size = x[i], x.shape[1]
        mean = rough_mean(row, center)
        m = float32(mean)
        rest, square = moments(row, m, center)
        low = float32(rest)
        if LOW < square < INF:
            r = float32(1.0 / sqrt(square / size + eps))
            for j in range(size):
                y[i, j] = ((x[i, j] - m) - low) * (r * weight[j]) + bias[j]
        else:
            carefully_normalized(row, y[i], weight, eps, center)
            for j in range(size):
                y[i, j] += bias[j]


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


@rows(ROWS, ROWS, ROWS, LINE, SUMS, SUMS, NUMBER, NUMBER)
def normalize_rule(g, x, dx, weight, by_weight, by_bias, eps, center):
    for i in range(x.shape[0]):
        row, size = x[i], x.shape[1]
        mean = rough_mean(row, center)
        m = float32(mean)
        rest, square = moments(row, m, center)
        low, along, across = float32(rest), float64(0.0), float64(0.0)
        for start in range(0, size, PART):
            part = slice(start, start + PART)
            one, two = products_of(row[part], g[i, part], weight[part], m)
            along += one
            across += two
        along -= rest * across
        if LOW < square < INF:
            r = 1.0 / sqrt(square / size + eps)
            s, k, a = float32(r), float32(r * r * along / size), float32(share(across, size, center))
            for j in range(size):
                c = (x[i, j] - m) - low
                dx[i, j] = s * (g[i, j] * weight[j] - a - c * k)
                by_weight[j] += g[i, j] * (c * s)
                by_bias[j] += g[i, j]
        else:
            carefully_pulled(g[i], row, dx[i], weight, by_weight, by_bias, eps, center)
