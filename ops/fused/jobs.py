"""A kernel as a job of several threads: the parts of its arguments, and how the threads of BLAS get them."""

import sys
import warnings
from functools import cached_property

import numpy

from tinygrad_ms.ops.fused.compiler import compiled
from tinygrad_ms.ops.fused.team import members, team
from tinygrad_ms.ops.fused.threads import deal_out, get_num_threads

__all__: list[str] = []

AHEAD = 4  # words before those of the arguments: the next part, the number of parts, their length, the length of all


class Job:
    """A compiled function that the team calls on parts of its arguments.

    how: what a call gets of each argument, for part i, which is the rows from ``start`` to ``stop``. "part": these rows
    of an array. "columns": these columns. "flat": the rows of a flat array, with so many numbers in a row. "own":
    row i. "piece": a flat array from part i on. "whole": the argument itself. "start", "stop": the numbers.
    """

    def __init__(self, function, kinds, how):
        self.function, self.kinds, self.how = function, kinds, how  # kinds: numba's types of its arguments

    @cached_property
    def code(self):
        """What starts the team, the address of what its members run, and for how many words; None for no such numba."""
        try:
            text, size = self.text()
            text = f"# {self.function.__module__}\n{text}"
            lead = compiled("lead", text, set(), sys.modules[__name__], run=self.function)
            return lead, sys.modules[lead.__module__].job.address, size
        except Exception as error:  # an error of numba; threads of Python do the work
            text = f"tinygrad_ms: {self.function.__name__} cannot run on the threads of BLAS: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=5)
            return None

    def text(self) -> tuple[str, int]:
        """``lead`` writes down where the arguments lie. ``job`` reads it, and takes parts until none is left."""
        forms = {
            "part": "{0}[start:stop]", "columns": "{0}[:, start:stop]", "flat": "{0}[start * u{0} : stop * u{0}]",
            "own": "{0}[i]", "piece": "{0}[i * u{0} :]", "whole": "{0}", "start": "start", "stop": "stop",
        }  # fmt: skip
        names: list[str] = []
        write, read, given, place = [], [], [], AHEAD

        def number(name, kind):
            real, word = str(kind) if str(kind).startswith("float") else "", f"word(words, {place})"
            names.append(name)
            write.append(f"words[{place}] = " + (f"bits(float64({name}))" if real else name))
            read.append(f"{name} = " + (f"{real}(from_bits({word}))" if real else word))
            return place + 1

        for k, (kind, how) in enumerate(zip(self.kinds, self.how)):
            given.append(forms[how].format(f"a{k}"))
            if hasattr(kind, "ndim"):
                ndim = kind.ndim + (how == "own")
                about = f"{kind.dtype} {ndim} {kind.layout} {'written' if kind.mutable else 'read'}"
                names.append(f"a{k}")
                write.append(f"put_array(words, {place}, a{k}, {about!r})")
                read.append(f"a{k} = array_at(words, {place}, {about!r})")
                place += 1 + 2 * ndim
                place = number(f"ua{k}", "a length") if how in ("flat", "piece") else place
            elif how == "whole":
                place = number(f"a{k}", kind)
        ahead = "total // step + (total % step > 0)", "step", "total"
        bodies = {
            "@job\ndef job(words):": [
                "wide_loop(0)", *read, "i = take(words)", "while i < word(words, 1):", "    start = i * word(words, 2)",
                "    stop = min(start + word(words, 2), word(words, 3))", f"    run({', '.join(given)})",
                "    i = take(words)",
            ],
            f"@entry\ndef lead(words, team, job, threads, step, total, {', '.join(names)}):": [
                "words[0] = 0", *(f"words[{k}] = {value}" for k, value in enumerate(ahead, 1)), *write,
                "call_team(team, threads, job, words)",
            ],
        }  # fmt: skip
        return "\n\n".join("\n    ".join([head, *lines]) for head, lines in bodies.items()), place

    def __call__(self, step, total, *arguments):
        """Run it on parts of ``step`` rows of ``total``. An argument for "flat" or "piece" is followed by a length."""
        if ((threads := members()) > 1 or get_num_threads() == 1) and (code := self.code):
            lead, job, size = code
            lead(numpy.empty(size, "int64"), (team() or [0])[0], job, threads, step, total, *arguments)
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
            elif how == "columns":
                yield a[:, start:stop]
            else:
                yield a[start:stop] if how == "part" else a[i] if how == "own" else a


