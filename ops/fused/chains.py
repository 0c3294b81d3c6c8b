"""One loop made of a list of elementwise calls: intermediate values never become arrays.

    run = chain([("a", "multiply", "x", "y"), ("b", "tanh", "a"), ("c", "add", "b", 0.5)], {"x": "1", "y": "1"},
                {"c": ""}, ["b"])
    c = numpy.empty_like(x)
    (total,) = run((x.size,), x, y, c)         # writes c, and returns the sum of all b

A list is in straight-line form: each line gives a new name to a function of names before it and numbers. A function is
named as in NumPy, or it is a kernel that treats each element alone (then a line gives as many names as it has results).
"""

import ast
import math

import numpy

from tinygrad_ms.ops.fused import activations, mathematics, single
from tinygrad_ms.ops.fused.compiler import Text, compiled
from tinygrad_ms.ops.fused.jobs import Job
from tinygrad_ms.ops.fused.kernels import Each
from tinygrad_ms.ops.fused.team import part_size, pays

__all__: list[str] = []

BLOCK = 8192  # so many numbers are added up before their sum is added to the total, in order
SIGNS = {  # functions of NumPy as expressions
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}",
    "positive": "{}", "square": "{0} * {0}", "reciprocal": "1.0 / {}", "absolute": "abs({})", "sqrt": "sqrt({})",
    "greater": "1.0 if {} > {} else 0.0", "greater_equal": "1.0 if {} >= {} else 0.0",
    "less": "1.0 if {} < {} else 0.0", "less_equal": "1.0 if {} <= {} else 0.0", "equal": "1.0 if {} == {} else 0.0",
    "not_equal": "1.0 if {} != {} else 0.0", "isnan": "1.0 if {0} != {0} else 0.0",
    "where": "{1} if {0} != 0.0 else {2}",
}  # fmt: skip
TRUTH = {  # functions of truth values
    "logical_and": "{} * {}", "bitwise_and": "{} * {}", "logical_or": "1.0 if {} + {} > 0.0 else 0.0",
    "bitwise_or": "1.0 if {} + {} > 0.0 else 0.0", "logical_not": "1.0 - {}", "invert": "1.0 - {}",
}  # fmt: skip


def sign(x):
    return 1.0 if x > 0.0 else -1.0 if x < 0.0 else x


def maximum(a, b):
    """The larger number; NaN where one is NaN."""
    y = b if a < b else a
    return y if b == b else b


def minimum(a, b):
    y = b if a > b else a
    return y if b == b else b


def clip(x, least, most):
    return minimum(maximum(x, least), most)


def far_sin(x):
    """By the C library, one number at a time."""
    return math.sin(x)


def far_cos(x):
    return math.cos(x)


ANY = {"sign": sign, "maximum": maximum, "minimum": minimum, "clip": clip}
IN_SINGLE = {"exp": single.exp, "tanh": activations.tanh}
IN_DOUBLE = {name: getattr(mathematics, name) for name in ("expm1", "log", "log1p", "sin", "cos")}
FAR = {"sin": far_sin, "cos": far_cos}  # of numbers above mathematics.FAR
KNOWN = {  # functions that a list may name, by dtype
    "float64": {*SIGNS, *TRUTH, *ANY},
    "float32": {*SIGNS, *TRUTH, *ANY, *IN_SINGLE, *IN_DOUBLE},
}


COMPILED: dict = {}  # functions by their texts


