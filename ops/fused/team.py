"""Compiled kernels on the threads of BLAS, so that one team of threads does all the work of a program.

Idle threads of OpenBLAS wait for work in a loop. Other threads would share the processors with that loop, and be slower
than one thread alone. So kernels run where products of matrices run. No lock of the interpreter is needed on the way:
a member of the team takes the next part of a call until none is left.
"""

import ctypes
import importlib
import sys
from functools import cache, cached_property
from typing import Any

import numpy

from tinygrad_ms.ops.fused.compiler import compiled
from tinygrad_ms.ops.fused.threads import deal_out, get_num_threads

__all__: list[str] = []

FEW, MANY = 40_000, 100_000  # elements from which threads pay, those of BLAS and those of Python
WORDS = 128  # as many as a call needs, and more
AHEAD = 4  # words before those of the arguments: the next part, the number of parts, their length, the length of all
NAMES = (
    "scipy_openblas_{}64_",
    "openblas_{}64_",
    "scipy_openblas_{}",
    "openblas_{}",
)  # in NumPy's own builds, and others


@cache
def team() -> Any:
    """(A function of OpenBLAS that runs a function on several threads, how many it has); None for other libraries."""
    try:
        library = ctypes.CDLL(
            importlib.import_module("numpy._core._multiarray_umath").__file__
        )  # with all that it is linked to
        run = library.gotoblas_pthread
        (known,) = [name for name in NAMES if hasattr(library, name.format("get_parallel"))][:1]
        one_kind = getattr(library, known.format("get_parallel"))() == 1  # threads of its own, not those of OpenMP
    except (AttributeError, OSError, ValueError):
        return None
    return (
        (ctypes.cast(run, ctypes.c_void_p).value, getattr(library, known.format("get_num_threads")))
        if one_kind
        else None
    )


def members() -> int:
    """How many threads of the team may work on a call; 1: there is no team."""
    threads = get_num_threads()
    return min(threads, found[1]()) if threads > 1 and (found := team()) else 1


def pays(elements: int) -> bool:
    """Whether several threads are faster than one for a kernel on so many elements."""
    return get_num_threads() > 1 and elements >= (FEW if members() > 1 else MANY)


