"""Kernels over the rows of a matrix: softmax and its kin, sums of squares.

Sums are taken in float64. The largest number of a row is found among integers that grow with the floats: NaN is the
largest, and makes the whole row NaN.
"""

from math import log

from numpy import float32, float64

from tinygrad_ms.ops.fused.compiler import from_rank, rank
from tinygrad_ms.ops.fused.kernels import EACH, LABELS, ROWS, TOTALS, rows
from tinygrad_ms.ops.fused.single import exp

__all__: list[str] = []


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


@rows(ROWS, TOTALS, dtypes="fd")
def squares(x, total):
    for i in range(x.shape[0]):
        s = float64(0.0)
        for j in range(x.shape[1]):
            s += float64(x[i, j]) * float64(x[i, j])
        total[i] = s
