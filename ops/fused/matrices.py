"""Kernels over batches of small matrices: what lies between the products is done while a matrix is in the cache."""

import numpy

from tinygrad_ms.ops.fused.kernels import LINE, NUMBER, ROWS, rows
from tinygrad_ms.ops.fused.tiles import add_product, product

__all__: list[str] = []


@rows(ROWS, ROWS, LINE, NUMBER)
def newton_schulz(x, y, factors, width):
    """Y = X (a I + b S + c S S), S = X^T X, for the matrices in the rows of x, which have ``width`` columns."""
    n = int(width)
    m = x.shape[1] // n
    a, b, c = factors[0], factors[1], factors[2]
    work = numpy.empty((3, n, n), x.dtype)
    s, t, u = work[0], work[1], work[2]
    for i in range(x.shape[0]):
        matrix = x[i].reshape((m, n))
        product(s, matrix.T, matrix)
        for j in range(n):
            for k in range(n):
                u[j, k] = c * s[j, k]
            u[j, j] += b
        product(t, s, u)
        for j in range(n):
            t[j, j] += a
        product(y[i].reshape((m, n)), matrix, t)


@rows(ROWS, ROWS, ROWS, LINE, NUMBER)
def newton_schulz_rule(x, g, y, factors, width):
    """The derivative of that along G: G T + X (U D + D U) with D = X^T G + G^T X. It is its own adjoint.

    T = a I + b S + c S S and U = b / 2 I + c S are made again.
    """
    n = int(width)
    m = x.shape[1] // n
    a, b, c = factors[0], factors[1], factors[2]
    work = numpy.empty((4, n, n), x.dtype)
    s, t, u, d = work[0], work[1], work[2], work[3]
    for i in range(x.shape[0]):
        matrix, along, result = x[i].reshape((m, n)), g[i].reshape((m, n)), y[i].reshape((m, n))
        product(s, matrix.T, matrix)
        for j in range(n):
            for k in range(n):
                u[j, k] = c * s[j, k]
            u[j, j] += b
        product(t, s, u)
        for j in range(n):
            t[j, j] += a
            u[j, j] -= 0.5 * b
        product(d, matrix.T, along)
        add_product(d, along.T, matrix)
        product(s, u, d)
        add_product(s, d, u)
        product(result, along, t)
        add_product(result, matrix, s)
