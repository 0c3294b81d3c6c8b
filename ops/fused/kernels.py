"""Kernels by name: which arrays they take, the loops around their bodies, and the call that deals out an array."""

import inspect
import warnings
from typing import Any

import numpy

from tinygrad_ms.ops.fused.compiler import Text, compiled
from tinygrad_ms.ops.fused.jobs import Job
from tinygrad_ms.ops.fused.streams import STREAMED
from tinygrad_ms.ops.fused.team import memory_of_parts, part_size, pays

__all__: list[str] = []

KERNELS: dict[str, "Kernel"] = {}
UNIT = 1024  # the size of a part is a multiple of this
PIECE = 128  # so many numbers are computed before they are sent
AHEAD = 512  # numbers; those behind that are fetched, because a processor stops fetching at each page of memory


class Kernel:
    """A function on whole arrays, made of a body. ``dtypes``: the characters of the dtypes that it takes.

    written: the positions of the arguments that it writes into. makes: the number of arrays that it returns.
    """

    flags = {"contract"}  # what the compiler may do with float arithmetic
    gaps = False  # whether its arrays may have gaps
    written: list[int]
    makes = 0

    def __init__(self, body, dtypes):
        self.body, self.name, self.dtypes = body, body.__name__, [numpy.dtype(c) for c in dtypes]
        self.__name__ = self.name
        self.made: dict = {}  # by dtype: the compiled function
        self.jobs: dict[Any, Job] = {}
        KERNELS[self.name] = self

    def text(self, real: str) -> tuple[str, str]:
        """The name of the function for arrays of that dtype, and the text that it stands in."""
        raise NotImplementedError

    def ready(self, dtype) -> bool:
        """Whether there is a function for that dtype. A first call on empty arrays compiles or loads it."""
        if dtype not in self.made:
            try:
                function = compiled(*self.text(dtype.name), self.flags)
                self.compile(function, dtype)
            except Exception as error:  # an error of numba; NumPy does the work
                text = f"tinygrad_ms: the kernel {self.name} cannot be compiled, NumPy does its work: {error}"
                warnings.warn(text, RuntimeWarning, stacklevel=4)
                function = None
            self.made[dtype] = function
        return self.made[dtype] is not None

    def compile(self, function, dtype):
        """Make or load the machine code, by a call."""
        function(*self.nothing(dtype))

    def nothing(self, dtype) -> list:
        """Empty arguments of the kinds that the function gets."""
        raise NotImplementedError

    def job(self, dtype, how=None) -> Job:
        """The function of that dtype for several threads."""
        if (dtype, how) not in self.jobs:
            self.jobs[dtype, how] = Job(self.made[dtype], self.made[dtype].signatures[0], how or self.hows())
        return self.jobs[dtype, how]

    def hows(self) -> list[str]:
        """What a part of a call gets of each argument of the function; see ``Job``."""
        raise NotImplementedError


