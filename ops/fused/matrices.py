"""Kernels over batches of small matrices: what lies between the products is done while a matrix is in the cache."""

import numpy

from tinygrad_ms.ops.fused.compiler import Text
from tinygrad_ms.ops.fused.kernels import Kernel
from tinygrad_ms.ops.fused.machine import line, skew
from tinygrad_ms.ops.fused.row_kernels import LINE, NUMBER, ROWS, rows
from tinygrad_ms.ops.fused.team import part_size, pays
from tinygrad_ms.ops.fused.tiles import LANES, add_product, copy, product, turn

__all__: list[str] = []


def polynomial(s, u, t, x, a, b, c):
    """S = X^T X, U = b I + c S, T = a I + S U."""
    product(s, x.T, x)
    for j in range(s.shape[0]):
        for k in range(s.shape[0]):
            u[j, k] = c * s[j, k]
        u[j, j] += b
    product(t, s, u)
    for j in range(s.shape[0]):
        t[j, j] += a


def add_turned(x, spare):
    """x <- x + x^T."""
    turn(spare, x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += spare[i, j]


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
        polynomial(s, u, t, matrix, a, b, c)
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
        polynomial(s, u, t, matrix, a, b, c)
        for j in range(n):
            u[j, j] -= 0.5 * b
        product(d, matrix.T, along)
        add_turned(d, s)
        product(s, u, d)
        add_turned(s, d)
        product(result, along, t)
        add_product(result, matrix, s)


def products(y, x, z):
    """Y = X Z for each of the matrices, which have two axes in front. The rows of y and z lie without gaps."""
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            product(y[i, j], x[i, j], z[i, j])


def turned_products(y, x, z):
    """Y = X Z^T; otherwise as ``products``."""
    work = numpy.empty((z.shape[3], z.shape[2]), z.dtype)
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            turn(work, z[i, j])
            product(y[i, j], x[i, j], work)


def matrix_product(y, a, b):
    """Y = A B for matrices of any size, whose rows or columns lie without gaps. Y has a multiple of ``LANES`` columns.

    Columns of a block of B stay in the first cache while all rows of a block of A meet them, which is in the second
    one. A is copied where its rows would push each other out of the first cache.
    """
    room = numpy.empty(DEPTH * (WIDE + HIGH) + LANES, y.dtype)
    room = room[(line(room) - skew(room)) % line(room) :]
    columns = room[: DEPTH * WIDE].reshape((DEPTH, WIDE))
    rows = room[DEPTH * WIDE :][: DEPTH * HIGH].reshape((HIGH, DEPTH))
    by_rows = b.strides[1] == b.itemsize
    for k in range(0, a.shape[1], DEPTH):
        stop = min(k + DEPTH, a.shape[1])
        for i in range(0, a.shape[0], HIGH):
            below = min(i + HIGH, a.shape[0])
            left = a[i:below, k:stop]
            if a.strides[1] != a.itemsize:
                turn(rows[: below - i, : stop - k], left.T)
                left = rows[: below - i, : stop - k]
            elif a.strides[0] % FAR == 0:
                copy(rows[: below - i, : stop - k], left)
                left = rows[: below - i, : stop - k]
            for j in range(0, y.shape[1], WIDE):
                end = min(j + WIDE, y.shape[1])
                right, to = columns[: stop - k, : end - j], y[i:below, j:end]
                if by_rows:
                    copy(right, b[k:stop, j:end])
                else:
                    turn(right, b[k:stop, j:end].T)
                if k == 0:
                    product(to, left, right)
                else:
                    add_product(to, left, right)


DEPTH, WIDE, HIGH = 192, 2 * LANES, 240  # of these blocks: half of the first cache, a part of the second one
FAR = 4096  # bytes: lines of memory with such a distance have one place in the first cache
WORTH = 16  # so many multiplications take the time of an elementwise kernel on one number


class Products(Kernel):
    """A kernel of matrices, or of stacks of them. They may lie in any way but for what the body says.

    axes: of each array. how: what a part of a call gets of them, see ``Job``; parts have a multiple of ``unit``.
    """

    takes, written = None, [0]

    def __init__(self, body, axes=4, how="part part part", unit=1):
        super().__init__(body, "f")
        self.axes, self.how, self.unit = axes, how.split(), unit

    def text(self, real):
        text = Text(real)
        name = text.add(self.body)
        return name, text.whole(name)

    def compile(self, function, dtype):
        from numba import types

        written, read = (types.Array(types.float32, self.axes, "A", readonly=readonly) for readonly in (False, True))
        function.compile((written, read, read))
        function.disable_compile()

    def hows(self):
        return self.how

    def __call__(self, y, x, z):
        if pays(work := y.size * x.shape[-1] // WORTH):
            total = y.shape[self.how[0] == "columns"]
            step = -(-part_size(work) * total // (work * self.unit)) * self.unit
            self.job(y.dtype)(step, total, y, x, z)
        else:
            self.made[y.dtype](y, x, z)


Products(products)
Products(turned_products)
Products(matrix_product, 2, "columns whole columns", WIDE)
