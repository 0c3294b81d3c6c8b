"""What bodies cannot say in restricted Python: bits of floats, whole lines of a cache, hints for loops.

Each function is here twice: as a function of Python, and for numba in a few instructions.
"""

import math
import re
import struct
from contextlib import suppress
from fractions import Fraction
from operator import getitem

__all__: list[str] = []


def bits(x):
    """The bits of a float64 as an integer."""
    return struct.unpack("<q", struct.pack("<d", x))[0]


def from_bits(n):
    """The float64 with the lowest 64 of these bits."""
    return struct.unpack("<d", struct.pack("<Q", n % 2**64))[0]


def two_to(n):
    """2^n as a float, for an integer n. It is made of bits; out of range it is 0 or infinite."""
    return math.inf if n > 1023 else 2.0**n if n > -1023 else 0.0


def left_of(p, a, b):
    """a b - p in float32, rounded once. That is the rounding error of p where p = a b."""
    return float(Fraction(a) * Fraction(b) - Fraction(p)) if math.isfinite(p) else math.nan


def two_at(t):
    """2^n in float32, for t = n + 127 + 1.5 2^23, whose lowest bits are n + 127."""
    return 2.0 ** (t - 12583039.0)


def rank(x):
    """A 32-bit integer that grows with the float32 x. For NaN it is the largest or the least one."""
    n = struct.unpack("<i", struct.pack("<f", x))[0]
    return n if n >= 0 else n ^ 0x7FFFFFFF


def from_rank(n):
    """The float32 whose ``rank`` this is."""
    return struct.unpack("<f", struct.pack("<i", n if n >= 0 else n ^ 0x7FFFFFFF))[0]


def wide_loop(together):
    """For the loop before it: the longest vectors, and ``together`` of them at a time, so that none has to wait.

    0: the compiler chooses how many.
    """


def at(a, j):
    """a[j], or a if it is a number."""
    return a[j] if hasattr(a, "ndim") and a.ndim else a


def line(a):
    """How many of its numbers fill a line of a cache, 64 bytes."""
    return 64 // a.itemsize


def skew(a):
    """How many numbers behind the begin of a line the array begins."""
    return a.ctypes.data % 64 // a.itemsize


def put_line(part, to, j):
    """A whole line of ``to``, from j on, is that of part. It is stored past the caches."""
    to[j : j + line(to)] = part[j : j + line(to)]


def fetch(a, j):
    """Element j will be read soon: its line comes into the first cache. It may lie behind the end."""


def settle():
    """Other threads see the lines that ``put_line`` wrote before."""


def intrinsics() -> dict:
    """The functions above for numba, in a few instructions each."""
    return {**arithmetic(), **of_loops()}


def arithmetic() -> dict:
    """Those of numbers."""
    from llvmlite import ir
    from llvmlite.binding import get_host_cpu_features
    from numba import types
    from numba.extending import intrinsic

    def made(source, target, generate):
        def typed(typing_context, value):
            known = target(source) if source else value(value)
            return known, lambda context, builder, signature, arguments: generate(builder, arguments[0])

        return intrinsic(typed)

    i32, i64 = ir.IntType(32), ir.IntType(64)

    def folded(builder, n):
        sign = builder.ashr(n, i32(31))
        return builder.xor(n, builder.and_(sign, i32(0x7FFFFFFF)))

    def power(builder, t):
        """The lowest bits go where the exponent stands."""
        digits, whole = (52, i64) if t.type == ir.DoubleType() else (23, i32)
        return builder.bitcast(builder.shl(builder.bitcast(t, whole), whole(digits)), t.type)

    def power_of(builder, n):
        """Added to that constant, n is rounded into the lowest bits."""
        shift = 1.5 * 2.0**52 + 1023 if n.type == ir.DoubleType() else 1.5 * 2.0**23 + 127
        return power(builder, builder.fadd(n, ir.Constant(n.type, shift)))

    @intrinsic
    def left_of(typing_context, p, a, b):
        def generate(context, builder, signature, arguments):
            p, a, b = arguments
            if get_host_cpu_features().get("fma", True):
                return builder.fma(a, b, builder.fneg(p))
            p, a, b = (builder.fpext(x, ir.DoubleType()) for x in arguments)
            return builder.fptrunc(builder.fsub(builder.fmul(a, b), p), ir.FloatType())

        return types.float32(types.float32, types.float32, types.float32), generate

    return {
        "left_of": left_of,
        "two_to": made(None, None, power_of),
        "two_at": made(None, None, power),
        "bits": made(types.float64, types.int64, lambda b, x: b.bitcast(x, i64)),
        "from_bits": made(types.int64, types.float64, lambda b, n: b.bitcast(n, ir.DoubleType())),
        "rank": made(types.float32, types.int32, lambda b, x: folded(b, b.bitcast(x, i32))),
        "from_rank": made(types.int32, types.float32, lambda b, n: b.bitcast(folded(b, n), ir.FloatType())),
    }


