"""Iterations on batches of small matrices: what lies between the products is done while a matrix is in the cache."""

import numpy

from tinygrad_ms.ops.fused.row_kernels import LINE, NUMBER, ROWS, rows
from tinygrad_ms.ops.fused.tiles import add_product, copy, product, turn

__all__: list[str] = []


def polynomial(s, u, t, x, a, b, c, more):
    """S = X^T X + more I, U = b I + c S, T = a I + S U."""
    product(s, x.T, x)
    add_to_diagonal(s, more)
    for j in range(s.shape[0]):
        for k in range(s.shape[0]):
            u[j, k] = c * s[j, k]
        u[j, j] += b
    product(t, s, u)
    add_to_diagonal(t, a)


def add_to_diagonal(x, number):
    for j in range(x.shape[0]):
        x[j, j] += number


def add_turned(x, spare):
    """x <- x + x^T."""
    turn(spare, x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += spare[i, j]


@rows(ROWS, ROWS, LINE, NUMBER, NUMBER, work=8)
def newton_schulz(x, y, factors, width, identity):
    """Y = X after steps X <- X (a I + b S + c S S), S = X^T X, for the matrices in the rows of x, of ``width`` columns.

    factors: a, b, c of each step. The last rows of X are ``identity`` times I, if that is not 0. They are not read.
    """
    n = int(width)
    m, steps = x.shape[1] // n, factors.size // 3
    work, large = numpy.empty((3, n, n), x.dtype), numpy.empty((2, m, n), x.dtype)
    s, t, u = work[0], work[1], work[2]
    for i in range(x.shape[0]):
        given = x[i].reshape((m, n))
        matrix = given[: m - n] if identity != 0 else given
        for k in range(steps):
            height, (a, b, c) = matrix.shape[0], (factors[3 * k], factors[3 * k + 1], factors[3 * k + 2])
            polynomial(s, u, t, matrix, a, b, c, identity * identity if height < m else 0.0)
            result = large[k % 2] if k + 1 < steps else y[i].reshape((m, n))
            product(result[:height], matrix, t)
            for j in range(height, m):
                for h in range(n):
                    result[j, h] = identity * t[j - height, h]
            matrix = result


@rows(ROWS, ROWS, ROWS, LINE, NUMBER, work=8)
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
        polynomial(s, u, t, matrix, a, b, c, 0.0)
        add_to_diagonal(u, -0.5 * b)
        product(d, matrix.T, along)
        add_turned(d, s)
        product(s, u, d)
        add_turned(s, d)
        product(result, along, t)
        add_product(result, matrix, s)


@rows(ROWS, ROWS, ROWS, LINE, NUMBER, NUMBER, work=32)
def lyapunov(first, second, y, shifts, width, parity):
    """Y = K after the steps of ``block_solve.LyapunovSolve`` on K and A, one for each pair (p, q) of shifts."""
    n, steps = int(width), shifts.size // 2
    work = numpy.empty((9, n, n), first.dtype)
    u, d, r, t, v = work[0], work[1], work[2], work[3], work[4]
    for i in range(first.shape[0]):
        k, a = first[i].reshape((n, n)), second[i].reshape((n, n))
        for step in range(steps):
            p, q = shifts[2 * step], shifts[2 * step + 1]
            product(u, k, a)
            less_turned(d, u, parity)
            product(r, a, a)
            add_to_diagonal(r, p)
            if q == q:
                product(u, d, r)
                less_turned(v, u, parity)
                product(t, r, r)
                add_to_diagonal(t, q)
            else:
                copy(v, d)
                copy(t, r)
            result = work[5 + step % 2] if step + 1 < steps else y[i].reshape((n, n))
            product(result, v, a)
            add_product(result, t, k)
            k = result
            if step + 1 < steps:
                product(work[7 + step % 2], t, a)
                a = work[7 + step % 2]


def less_turned(y, x, parity):
    """y <- x - parity x^T, for parity 1 or -1."""
    turn(y, x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - y[i, j] if parity > 0 else x[i, j] + y[i, j]
