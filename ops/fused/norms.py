"""Kernels of layer_norm and rms_norm. They use float32, part by part; rows that leave its range use float64.

center: 1.0 for layer_norm, 0.0 for rms_norm. weight: a vector like a row, or one number for each row.
"""

from math import sqrt

import numpy
from numpy import float32, float64

from tinygrad_ms.ops.fused.machine import at, wide_loop
from tinygrad_ms.ops.fused.moments import INF, LOW, careful_moments, moments, pulled_means
from tinygrad_ms.ops.fused.row_kernels import (
    EACH,
    LINE,
    MORE,
    MORE_TOTALS,
    NUMBER,
    ROWS,
    SUMS,
    TOTALS,
    row_by_row,
    rows,
)

__all__: list[str] = []


@row_by_row(ROWS, ROWS, LINE, LINE, NUMBER, NUMBER)
def normalize(x, y, weight, bias, eps, center):
    m, rest, square = moments(x, center)
    if LOW < square < INF:
        low, r = float32(rest), float32(1.0 / sqrt(square / x.size + eps))
        for j in range(x.size):
            y[j] = ((x[j] - m) - low) * (r * weight[j]) + bias[j]
        wide_loop(1)
    else:
        mean, scale = careful_moments(x, eps, center)
        for j in range(x.size):
            y[j] = (float64(x[j]) - mean) * (scale * float64(weight[j])) + bias[j]


@row_by_row(ROWS, ROWS, EACH, NUMBER, NUMBER)
def normalize_each(x, y, weight, eps, center):
    m, rest, square = moments(x, center)
    if LOW < square < INF:
        low, s = float32(rest), float32(weight / sqrt(square / x.size + eps))
        for j in range(x.size):
            y[j] = ((x[j] - m) - low) * s
        wide_loop(1)
    else:
        mean, scale = careful_moments(x, eps, center)
        for j in range(x.size):
            y[j] = (float64(x[j]) - mean) * (scale * float64(weight))


def carefully_pulled(g, x, dx, weight, factor, mean, r, along, across):
    for j in range(x.size):
        c, u = float64(x[j]) - mean, float64(g[j]) * float64(at(weight, j))
        dx[j] = r * (u - across - c * r * (r * along)) * float64(factor)


@row_by_row(ROWS, ROWS, ROWS, LINE, SUMS, SUMS, NUMBER, NUMBER)
def normalize_rule(g, x, dx, weight, by_weight, by_bias, eps, center):
    """Where nothing is centred, ``by_bias`` may be anything."""
    mean, rest, r, along, across, near = pulled_means(g, x, weight, eps, center)
    m, low, s, k, a = float32(mean), float32(rest), float32(r), float32(r * r * along), float32(across)
    if near and center == 0.0:
        for j in range(x.size):
            dx[j] = s * (g[j] * weight[j] - x[j] * k)
            by_weight[j] += g[j] * (x[j] * s)
        wide_loop(1)
    elif near:
        for j in range(x.size):
            c = (x[j] - m) - low
            dx[j] = s * (g[j] * weight[j] - a - c * k)
            by_weight[j] += g[j] * (c * s)
            by_bias[j] += g[j]
        wide_loop(1)
    else:
        carefully_pulled(g, x, dx, weight, 1.0, mean, r, along, across)
        for j in range(x.size):
            by_weight[j] += float64(g[j]) * ((float64(x[j]) - mean) * r)
            by_bias[j] += g[j]


@row_by_row(ROWS, ROWS, ROWS, EACH, TOTALS, NUMBER, NUMBER)
def normalize_each_rule(g, x, dx, weight, by_weight, eps, center):
    mean, rest, r, along, across, near = pulled_means(g, x, 1.0, eps, center)
    m, low, s, k, a = float32(mean), float32(rest), float32(r * weight), float32(r * r * along), float32(across)
    by_weight[0] = r * along * x.size
    if near and center == 0.0:
        for j in range(x.size):
            dx[j] = s * (g[j] - x[j] * k)
        wide_loop(1)
    elif near:
        for j in range(x.size):
            dx[j] = s * (g[j] - a - ((x[j] - m) - low) * k)
        wide_loop(1)
    else:
        carefully_pulled(g, x, dx, 1.0, weight, mean, r, along, across)


# --- columns of small matrices, in float64 ----------------------------------------------------------------------------


@rows(ROWS, ROWS, MORE, NUMBER, NUMBER)
def normalize_columns(x, y, weight, eps, width):
    """rms_norm over the columns of the matrices in the rows of x, with a weight for each column."""
    n = int(width)
    scale = numpy.empty(n)
    for i in range(x.shape[0]):
        scale[:] = 0.0
        for start in range(0, x.shape[1], n):
            a = x[i, start : start + n]
            for j in range(n):
                scale[j] += float64(a[j]) * float64(a[j])
        for j in range(n):
            scale[j] = float64(weight[i, j]) / sqrt(scale[j] * n / x.shape[1] + eps)
        for start in range(0, x.shape[1], n):
            a, b = x[i, start : start + n], y[i, start : start + n]
            for j in range(n):
                b[j] = float64(a[j]) * scale[j]


@rows(ROWS, ROWS, ROWS, MORE, MORE_TOTALS, NUMBER, NUMBER)
def normalize_columns_rule(g, x, dx, weight, by_weight, eps, width):
    n = int(width)
    work = numpy.empty((2, n))
    scale, along = work[0], work[1]
    for i in range(x.shape[0]):
        scale[:] = 0.0
        along[:] = 0.0
        for start in range(0, x.shape[1], n):
            a, u = x[i, start : start + n], g[i, start : start + n]
            for j in range(n):
                scale[j] += float64(a[j]) * float64(a[j])
                along[j] += float64(a[j]) * float64(u[j])
        for j in range(n):
            r = 1.0 / sqrt(scale[j] * n / x.shape[1] + eps)
            by_weight[i, j] = r * along[j]
            scale[j] = r * float64(weight[i, j])
            along[j] = r * (r * along[j]) * n / x.shape[1]
        for start in range(0, x.shape[1], n):
            a, u, b = x[i, start : start + n], g[i, start : start + n], dx[i, start : start + n]
            for j in range(n):
                b[j] = scale[j] * (float64(u[j]) - float64(a[j]) * along[j])
