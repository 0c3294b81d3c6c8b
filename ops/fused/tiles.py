"""Products of small matrices inside a compiled kernel. A tile of the result stays in registers over the inner sum.

The matrices are 2-d arrays of float32 that do not overlap. Each row of ``b``, ``x`` and ``y`` lies without gaps, and
has a multiple of ``LANES`` numbers. ``a`` may lie in any way, so it may be a transposed view.
"""

from itertools import product as pairs

__all__: list[str] = []

LANES = 16  # float32 in one vector; LLVM makes several registers of it where they are shorter


def product(y, a, b):
    """y <- a b."""
    y[...] = a @ b


def add_product(y, a, b):
    """y <- y + a b."""
    y += a @ b


def turn(y, x):
    """y <- x^T."""
    y[...] = x.T


def intrinsics() -> dict:
    """The functions above for numba."""
    from llvmlite import ir
    from llvmlite.binding import get_host_cpu_features
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    rows, vectors = (8, 2) if get_host_cpu_features().get("avx512f") else (4, 1)  # of a tile; they fill the registers
    real, byte, i32, i64 = ir.FloatType(), ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(real, LANES)
    nothing = ir.Constant(vector, ir.Undefined)

    def order(numbers):
        return ir.Constant(ir.VectorType(i32, LANES), list(numbers))

    def at(builder, array, i, j, kind=vector):
        """The address of element i, j; ``array``: (address, steps in bytes, shape)."""
        data, (down, along), _ = array
        byte_at = builder.gep(data, [builder.add(builder.mul(i, down), builder.mul(j, along))])
        return builder.bitcast(byte_at, kind.as_pointer())

    def below(builder, i, k):
        return builder.add(i, i64(k))

    def over(builder, start, stop, step):
        return cgutils.for_range_slice(builder, start, stop, i64(step), inc=True)

    def made(generate):
        """A function of 2-d arrays, from what writes its instructions."""

        def lower(context, builder, signature, arguments):
            arrays = [make_array(kind)(context, builder, x) for kind, x in zip(signature.args, arguments)]
            unpack = lambda numbers: cgutils.unpack_tuple(builder, numbers)
            generate(builder, *((builder.bitcast(x.data, byte), unpack(x.strides), unpack(x.shape)) for x in arrays))
            return context.get_dummy_value()

        return lower

    def tile(builder, y, a, b, add, i, j, height, width):
        """The tile of y from i, j on: ``height`` rows, ``width`` vectors."""
        columns = [below(builder, j, LANES * v) for v in range(width)]
        lines = [below(builder, i, r) for r in range(height)]
        sums = [[cgutils.alloca_once(builder, vector) for _ in columns] for _ in lines]
        for r, v in pairs(range(height), range(width)):
            start = builder.load(at(builder, y, lines[r], columns[v]), align=4) if add else ir.Constant(vector, [0.0] * LANES)
            builder.store(start, sums[r][v])
        with cgutils.for_range(builder, a[2][1]) as loop:
            factors = [builder.load(at(builder, b, loop.index, column), align=4) for column in columns]
            for line, totals in zip(lines, sums):
                x = builder.insert_element(nothing, builder.load(at(builder, a, line, loop.index, real)), i32(0))
                x = builder.shuffle_vector(x, nothing, order([0] * LANES))
                for total, factor in zip(totals, factors):
                    term = builder.fmul(x, factor, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
        for r, v in pairs(range(height), range(width)):
            builder.store(builder.load(sums[r][v]), at(builder, y, lines[r], columns[v]), align=4)

    def tiles(add):
        def generate(builder, y, a, b):
            n, m = y[2]
            low, wide = (builder.sub(size, builder.srem(size, i64(step))) for size, step in ((n, rows), (m, vectors * LANES)))
            for (left, right, width), (top, bottom, height) in pairs(
                ((i64(0), wide, vectors), (wide, m, 1))[:vectors], ((i64(0), low, rows), (low, n, 1))
            ):
                with over(builder, left, right, width * LANES) as (j, _), over(builder, top, bottom, height) as (i, _):
                    tile(builder, y, a, b, add, i, j, height, width)

        return generate

    def turned(builder, y, x):
        """Blocks of LANES rows and columns; in stage h of each, its parts of h rows and columns change places."""
        n, m = x[2]
        with over(builder, i64(0), n, LANES) as (i, _), over(builder, i64(0), m, LANES) as (j, _):
            block = [builder.load(at(builder, x, below(builder, i, r), j), align=4) for r in range(LANES)]
            for h in (1, 2, 4, 8):
                for r in [r for r in range(LANES) if not r & h]:
                    upper, lower = block[r], block[r + h]
                    left = order(k if not k & h else k - h + LANES for k in range(LANES))
                    right = order(k + h if not k & h else k + LANES for k in range(LANES))
                    block[r], block[r + h] = (builder.shuffle_vector(upper, lower, o) for o in (left, right))
            for r in range(LANES):
                builder.store(block[r], at(builder, y, below(builder, j, r), i), align=4)

    @intrinsic
    def product(typing_context, y, a, b):
        return types.none(y, a, b), made(tiles(add=False))

    @intrinsic
    def add_product(typing_context, y, a, b):
        return types.none(y, a, b), made(tiles(add=True))

    @intrinsic
    def turn(typing_context, y, x):
        return types.none(y, x), made(turned)

    return {"product": product, "add_product": add_product, "turn": turn}