def part_size(elements: int, unit: int = 1) -> int:
    """The number of elements of a part, a multiple of ``unit``: so many that each thread may take four parts."""
    return max(-(-elements // (4 * get_num_threads() * unit)), 1) * unit


class Job:
    """A compiled function that the team calls on parts of its arguments.

    how: what a call gets of each argument, for part i, which is the rows from ``start`` to ``stop``. "part": these rows
    of an array. "flat": the same of a flat array, with so many numbers in a row. "own": row i. "piece": a flat array
    from part i on. "whole": the argument itself. "start", "stop": the numbers.
    """

    def __init__(self, function, how):
        self.function, self.how = function, how

    @cached_property
    def code(self) -> tuple[Any, int]:
        """The function that starts the team, and the address of what its members run. Made at first use."""
        text = f"# {self.function.__module__}\n{self.text()}"
        lead = compiled("lead", text, set(), run=self.function, **intrinsics())
        return lead, sys.modules[lead.__module__].job.address

    def text(self) -> str:
        """``lead`` writes down where the arguments lie. ``job`` reads it, and takes parts until none is left."""
        forms = {"part": "{0}[start:stop]", "flat": "{0}[start * u{0} : stop * u{0}]", "own": "{0}[i]",
                 "piece": "{0}[i * u{0} :]", "whole": "{0}", "start": "start", "stop": "stop"}  # fmt: skip
        names, values, read, given, place = [], [], [], [], AHEAD
        for k, (kind, how) in enumerate(zip(self.function.signatures[0], self.how)):
            given.append(forms[how].format(f"a{k}"))
            if how in ("start", "stop"):
                continue
            names.append(f"a{k}")
            if hasattr(kind, "ndim"):
                ndim = kind.ndim + (how == "own")
                values.append(f"put_array(words, {place}, a{k})")
                about = f"{kind.dtype} {ndim} {kind.layout} {'written' if kind.mutable else 'read'}"
                read.append(f"a{k} = array_at(words, {place}, {about!r})")
                place += 1 + 2 * ndim
            if how in ("flat", "piece"):
                names.append(f"ua{k}")
                kind = "a length"
            if not hasattr(kind, "ndim"):
                word = f"word(words, {place})"
                name, real = names[-1], str(kind) if str(kind).startswith("float") else ""
                values.append(f"words[{place}] = " + (f"bits(float64({name}))" if real else name))
                read.append(f"{name} = " + (f"{real}(from_bits({word}))" if real else word))
                place += 1
        loop = ["i = take(words)", "while i < word(words, 1):", "    start = i * word(words, 2)",
                "    stop = min(start + word(words, 2), word(words, 3))", f"    run({', '.join(given)})",
                "    i = take(words)"]  # fmt: skip
        begin = ["words[0] = 0", "words[1] = (total + step - 1) // step", "words[2] = step", "words[3] = total"]
        bodies = {
            "@job\ndef job(words):": [*read, *loop],
            f"@entry\ndef lead(words, run, job, threads, step, total, {', '.join(names)}):": [
                *begin, *values, "call_with(run, threads, job, words)",
            ],
        }  # fmt: skip
        return "\n\n".join("\n    ".join([head, *lines]) for head, lines in bodies.items())

    def __call__(self, step, total, *arguments):
        """Run it on parts of ``step`` rows of ``total``. An argument for "flat" or "piece" is followed by a length."""
        threads = members()
        if threads > 1:
            lead, job = self.code
            lead(numpy.empty(WORDS, "int64"), team()[0], job, threads, step, total, *arguments)
        else:
            deal_out(lambda i: self.function(*self.part(i, step, total, arguments)), -(-total // step))

    def part(self, i, step, total, arguments):
        """What ``job`` gives to the function for part i."""
        start, stop, given = i * step, min((i + 1) * step, total), iter(arguments)
        for how in self.how:
            if how in ("start", "stop"):
                yield start if how == "start" else stop
                continue
            a = next(given)
            if how in ("flat", "piece"):
                length = next(given)
                yield a[start * length : stop * length] if how == "flat" else a[i * length :]
            else:
                yield a[start:stop] if how == "part" else a[i] if how == "own" else a


def intrinsics() -> dict:
    """What a job needs of numba."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array, populate_array

    i64 = ir.IntType(64)

    @intrinsic(prefer_literal=True)
    def array_at(typing_context, words, place, about):
        """The array whose address, shape and steps in memory stand in the words from ``place`` on."""
        dtype, ndim, layout, use = about.literal_value.split()
        kind = types.Array(
            types.boolean if dtype == "bool" else getattr(types, dtype),
            int(ndim),
            layout,
            readonly=use == "read",
            aligned=True,
        )

        def generate(context, builder, signature, arguments):
            first = place.literal_value
            read = [builder.load(builder.gep(arguments[0], [i64(first + k)])) for k in range(1 + 2 * int(ndim))]
            made = make_array(kind)(context, builder)
            item = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
            pointer = builder.inttoptr(read[0], made.data.type)
            shape, steps = read[1 : 1 + int(ndim)], read[1 + int(ndim) :]
            populate_array(made, data=pointer, shape=shape, strides=steps, itemsize=item, meminfo=None)
            return made._getvalue()

        return kind(words, place, about), generate

    @intrinsic
    def take(typing_context, words):
        """The next part. No other thread gets it."""

        def generate(context, builder, signature, arguments):
            return builder.atomic_rmw("add", arguments[0], i64(1), "monotonic")

        return types.int64(words), generate

    @intrinsic(prefer_literal=True)
    def put_array(typing_context, words, place, array):
        """Write down what ``array_at`` reads."""

        def generate(context, builder, signature, arguments):
            to = make_array(words)(context, builder, arguments[0]).data
            a, first = make_array(array)(context, builder, arguments[2]), place.literal_value
            lies = [*cgutils.unpack_tuple(builder, a.shape), *cgutils.unpack_tuple(builder, a.strides)]
            for k, value in enumerate([builder.ptrtoint(a.data, i64), *lies]):
                builder.store(value, builder.gep(to, [i64(first + k)]))
            return context.get_dummy_value()

        return types.none(words, place, array), generate

    @intrinsic
    def call_with(typing_context, run, threads, job, words):
        """gotoblas_pthread(threads, job, words, 0)."""

        def generate(context, builder, signature, arguments):
            run, threads, job, words_ = arguments
            data = builder.ptrtoint(make_array(words)(context, builder, words_).data, i64)
            i32 = ir.IntType(32)
            kind = ir.FunctionType(i32, [i32, i64, i64, i32]).as_pointer()
            builder.call(builder.inttoptr(run, kind), [builder.trunc(threads, i32), job, data, i32(0)])
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, types.int64, words), generate

    @intrinsic
    def word(typing_context, words, place):
        def generate(context, builder, signature, arguments):
            return builder.load(builder.gep(arguments[0], [arguments[1]]))

        return types.int64(words, types.int64), generate

    return {"array_at": array_at, "put_array": put_array, "take": take, "word": word, "call_with": call_with}
