"""One loop made of a list of elementwise NumPy calls: intermediate values never become arrays.

    run = chain([("a", "multiply", "x", "y"), ("b", "tanh", "a"), ("c", "add", "b", 0.5)], ["x", "y"], ["c"], ["b"])
    c, total = run(x, y)               # c, and the sum of all b

A list is in straight-line form: each line gives a new name to a function of NumPy, of names before it and numbers.
"""

import numpy

from tinygrad_ms.ops.fused import activations, mathematics, single
from tinygrad_ms.ops.fused.compiler import Text, compiled
from tinygrad_ms.ops.fused.kernels import part_size
from tinygrad_ms.ops.fused.threads import deal_out

__all__: list[str] = []

BLOCK = 8192  # numbers whose sum is taken before it is added to the others, in their order
SIGNS = {  # functions of NumPy as expressions
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}",
    "positive": "{}", "square": "{0} * {0}", "reciprocal": "1.0 / {}", "absolute": "abs({})",
    "greater": "1.0 if {} > {} else 0.0", "greater_equal": "1.0 if {} >= {} else 0.0",
    "less": "1.0 if {} < {} else 0.0", "less_equal": "1.0 if {} <= {} else 0.0", "where": "{1} if {0} != 0.0 else {2}",
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


IN_SINGLE = {"exp": single.exp, "tanh": activations.tanh, "sign": sign, "maximum": maximum, "minimum": minimum}
IN_DOUBLE = {name: getattr(mathematics, name) for name in ("expm1", "log", "log1p", "sin", "cos")}
FAR = ("sin", "cos")  # of numbers above mathematics.FAR they are left to NumPy
KNOWN = {*SIGNS, *IN_SINGLE, *IN_DOUBLE, "sqrt"}  # functions that a list may name


class Chain:
    """The loop of a list; see ``chain``."""

    def __init__(self, lines, inputs, outputs, sums, numbers):
        self.lines, self.inputs, self.outputs, self.sums, self.numbers = lines, inputs, outputs, sums, numbers
        self.function = compiled("chain", self.text(), {"contract", "reassoc"})
        nothing = [numpy.zeros(0, "f")] * (len(inputs) + len(outputs))
        self.function(*nothing, numpy.zeros(len(sums) + 1), *[0.0] * len(numbers))

    def text(self) -> str:
        text = Text("float32")
        body, far = [], []
        for name, op, *operands in self.lines:
            values = [str(a) if isinstance(a, str) else f"float32({float(a)!r})" for a in operands]
            if op in SIGNS:
                value = SIGNS[op].format(*values).replace("1.0", "float32(1.0)").replace("0.0", "float32(0.0)")
            elif op == "sqrt":
                value = f"sqrt({values[0]})"
            elif op in IN_SINGLE:
                value = f"{text.add(IN_SINGLE[op])}({', '.join(values)})"
            else:
                wide = Text("float64")
                function = wide.add(IN_DOUBLE[op])
                text.parts |= wide.parts
                value = f"float32({function}(float64({values[0]})))"
            body.append(f"    {name} = {value}")
            far += [f"abs({values[0]}) > {mathematics.FAR}"] if op in FAR else []
        results = [*self.outputs, *self.sums, f"float32({' or '.join(far) or '0.0'})"]
        parameters = [*self.inputs, *self.numbers]
        text.parts["body"] = "\n".join(
            ["@scalar", f"def body({', '.join(parameters)}):", *body, f"    return {', '.join(results)}"]
        )
        given = [*(f"in{k}" for k in range(len(self.inputs))), *(f"out{k}" for k in range(len(self.outputs)))]
        values = [*(f"in{k}[i]" for k in range(len(self.inputs))), *self.numbers]
        totals = [f"s{k}" for k in range(len(self.sums) + 1)]
        targets = [*(f"out{k}[i]" for k in range(len(self.outputs))), *(f"v{k}" for k in range(len(totals)))]
        loop = [
            f"def chain({', '.join([*given, 'totals', *self.numbers])}):", "    widest()",
            *(f"    {name} = float32({name})" for name in self.numbers), *(f"    {s} = 0.0" for s in totals),
            f"    for i in range({given[0]}.size):", f"        {', '.join(targets)} = body({', '.join(values)})",
            *(f"        {s} += float64(v{k})" for k, s in enumerate(totals)),
            *(f"    totals[{k}] = {s}" for k, s in enumerate(totals)),
        ]  # fmt: skip
        text.parts = {"sqrt": "from math import sqrt", **text.parts}
        return text.whole("chain", "\n".join(loop))

    def __call__(self, *given, out=None):
        """The outputs, arrays like the inputs, written into ``out`` where that is given; then the sums, in float64."""
        arrays, numbers = given[: len(self.inputs)], [float(value) for value in given[len(self.inputs) :]]
        made = [numpy.empty_like(arrays[0]) for _ in self.outputs] if out is None else list(out)
        rows = [a.reshape(-1) for a in (*arrays, *made)]
        size = arrays[0].size
        totals = numpy.zeros((-(-size // BLOCK) if self.sums else 1, len(self.sums) + 1))
        step = BLOCK if self.sums else max(part_size(size), 1)
        parts = -(-size // step)

        def work(i):
            part = [row[i * step : (i + 1) * step] for row in rows]
            found = totals[i] if self.sums else numpy.zeros(1)
            self.function(*part, found, *numbers)
            if found[-1]:
                found[:-1] = self.by_numpy(part, numbers)

        deal_out(work, parts, size)
        return [*made, *totals[:, :-1].sum(axis=0)]

    def by_numpy(self, rows, numbers):
        """One part as NumPy computes it, call by call; the sums."""
        values = dict(zip([*self.inputs, *self.numbers], [*rows[: len(self.inputs)], *numbers]))
        with numpy.errstate(all="ignore"):
            for name, op, *operands in self.lines:
                value = getattr(numpy, op)(*[values.get(a, a) for a in operands])
                values[name] = value.astype("float32", copy=False)  # what is true is 1
        for target, name in zip(rows[len(self.inputs) :], self.outputs):
            target[...] = values[name]
        return [values[name].sum(dtype="float64") for name in self.sums]


def chain(lines, inputs, outputs, sums=(), numbers=()):
    """A compiled ``Chain`` of float32 arrays; None where a line names a function that is not in ``KNOWN``.

    lines: tuples (new name, name of the NumPy function, names or numbers). inputs: the names of the arrays that the
    call gets; numbers: of the numbers behind them, which may differ from call to call. outputs: the names whose arrays
    it returns; sums: those of which it returns the sum over all elements.
    The arrays of a call are contiguous and of one shape. Compiling takes a second or more, a second time it is found
    on disk. exp and tanh are within 4 ulp, the other functions within 1; a product and a sum may be rounded at once;
    comparisons give 1 and 0. sin and cos far out (above 1e6) are computed by NumPy, for a whole part of the arrays.
    """
    if any(op not in KNOWN for _, op, *_ in lines):
        return None
    return Chain(list(lines), list(inputs), list(outputs), list(sums), list(numbers))