class Chain:
    """The loop of a list; see ``chain``."""

    def __init__(self, lines, inputs, outputs, sums, real, truths):
        self.lines, self.inputs, self.outputs, self.sums, self.real = lines, inputs, outputs, sums, real
        self.levels = max(len(pattern) for pattern in inputs.values())
        self.truths, self.job = truths, None  # job: the same for several threads
        if (text := self.text()) not in COMPILED:
            COMPILED[text] = compiled("chain", text, {"contract", "reassoc"})
        self.function = COMPILED[text]

    def text(self) -> str:
        text = Text(self.real)
        text.parts["sqrt"] = "from math import sqrt"
        variants = ["body"] + ["careful"] * any(op in FAR for _, op, *_ in self.lines)
        bodies = [self.body(text, name, name == "careful") for name in variants]
        for name, body in zip(variants, bodies):
            text.parts[name] = body
        indices = [f"i{k}" for k in range(self.levels)]
        rows = [name for name, pattern in self.inputs.items() if "1" in pattern]
        made = [f"out_{name}" for name, into in self.outputs.items() if not into]

        def item(name, pattern):
            chosen = ", ".join(i for i, there in zip(indices, pattern) if there == "1")
            return f"{'part_' if self.levels == 1 else ''}{name}[{chosen}]"

        sizes = [f"size{k}" for k in range(1 if self.levels > 1 else 0, self.levels)]
        given = ["start", "stop", *sizes, *self.inputs, *made, *(["totals"] if self.sums else [])]
        values = [self.number(item(x, pattern)) if x in rows else x for x, pattern in self.inputs.items()]
        results = [*(f"y_{x}" for x in self.outputs), *(f"v{k}" for k in range(len(self.sums))), "far"]
        code = [f"def chain({', '.join(given)}):"]
        code += [f"    {name} = {self.number(name)}" for name in self.inputs if name not in rows]
        if self.levels > 1:
            code.append("    for i0 in range(start, stop):")
            loops = [f"for {i} in range({size}):" for i, size in zip(indices[1:], sizes)]
        else:
            code.append("    for block in range(start, stop):")
            code.append(f"        last = min(size0, (block + 1) * {BLOCK})")
            code += [f"        part_{x} = {x}[block * {BLOCK} : last]" for x in (*rows, *made)]
            loops = [f"for i0 in range(last - block * {BLOCK}):"]
        here = "block" if self.levels == 1 else "i0"
        for variant in variants:
            pad = "        " if variant == "body" else "            "
            code += [] if variant == "body" else ["        if found != 0.0:"]
            code += [f"{pad}s{k} = 0.0" for k in range(len(self.sums))]
            code += [f"{pad}found = 0.0"] if len(variants) > 1 and variant == "body" else []
            for loop in loops:
                code.append(pad + loop)
                pad += "    "
            code.append(f"{pad}{', '.join(results)} = {variant}({', '.join(values)})")
            for x, into in self.outputs.items():
                target = item(*((into, self.inputs[into]) if into else (f"out_{x}", "1" * self.levels)))
                code.append(f"{pad}{target} = y_{x}" + (" != 0.0" if x in self.truths else ""))
            code += [f"{pad}s{k} += float64(v{k})" for k in range(len(self.sums))]
            code += [f"{pad}found += far"] if len(variants) > 1 and variant == "body" else []
            code += [f"{pad[4:]}wide_loop(2)"] if self.levels == 1 else []
        code += [f"        totals[{k}, {here}] = s{k}" for k in range(len(self.sums))]
        return text.whole("chain", "\n".join(code))

    def number(self, text):
        return f"{self.real}({text})"

    def body(self, text, name, careful):
        """The function of one element: its outputs, the terms of the sums, whether it left the range."""
        code, far = [], []
        for names, op, *operands in self.lines:
            values = [a if isinstance(a, str) else text.visit_Constant(ast.Constant(float(a))) for a in operands]
            values = [a if isinstance(a, str) else ast.unparse(a) for a in values]
            if isinstance(op, Each) or op in IN_DOUBLE:
                function = op.body if isinstance(op, Each) else FAR[op] if careful and op in FAR else IN_DOUBLE[op]
                wide = not isinstance(op, Each) or op.wide
                inner = Text("float64" if wide else self.real)
                inner.parts = text.parts
                call = f"{inner.add(function)}({', '.join(f'{inner.real}({value})' for value in values)})"
                names = (names,) if isinstance(names, str) else names
                if len(names) == 1:
                    code.append(f"{names[0]} = {self.number(call)}")
                else:
                    code.append(f"{', '.join(names)} = {call}")
                    code += [f"{x} = {self.number(x)}" for x in names]
            elif op in ANY or op in IN_SINGLE:
                code.append(f"{names} = {text.add({**ANY, **IN_SINGLE}[op])}({', '.join(values)})")
            else:
                form = {**SIGNS, **TRUTH}[op]
                for constant in ("1.0", "0.0"):
                    form = form.replace(constant, self.number(constant))
                code.append(f"{names} = {form.format(*values)}")
            far += [f"abs({values[0]}) > {mathematics.FAR}"] if op in FAR and not careful else []
        results = [*self.outputs, *self.sums, f"{self.number('1.0')} if {' or '.join(far)} else {self.number('0.0')}"]
        results[-1] = results[-1] if far else self.number("0.0")
        lines = [*code, f"return {', '.join(results)}"]
        return "\n".join(["@as_written", f"def {name}({', '.join(self.inputs)}):", *(f"    {line}" for line in lines)])

    def prepare(self, samples):
        """Compile it, or find it on disk, for arrays of these kinds. No array is read."""
        totals = [numpy.zeros((1, 1))] if self.sums else []
        self.function(0, 0, *[2] * max(self.levels - 1, 1), *samples, *totals)

    def __call__(self, sizes, *given):
        """Run it; the sums, in float64. sizes: of the levels. given: the inputs, then the arrays of new outputs."""
        steps = sizes[0] if self.levels > 1 else -(-sizes[0] // BLOCK)
        rest = sizes[1:] or sizes
        more = (numpy.empty((len(self.sums), steps)),) if self.sums else ()
        if pays(math.prod(sizes)):
            if self.job is None:
                from numba import typeof

                kinds = [typeof(a) for a in (0, steps, *rest, *given, *more)]
                self.job = Job(self.function, kinds, ["start", "stop"] + ["whole"] * (len(kinds) - 2))
            self.job(part_size(steps), steps, *rest, *given, *more)
        else:
            self.function(0, steps, *rest, *given, *more)
        return more[0].sum(axis=1) if more else more


def chain(lines, inputs, outputs, sums=(), real="float32", truths=()):
    """A compiled ``Chain``; None if a line names a function that is not in ``KNOWN``.

    lines: tuples (new name, function, names or numbers). inputs: for each name, which levels of the loop it has: "1" an
    array of one level, "11" a matrix, "01" one of its rows, "10" one of its columns, "00" a number. outputs: for each
    name, the input that it is written over, or "": in a new array. sums: the names of which the call returns the sums
    over all elements. real: the dtype; truths: the outputs that are arrays of bool.
    Arrays are contiguous and do not overlap. Compiling takes a second or more; later the loop is found on disk.
    Arithmetic, comparisons, roots and choices round as in NumPy. Sums are taken in float64, in blocks. In float32 exp
    and tanh are within 4 ulp, and the other functions within 1. In float64 there are no such functions. There are no
    warnings.
    """
    if any(not isinstance(op, Each) and op not in KNOWN[real] for _, op, *_ in lines):
        return None
    return Chain(list(lines), dict(inputs), dict(outputs), list(sums), real, list(truths))
