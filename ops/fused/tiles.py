"""Products of small matrices inside a compiled kernel. A tile of the result stays in registers over the inner sum.

The columns of ``b`` and ``y`` are a multiple of ``LANES``. Rows may lie anywhere in memory, so ``a`` may be transposed.
"""

__all__: list[str] = []

LANES = 16  # float32 of one vector; LLVM makes several registers of it where they are shorter


def product(y, a, b):
    """y <- a b."""
    y[...] = a @ b


def add_product(y, a, b):
    """y <- y + a b."""
    y += a @ b


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
    nothing, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)

    def tile(builder, y, a, b, k, i, j, rows, vectors, add):
        """y[i : i + rows, j : j + vectors * LANES] from all k columns of a."""

        def at(array, i, j, kind=vector):
            data, (down, along) = array
            return builder.bitcast(builder.gep(data, [builder.add(builder.mul(i, down), builder.mul(j, along))]),
                                   kind.as_pointer())  # fmt: skip

        columns = [builder.add(j, i64(LANES * v)) for v in range(vectors)]
        places = [[at(y, builder.add(i, i64(r)), column) for column in columns] for r in range(rows)]
        sums = [[cgutils.alloca_once(builder, vector) for _ in columns] for _ in range(rows)]
        for place, total in zip(sum(places, []), sum(sums, [])):
            builder.store(builder.load(place, align=4) if add else ir.Constant(vector, [0.0] * LANES), total)
        with cgutils.for_range(builder, k) as loop:
            factors = [builder.load(at(b, loop.index, column), align=4) for column in columns]
            for r in range(rows):
                x = builder.load(at(a, builder.add(i, i64(r)), loop.index, real))
                x = builder.shuffle_vector(builder.insert_element(nothing, x, i32(0)), nothing, first)
                for total, factor in zip(sums[r], factors):
                    term = builder.fmul(x, factor, flags=["contract"])
                    builder.store(builder.fadd(builder.load(total), term, flags=["contract"]), total)
        for place, total in zip(sum(places, []), sum(sums, [])):
            builder.store(builder.load(total), place, align=4)

    def over(builder, start, stop, step):
        return cgutils.for_range_slice(builder, start, stop, i64(step), inc=True)

    def made(add):
        @intrinsic
        def product(typing_context, y, a, b):
            def generate(context, builder, signature, arguments):
                arrays = [make_array(kind)(context, builder, x) for kind, x in zip(signature.args, arguments)]
                laid = [(builder.bitcast(x.data, byte), cgutils.unpack_tuple(builder, x.strides)) for x in arrays]
                n, m = cgutils.unpack_tuple(builder, arrays[0].shape)
                k = cgutils.unpack_tuple(builder, arrays[1].shape)[1]

                def part(top, bottom, height, left, right, width):
                    with over(builder, left, right, width * LANES) as (j, _), over(builder, top, bottom, height) as (i, _):
                        tile(builder, *laid, k, i, j, height, width, add)

                def whole(size, step):
                    return builder.sub(size, builder.srem(size, i64(step)))

                low, wide, end = whole(n, rows), whole(m, vectors * LANES), whole(m, LANES)
                part(i64(0), low, rows, i64(0), wide, vectors)
                part(low, n, 1, i64(0), wide, vectors)
                if vectors > 1:
                    part(i64(0), low, rows, wide, end, 1)
                    part(low, n, 1, wide, end, 1)
                return context.get_dummy_value()

            return types.none(y, a, b), generate

        return product

    return {"product": made(False), "add_product": made(True)}