def intrinsics() -> dict:
    """What a job needs of numba."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array, populate_array

    i32, i64 = ir.IntType(32), ir.IntType(64)

    def array_type(about):
        if not isinstance(about, types.StringLiteral):
            return None  # numba tries this when it has seen an error
        dtype, ndim, layout, use = about.literal_value.split()
        dtype = types.boolean if dtype == "bool" else getattr(types, dtype)
        return types.Array(dtype, int(ndim), layout, readonly=use == "read")

    @intrinsic(prefer_literal=True)
    def array_at(typing_context, words, place, about):
        """The array whose address, shape and steps in memory stand in the words from ``place`` on."""
        kind = array_type(about)

        def generate(context, builder, signature, arguments):
            places = [i64(place.literal_value + k) for k in range(1 + 2 * kind.ndim)]
            address, *lies = (builder.load(builder.gep(arguments[0], [k])) for k in places)
            made = make_array(kind)(context, builder)
            item = context.get_abi_sizeof(context.get_data_type(kind.dtype))
            populate_array(
                made, data=builder.inttoptr(address, made.data.type), shape=lies[: kind.ndim],
                strides=lies[kind.ndim :], itemsize=context.get_constant(types.intp, item), meminfo=None,
            )  # fmt: skip
            return made._getvalue()

        return kind(words, place, about), generate

    @intrinsic(prefer_literal=True)
    def put_array(typing_context, words, place, array, about):
        """Write down what ``array_at`` reads."""
        kind = array_type(about)
        if kind is None:
            return None
        if (array.dtype, array.ndim) != (kind.dtype, kind.ndim) or kind.layout not in ("A", array.layout):
            raise TypingError(f"the kernel was made for {kind}, and it gets {array}")

        def generate(context, builder, signature, arguments):
            to = make_array(words)(context, builder, arguments[0]).data
            a = make_array(array)(context, builder, arguments[2])
            lies = [*cgutils.unpack_tuple(builder, a.shape), *cgutils.unpack_tuple(builder, a.strides)]
            for k, value in enumerate([builder.ptrtoint(a.data, i64), *lies], place.literal_value):
                builder.store(value, builder.gep(to, [i64(k)]))
            return context.get_dummy_value()

        return types.none(words, place, array, about), generate

    @intrinsic
    def call_team(typing_context, team, threads, job, words):
        """gotoblas_pthread(threads, job, words, 0); job(words) for one thread."""

        def generate(context, builder, signature, arguments):
            team, threads, job, array = arguments
            data = builder.ptrtoint(make_array(words)(context, builder, array).data, i64)
            several, alone = (ir.FunctionType(i32, kinds).as_pointer() for kinds in ([i32, i64, i64, i32], [i64]))
            with builder.if_else(builder.icmp_signed(">", threads, i64(1))) as (then, otherwise):
                with then:
                    builder.call(builder.inttoptr(team, several), [builder.trunc(threads, i32), job, data, i32(0)])
                with otherwise:
                    builder.call(builder.inttoptr(job, alone), [data])
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, types.int64, words), generate

    @intrinsic
    def take(typing_context, words):
        """The next part. No other thread gets it."""

        def generate(context, builder, signature, arguments):
            return builder.atomic_rmw("add", arguments[0], i64(1), "monotonic")

        return types.int64(words), generate

    @intrinsic
    def word(typing_context, words, place):
        def generate(context, builder, signature, arguments):
            return builder.load(builder.gep(arguments[0], [arguments[1]]))

        return types.int64(words, types.int64), generate

    return {"array_at": array_at, "put_array": put_array, "call_team": call_team, "take": take, "word": word}
