"""The rules of a run of elementwise ops as one compiled loop, for ``walk.py``.

A run that has come ``USES`` times is traced: its rules get a ``Line`` for each array, and the calls that they make are
the lines of a ``chain``.
"""

import warnings
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.engine.tape import NUMBERS
from tinygrad_ms.ops.fused.chains import KNOWN, chain
from tinygrad_ms.ops.fused.kernels import KERNELS, Each

__all__: list[str] = []

USES, MOST = 4, 256  # uses before a run is compiled, which takes a second or more; runs that are remembered
SEEN: dict[tuple, Any] = {}  # by signature: the number of uses so far, then the loop, or None if there is none


class Unfit(Exception):
    """A rule does what no chain can."""


class Line:
    """A value of a chain: what rules see in the place of an array."""

    __slots__ = ("dtype", "lines", "name", "ndim", "shape", "size")
    __array_ufunc__ = None

    def __init__(self, lines, name, dtype, size):
        self.lines, self.name, self.dtype, self.size, self.shape, self.ndim = lines, name, dtype, size, (size,), 1

    def line(self, function, *values):
        """The value of a function, on a new line."""
        if any(type(x) is not Line and type(x) not in NUMBERS for x in values):
            raise Unfit
        if type(function) is not Each and function not in KNOWN[self.dtype.name]:
            raise Unfit
        made = Line(self.lines, f"v{len(self.lines)}", self.dtype, self.size)
        self.lines.append((made.name, function, *[x.name if type(x) is Line else float(x) for x in values]))
        return made

    def __neg__(self):
        return self.line("negative", self)

    def __abs__(self):
        return self.line("absolute", self)

    def astype(self, dtype, copy=True):
        return self if dtype == self.dtype else self.line("no such function")


def _attach():
    names = dict(add="add", sub="subtract", mul="multiply", truediv="divide", lt="less", le="less_equal", gt="greater",
                 ge="greater_equal", eq="equal", ne="not_equal")  # fmt: skip
    for name, function in names.items():
        setattr(Line, f"__{name}__", lambda a, b, function=function: a.line(function, a, b))
        setattr(Line, f"__r{name}__", lambda a, b, function=function: a.line(function, b, a))


class Functions:
    """``xp`` of lines."""

    def __getattr__(self, name):
        return lambda *values: next(x for x in values if type(x) is Line).line(name, *values)


class Recorder:
    """What an op and ``find`` ask for where there is a line."""

    @staticmethod
    def run(primitive, arrays, constants):
        return primitive.forward(BACKENDS[Line].xp, *arrays, **constants)

    @staticmethod
    def kernel(name, first, *others):
        kernel = KERNELS.get(name)
        if type(kernel) is not Each or kernel.results != 1 or kernel.constants:
            return None
        return lambda *values: [first.line(kernel, *values)]


_attach()
BACKENDS[Line] = Backend("lines", Functions(), Line, Line, Line, recorder=Recorder)


def find_loop(plans, work, given, dtype, size):
    """A function that writes the gradients into the arrays {slot: array} that it gets, and returns the slots.

    plans: of the nodes. work, given: as in ``send``. None if the loop is not compiled.
    """
    arrays: list = []
    places: dict[int, int] = {}

    def place(x):
        if type(x) in NUMBERS:
            return type(x), x
        if places.setdefault(id(x), len(arrays)) == len(arrays):
            arrays.append(x)
        return places[id(x)]

    key = (
        dtype, plans, tuple((slot, place(g)) for slot, g in given.items()),
        tuple((tuple(slot for slot, _, _ in rules), tuple(map(place, saved))) for rules, saved in work),
        tuple(not any(x.strides) for x in arrays),
    )  # fmt: skip
    loop = SEEN.get(key, 0)
    if type(loop) is int:
        if len(SEEN) >= MOST:
            SEEN.clear()
        SEEN[key] = loop = loop + 1 if loop + 1 < USES else make_loop(work, given, arrays, places, dtype, size)
    if type(loop) is int or loop is None:
        return None
    function, outputs = loop

    def run(made):
        function((size,), *inputs(arrays), *[made[slot] for slot in outputs])
        return outputs

    return run


def inputs(arrays):
    """Contiguous arrays, and a number for an array that shows one number everywhere."""
    return [x.reshape(-1) if any(x.strides) else x.flat[0] for x in arrays]


def make_loop(work, given, arrays, places, dtype, size):
    """The compiled loop, and the slots of its outputs; None where it cannot be made."""
    lines: list[tuple] = []
    values = [Line(lines, f"x{k}", dtype, size) for k in range(len(arrays))]

    def value(x):
        return x if type(x) in NUMBERS else values[places[id(x)]]

    here = {slot: value(g) for slot, g in given.items()}
    try:
        for k, (rules, saved) in enumerate(work):
            if (g := here.pop(k, None)) is None:
                continue
            for slot, rule, positions in rules:
                if (d := rule(g, *[value(saved[p]) for p in positions])) is not None:
                    here[slot] = here[slot] + d if slot in here else d
        outputs = {slot: d.line("positive", d).name for slot, d in here.items()}
        patterns = {v.name: "1" if any(x.strides) else "0" for v, x in zip(values, arrays)}
        function = chain(lines, patterns, dict.fromkeys(outputs.values(), ""), real=dtype.name)
        function.prepare([*inputs(arrays), *[numpy.empty(2, dtype) for _ in outputs]])
    except (Unfit, AttributeError, TypeError):
        return None
    except Exception as error:  # an error of numba; NumPy does the work
        warnings.warn(
            f"tinygrad_ms: a loop cannot be compiled, NumPy does its work: {error}", RuntimeWarning, stacklevel=6
        )
        return None
    return function, list(outputs)
