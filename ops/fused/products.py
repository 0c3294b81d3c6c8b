"""Kernels of products: of stacks of small matrices, and of two matrices of any size."""

import numpy

from tinygrad_ms.ops.fused.compiler import Text
from tinygrad_ms.ops.fused.kernels import Kernel
from tinygrad_ms.ops.fused.machine import line, skew
from tinygrad_ms.ops.fused.team import part_size, pays
from tinygrad_ms.ops.fused.tiles import LANES, add_product, copy, product, turn

__all__: list[str] = []


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
    depth = min(a.shape[1], DEPTH)
    wide = DEPTH // depth * WIDE
    columns = room[: depth * wide].reshape((depth, wide))
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
            for j in range(0, y.shape[1], wide):
                end = min(j + wide, y.shape[1])
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

    axes: of each array. ways: what a part of a call gets of them, see ``Job``, and of what its length is a multiple.
    The last way is for results with more columns than rows.
    """

    takes, written, gaps = None, [0], True

    def __init__(self, body, axes, *ways):
        super().__init__(body, "f")
        self.axes, self.ways = axes, ways

    def text(self, real):
        text = Text(real)
        name = text.add(self.body)
        return name, text.whole(name)

    def compile(self, function, dtype):
        from numba import types

        written, read = (types.Array(types.float32, self.axes, "A", readonly=readonly) for readonly in (False, True))
        function.compile((written, read, read))
        function.disable_compile()

    def __call__(self, y, x, z):
        if not pays(work := y.size * x.shape[-1] // WORTH):
            return self.made[y.dtype](y, x, z)
        how, unit = self.ways[-1 if y.shape[0] < y.shape[-1] else 0]
        total = y.shape[how[0] == "columns"]
        step = -(-part_size(work) * total // (work * unit)) * unit
        self.job(y.dtype, how)(step, total, y, x, z)


STACKS = (("part", "part", "part"), 1)
Products(products, 4, STACKS)
Products(turned_products, 4, STACKS)
Products(matrix_product, 2, (("part", "part", "whole"), 16), (("columns", "whole", "columns"), WIDE))
