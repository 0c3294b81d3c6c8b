"""Kernels over the rows of a matrix: softmax and its kin, normalisation, sums of squares.

Sums are taken in float64. ``top_of`` a row is found among integers that grow with the floats: NaN is the largest, and
makes the whole row NaN.
"""

from math import log, sqrt

from numpy import float32, float64

from tinygrad_ms.ops.fused.compiler import from_rank, rank
from tinygrad_ms.ops.fused.kernels import EACH, LABELS, LINE, NUMBER, ROWS, SUMS, TOTALS, rows
from tinygrad_ms.ops.fused.single import exp

__all__: list[str] = []

INF = float("inf")


@rows(ROWS, ROWS)
def softmax(x, y):
    for i in range(x.shape[0]):
        top = rank(x[i, 0])
        for j in range(x.shape[1]):
            n = rank(x[i, j])
            top = n if n > top else top
        m = from_rank(top)
        total = float64(0.0)
        for j in range(x.shape[1]):
            e = exp(x[i, j] - m)
            y[i, j] = e
            total += float64(e)
        scale = float32(1.0 / total)
        for j in range(x.shape[1]):
            y[i, j] *= scale


@rows(ROWS, ROWS, ROWS)
def softmax_rule(g, y, dx):
    for i in range(y.shape[0]):
        along = float64(0.0)
        for j in range(y.shape[1]):
            along += float64(g[i, j]) * float64(y[i, j])
        center = float32(along)
        for j in range(y.shape[1]):
            dx[i, j] = y[i, j] * (g[i, j] - center)


@rows(ROWS, ROWS)
def log_softmax(x, y):
    for i in range(x.shape[0]):
        top = rank(x[i, 0])
        for j in range(x.shape[1]):
            n = rank(x[i, j])
            top = n if n > top else top
        m = from_rank(top)
        total = float64(0.0)
        for j in range(x.shape[1]):
            total += float64(exp(x[i, j] - m))
        rest = float32(log(total))
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - m) - rest


@rows(ROWS, ROWS, ROWS)
def log_softmax_rule(g, y, dx):
    for i in range(y.shape[0]):
        total = float64(0.0)
        for j in range(y.shape[1]):
            total += float64(g[i, j])
        whole = float32(total)
        for j in range(y.shape[1]):
            dx[i, j] = g[i, j] - exp(y[i, j]) * whole


def probabilities(log_p, y, scale):
    """scale p for a part of a row; the sum of p."""
    total = float64(0.0)
    for j in range(y.size):
        e = exp(log_p[j])
        total += float64(e)
        y[j] = e * scale
    return total


@rows(ROWS, ROWS, EACH, LABELS)
def softmax_minus_one_hot(log_p, y, scale, label):
    """The entry of the label is minus the sum of the others: p - 1 has no digits where p is near 1."""
    for i in range(y.shape[0]):
        k, last = int(label[i]), y.shape[1]
        others = probabilities(log_p[i, :k], y[i, :k], scale[i])
        others += probabilities(log_p[i, k + 1 : last], y[i, k + 1 : last], scale[i])
        y[i, k] = -others * scale[i]


# --- normalisation: in float32, part by part; rows whose squares leave its range once more in float64 ---------------

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


def carefully_pulled(g, x, dx, weight, by_weight, eps, center):
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
        for j in range(size):
            by_bias[j] += float64(g[i, j])
        if LOW < square < INF:
            r = 1.0 / sqrt(square / size + eps)
            s, k, a = float32(r), float32(r * r * along / size), float32(share(across, size, center))
            for j in range(size):
                c = (x[i, j] - m) - low
                dx[i, j] = s * (g[i, j] * weight[j] - a - c * k)
                by_weight[j] += float64(g[i, j] * (c * s))
        else:
            carefully_pulled(g[i], row, dx[i], weight, by_weight, eps, center)


@rows(ROWS, TOTALS, dtypes="fd")
def squares(x, total):
    for i in range(x.shape[0]):
        s = float64(0.0)
        for j in range(x.shape[1]):
            s += float64(x[i, j]) * float64(x[i, j])
        total[i] = s
