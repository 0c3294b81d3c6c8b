"""Products of small matrices inside a compiled kernel. A tile of the result stays in registers over the inner sum.

The matrices are 2-d arrays of float32 that do not overlap. Each row of ``b``, ``x`` and ``y`` lies without gaps, and
has a multiple of ``LANES`` numbers. ``a`` may lie in any way, so it may be a transposed view.
"""

from itertools import product as pairs
from typing import Any

__all__: list[str] = []

LANES = 16  # float32 in one vector; LLVM makes several registers of it where they are shorter


def product(y, a, b):
    """y <- a b."""
    y[...] = a @ b


def add_product(y, a, b):
    """y <- y + a b."""
    y += a @ b


def copy(y, x):
    """y <- x. The rows may have any length."""
    y[...] = x


def turn(y, x):
    """y <- x^T. The rows of both may have any length."""
    y[...] = x.T


def intrinsics() -> dict:
    """The functions above for numba."""
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def product(typing_context, y, a, b):
        return types.none(y, a, b), written(lambda writer, *arrays: tiles(writer, False, *arrays))

    @intrinsic
    def add_product(typing_context, y, a, b):
        return types.none(y, a, b), written(lambda writer, *arrays: tiles(writer, True, *arrays))

    @intrinsic
    def turn(typing_context, y, x):
        return types.none(y, x), written(turned)

    @intrinsic
    def copy(typing_context, y, x):
        return types.none(y, x), written(copied)

    return {"product": product, "add_product": add_product, "copy": copy, "turn": turn}


# --- the instructions -----------------------------------------------------------------------------------------------


class Writer:
    """Writes instructions of LLVM. An array is (its address, its steps in bytes, its shape)."""

    def __init__(self, builder: Any):
        from llvmlite import ir

        self.builder, self.i32, self.i64 = builder, ir.IntType(32), ir.IntType(64)
        self.byte, self.real, self.vector = (
            ir.IntType(8).as_pointer(),
            ir.FloatType(),
            ir.VectorType(ir.FloatType(), LANES),
        )
        self.zeros, self.nothing = ir.Constant(self.vector, [0.0] * LANES), ir.Constant(self.vector, ir.Undefined)
        self.order = lambda numbers: ir.Constant(ir.VectorType(self.i32, LANES), list(numbers))

    def below(self, i, k):
        return self.builder.add(i, self.i64(k))

    def whole(self, size, step):
        """The largest multiple of ``step`` up to the size."""
        return self.builder.sub(size, self.builder.srem(size, self.i64(step)))

    def at(self, array, i, j, kind):
        """The address of element i, j."""
        builder, (address, (down, along), _) = self.builder, array
        place = builder.gep(address, [builder.add(builder.mul(i, down), builder.mul(j, along))])
        return builder.bitcast(place, kind.as_pointer())

    def load(self, array, i, j):
        return self.builder.load(self.at(array, i, j, self.vector), align=4)

    def store(self, vector, array, i, j):
        self.builder.store(vector, self.at(array, i, j, self.vector), align=4)

    def spread(self, array, i, j):
        """A vector full of element i, j."""
        x = self.builder.load(self.at(array, i, j, self.real))
        x = self.builder.insert_element(self.nothing, x, self.i32(0))
        return self.builder.shuffle_vector(x, self.nothing, self.order([0] * LANES))

    def over(self, start, stop, step):
        from numba.core import cgutils

        return cgutils.for_range_slice(self.builder, start, stop, self.i64(step), inc=True)


def written(write):
    """What numba calls to make the instructions of a function of 2-d arrays."""

    def lower(context, builder, signature, arguments):
        from numba.core import cgutils
        from numba.np.arrayobj import make_array

        writer, found = Writer(builder), []
        for kind, given in zip(signature.args, arguments):
            x = make_array(kind)(context, builder, given)
            steps, shape = (cgutils.unpack_tuple(builder, numbers) for numbers in (x.strides, x.shape))
            found.append((builder.bitcast(x.data, writer.byte), steps, shape))
        write(writer, *found)
        return context.get_dummy_value()

    return lower


def tiles(writer, add, y, a, b):
    """All tiles of y: first those of full size, then the columns and rows that are left."""
    from llvmlite.binding import get_host_cpu_features

    rows, vectors = (8, 2) if get_host_cpu_features().get("avx512f") else (6, 1)  # they fill the registers
    zero, (n, m) = writer.i64(0), y[2]
    low, wide = writer.whole(n, rows), writer.whole(m, vectors * LANES)
    across = ((zero, wide, vectors), (wide, m, 1))[:vectors]
    for (left, right, width), (top, bottom, height) in pairs(across, ((zero, low, rows), (low, n, 1))):
        with writer.over(left, right, width * LANES) as (j, _), writer.over(top, bottom, height) as (i, _):
            lines = [writer.below(i, r) for r in range(height)]
            tile(writer, y, a, b, add, lines, [writer.below(j, LANES * v) for v in range(width)])


def tile(writer, y, a, b, add, lines, columns):
    """The tile of y in these lines, whose vectors start at these columns."""
    from numba.core import cgutils

    builder, places = writer.builder, list(pairs(lines, columns))
    sums = {place: cgutils.alloca_once(builder, writer.vector) for place in places}
    for place in places:
        builder.store(writer.load(y, *place) if add else writer.zeros, sums[place])
    with writer.over(writer.i64(0), a[2][1], 1) as (k, _):
        factors = {column: writer.load(b, k, column) for column in columns}
        for line in lines:
            x = writer.spread(a, line, k)
            for column, factor in factors.items():
                term, total = builder.fmul(x, factor, flags=["contract"]), sums[line, column]
                builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
    for place in places:
        writer.store(builder.load(sums[place]), y, *place)


def copied(writer, y, x):
    """Vectors of each row, and behind the last one number by number."""
    zero, (n, m) = writer.i64(0), x[2]
    wide = writer.whole(m, LANES)
    with writer.over(zero, n, 1) as (i, _):
        with writer.over(zero, wide, LANES) as (j, _):
            writer.store(writer.load(x, i, j), y, i, j)
        with writer.over(wide, m, 1) as (j, _):
            writer.builder.store(writer.builder.load(writer.at(x, i, j, writer.real)), writer.at(y, i, j, writer.real))


def turned(writer, y, x):
    """Blocks of LANES rows and columns. In stage h of each block, its parts of h rows and h columns change places.

    Behind the last block numbers are turned one by one.
    """
    (n, m), zero = x[2], writer.i64(0)
    low, wide = writer.whole(n, LANES), writer.whole(m, LANES)
    for top, bottom, left, right in ((zero, low, wide, m), (low, n, zero, m)):
        with writer.over(top, bottom, 1) as (i, _), writer.over(left, right, 1) as (j, _):
            number = writer.builder.load(writer.at(x, i, j, writer.real))
            writer.builder.store(number, writer.at(y, j, i, writer.real))
    numbers = range(LANES)
    with writer.over(zero, low, LANES) as (i, _), writer.over(zero, wide, LANES) as (j, _):
        block = [writer.load(x, writer.below(i, r), j) for r in numbers]
        for h in (1, 2, 4, 8):
            left = writer.order(k if not k & h else k - h + LANES for k in numbers)
            right = writer.order(k + h if not k & h else k + LANES for k in numbers)
            for r in [r for r in numbers if not r & h]:
                pair = block[r], block[r + h]
                block[r], block[r + h] = (writer.builder.shuffle_vector(*pair, order) for order in (left, right))
        for r in numbers:
            writer.store(block[r], y, writer.below(j, r), i)