def of_loops() -> dict:
    """Those of loops, and of stores past the caches."""
    from llvmlite import ir
    from llvmlite.binding import get_host_cpu_features
    from numba import types
    from numba.extending import intrinsic

    i32, i64 = ir.IntType(32), ir.IntType(64)

    def jump_back(blocks):
        """The last jump to the head of a loop. numba gives its blocks the numbers of their code."""
        found: dict = {}
        for block in blocks:
            jump = block.terminator
            if getattr(jump, "opname", "") == "br" and len(jump.operands) == 1:
                here, there = (int(re.findall(r"\d+", b.name)[0]) for b in (block, *jump.operands))
                found |= {here: jump} if there < here else {}
        return found[max(found)]

    @intrinsic(prefer_literal=True)
    def wide_loop(typing_context, together):
        def generate(context, builder, signature, arguments):
            with suppress(
                TypeError, AttributeError, ValueError, IndexError
            ):  # other versions of numba or llvmlite: it is slower
                set.add(builder.function.attributes, '"prefer-vector-width"="512"')
                if together.literal_value:
                    jump, module = jump_back(builder.function.blocks), builder.module
                    count = together.literal_value // (1 if get_host_cpu_features().get("avx512f") else 2)
                    note = module.add_metadata(["llvm.loop.interleave.count", i32(count)])
                    loop = module.add_metadata([note, i32(len(module.metadata))])
                    loop.operands = (loop, note)
                    jump.set_metadata("llvm.loop", loop)
            return context.get_dummy_value()

        return types.none(together), generate

    @intrinsic
    def line(typing_context, a):
        return types.intp(a), lambda context, builder, *_: i64(512 // a.dtype.bitwidth)

    @intrinsic
    def skew(typing_context, a):
        def generate(context, builder, signature, arguments):
            start = builder.ptrtoint(context.make_array(a)(context, builder, arguments[0]).data, i64)
            return builder.udiv(builder.and_(start, i64(63)), i64(a.dtype.bitwidth // 8))

        return types.intp(a), generate

    @intrinsic
    def put_line(typing_context, part, to, j):
        def generate(context, builder, signature, arguments):
            *arrays, place = arguments
            line = ir.VectorType(context.get_value_type(to.dtype), 512 // to.dtype.bitwidth).as_pointer()
            source, target = (
                builder.bitcast(builder.gep(context.make_array(kind)(context, builder, a).data, [place]), line)
                for kind, a in zip((part, to), arrays)
            )
            store = builder.store(builder.load(source, align=4), target, align=64)
            store.set_metadata("nontemporal", builder.module.add_metadata([i32(1)]))
            return context.get_dummy_value()

        return types.none(part, to, types.intp), generate

    @intrinsic
    def fetch(typing_context, a, j):
        def generate(context, builder, signature, arguments):
            array, place = arguments
            start = builder.gep(context.make_array(a)(context, builder, array).data, [place])
            start, numbers = builder.bitcast(start, ir.IntType(8).as_pointer()), [i32(0), i32(3), i32(1)]
            kinds = ir.FunctionType(ir.VoidType(), [start.type, i32, i32, i32])
            prefetch = builder.module.declare_intrinsic("llvm.prefetch", [start.type], kinds)
            builder.call(prefetch, [start, *numbers])  # to read, to the nearest cache, data
            return context.get_dummy_value()

        return types.none(a, types.intp), generate

    @intrinsic
    def settle(typing_context):
        def generate(context, builder, signature, arguments):
            builder.fence("seq_cst")
            return context.get_dummy_value()

        return types.none(), generate

    @intrinsic
    def at(typing_context, a, j):
        if not hasattr(a, "ndim"):
            return a(a, j), lambda context, builder, signature, arguments: arguments[0]
        known = typing_context.resolve_value_type(getitem).get_call_type(typing_context, (a, j), {})
        return known, lambda context, builder, _, arguments: context.get_function(getitem, known)(builder, arguments)

    return {
        "at": at, "wide_loop": wide_loop, "line": line, "skew": skew, "put_line": put_line, "fetch": fetch,
        "settle": settle,
    }  # fmt: skip
