"""Kernels over the rows of a matrix: softmax, log_softmax, their rules, sums of squares.

Sums are taken in float64. The largest number of a row is found by integers that grow with the floats. There NaN is the
largest, so it makes the whole row NaN.
"""

from math import log

from numpy import float32, float64

from tinygrad_ms.ops.fused.machine import from_rank, rank, wide_loop
from tinygrad_ms.ops.fused.row_kernels import ROWS, TOTALS, row_by_row, rows
from tinygrad_ms.ops.fused.single import DOWN, exp_below, lifted_exp

__all__: list[str] = []

LONG = 64  # so many exponentials are computed at a time


def largest(x):
    top = rank(x[0])
    for j in range(x.size):
        n = rank(x[j])
        top = n if n > top else top
    return from_rank(top)


def sum_of(x):
    total = float64(0.0)
    for j in range(x.size):
        total += float64(x[j])
    return total


def sum_in_pairs(x):
    """The same for numbers that are not negative: a sum of two in float32 has a small relative error."""
    half, total = x.size // 2, float64(0.0)
    one, other = x[:half], x[half : half + half]
    for j in range(half):
        total += float64(one[j] + other[j])
    return total + float64(x[x.size - 1]) if x.size % 2 else total


def powers(x, m, y):
    """y = 2^64 e^(x - m) for x <= m; the sum of y."""
    cut = x.size - x.size % LONG
    for j in range(cut):
        y[j] = lifted_exp(x[j] - m)
    wide_loop(4)
    rest, last = x[cut:], y[cut:]
    for j in range(rest.size):
        last[j] = lifted_exp(rest[j] - m)
    return sum_in_pairs(y) if cut > LONG else sum_of(y)


@row_by_row(ROWS, ROWS, streams=False)
def softmax(x, y):
    scale = float32(1.0 / powers(x, largest(x), y))
    for j in range(x.size):
        y[j] *= scale


@row_by_row(ROWS, ROWS, ROWS)
def softmax_rule(g, y, dx):
    along = float64(0.0)
    for j in range(y.size):
        along += float64(g[j]) * float64(y[j])
    center = float32(along)
    for j in range(y.size):
        dx[j] = y[j] * (g[j] - center)


@row_by_row(ROWS, ROWS, streams=False)
def log_softmax(x, y):
    m = largest(x)
    rest = float32(log(powers(x, m, y) * DOWN))
    for j in range(x.size):
        y[j] = (x[j] - m) - rest


@row_by_row(ROWS, ROWS, ROWS, streams=False)
def log_softmax_rule(g, y, dx):
    whole = float32(sum_of(g))
    for j in range(y.size):
        dx[j] = g[j] - exp_below(y[j]) * whole


@rows(ROWS, TOTALS, dtypes="fd")
def squares(x, total):
    for i in range(x.shape[0]):
        s = float64(0.0)
        for j in range(x.shape[1]):
            s += float64(x[i, j]) * float64(x[i, j])
        total[i] = s