class Each(Kernel):
    """A kernel that treats each element alone.

    The body takes a number of each array and then, behind ``/``, constants. It returns a number, or a tuple of
    ``results`` numbers. wide: it computes in float64 for every dtype. into: the arguments that the results overwrite.
    exact: a product and a sum are never rounded together. far: (limit, function) for |x| above the limit.
    """

    def __init__(self, body, results=1, dtypes="f", wide=True, into=(), exact=False, far=None):
        super().__init__(body, dtypes)
        self.results, self.wide, self.into, self.far = results, wide, into, far
        self.flags = set() if exact else {"contract"}
        parameters = inspect.signature(body).parameters.values()
        first = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self.arrays = first or [p.name for p in parameters]
        self.constants = [p.name for p in parameters if p.name not in self.arrays]
        self.takes, self.written, self.makes = len(self.arrays), list(into), 0 if into else results

    def text(self, real):
        real = "float64" if self.wide else real
        text = Text(real)
        call = text.add(self.body)
        size, results = f"{self.arrays[0]}.size", [f"result{k}" for k in range(self.makes)]
        parts = [f"    part_{name} = {name}[here:stop]" for name in [*self.arrays, *results]]

        def loop(count, targets, part=""):
            values = [f"{real}({part}{name}[i])" for name in self.arrays] + self.constants
            return [
                f"for i in range({count}):",
                f"    {', '.join(f'{y}[i]' for y in targets)} = {call}({', '.join(values)})",
                "wide_loop(4)",
            ]

        lines = [f"{name} = {real}({name})" for name in self.constants]
        if self.into:
            lines += loop(size, [self.arrays[k] for k in self.into])
        else:
            lines += [
                f"streams = near_result0.size == {PIECE} < {size}",
                f"begin = min((line(result0) - skew(result0)) % line(result0), {size}) if streams else {size}",
                f"end = {size} - ({size} - begin) % {PIECE}",
                f"for here in range(begin, end, {PIECE}):",
                f"    stop = here + {PIECE}",
                *parts,
                f"    for j in range({AHEAD}, {AHEAD + PIECE}, line(result0)):",
                *(f"        fetch(part_{name}, j)" for name in self.arrays),
                *(f"    {line}" for line in loop(PIECE, [f"near_{y}" for y in results], "part_")),
                f"    for j in range(0, {PIECE}, line(result0)):",
                *(f"        put_line(near_{y}, part_{y}, j)" for y in results),
                f"for here, stop in ((0, begin), (end, {size})):",
                *parts,
                *(f"    {line}" for line in loop("stop - here", [f"part_{y}" for y in results], "part_")),
                "settle()",
            ]
        if self.far:
            limit, exact = self.far
            text.parts["math"] = "import math"
            lines += [
                "found = 0",
                "for i in range(x.size):",
                f"    found += abs(x[i]) > {limit}",
                "for i in range(x.size if found else 0):",
                f"    if abs(x[i]) > {limit}:",
                f"        result0[i] = {exact}({real}(x[i]))",
            ]
        given = [*self.arrays, *results, *self.constants, *(f"near_{y}" for y in results)]
        whole = "\n".join([f"def {self.name}_loop({', '.join(given)}):", *(f"    {line}" for line in lines)])
        return f"{self.name}_loop", text.whole(f"{self.name}_loop", whole)

    def nothing(self, dtype):
        empty = [numpy.empty(0, dtype)]
        return empty * (len(self.arrays) + self.makes) + [0.0] * len(self.constants) + empty * self.makes

    def __call__(self, *given, out=None):
        """The results, in new arrays like the first one or in ``out``.

        Constants follow the arrays. The formula in NumPy may take more constants.
        """
        count, first = len(self.arrays), given[0]
        made = [numpy.empty_like(first) for _ in range(self.makes)] if out is None else list(out)
        rows = [a if a.ndim == 1 else a.reshape(-1) for a in (*given[:count], *made)]
        values = [*map(float, given[count : count + len(self.constants)])]
        near, size = [row[:0] for row in rows[count:]], first.size
        if made and first.nbytes >= STREAMED and len({a.__array_interface__["data"][0] % 64 for a in made}) == 1:
            near = [numpy.empty(PIECE, first.dtype) for _ in made]
        if pays(size):
            step = part_size(size, UNIT)
            own = [memory_of_parts(-(-size // step), a.size, a.dtype) for a in near]
            self.job(first.dtype)(step, size, *rows, *values, *own)
        else:
            self.made[first.dtype](*rows, *values, *near)
        return made

    def hows(self):
        return ["part"] * (len(self.arrays) + self.makes) + ["whole"] * len(self.constants) + ["own"] * self.makes

    def over(self, several, *values):
        """Run a kernel that makes no array over several lists of arrays. All threads share them."""
        dtype, share = several[0][0].dtype, pays(sum(arrays[0].size for arrays in several))
        for arrays in several:
            rows = [a if a.ndim == 1 else a.reshape(-1) for a in arrays]
            if share:
                self.job(dtype)(part_size(rows[0].size, UNIT), rows[0].size, *rows, *values)
            else:
                self.made[dtype](*rows, *values)


def each(**facts):
    """Make a kernel of a scalar body. The name keeps the function of floats."""

    def keep(body):
        Each(body, **facts)
        return body

    return keep
