"""Kernels by name: which arrays they take, the loops around their bodies, and the call that deals out an array."""

import inspect
import warnings

import numpy

from tinygrad_ms.ops.fused.compiler import Text, compiled
from tinygrad_ms.ops.fused.threads import THREADED, deal_out, get_num_threads

__all__: list[str] = []

KERNELS: dict[str, "Kernel"] = {}
PIECE = 1024  # the size of a part is a multiple of this


class Kernel:
    """A function on whole arrays, made of a body. ``dtypes``: the characters of the dtypes that it takes.

    written: the positions of the arguments that it writes into. makes: the number of arrays that it returns.
    """

    flags = {"contract"}  # what the compiler may do with float arithmetic
    written: list[int]
    makes = 0

    def __init__(self, body, dtypes):
        self.body, self.name, self.dtypes = body, body.__name__, [numpy.dtype(c) for c in dtypes]
        self.__name__ = self.name
        self.made: dict = {}  # by dtype: the compiled function
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
        targets = [f"{self.arrays[k]}" for k in self.into] or [f"result{k}" for k in range(self.results)]
        parameters = [*self.arrays, *(() if self.into else targets), *self.constants]
        values = [f"{real}({name}[i])" for name in self.arrays] + self.constants
        lines = [
            f"def {self.name}_loop({', '.join(parameters)}):",
            "    widest()",
            *(f"    {name} = {real}({name})" for name in self.constants),
            f"    for i in range({self.arrays[0]}.size):",
            f"        {', '.join(f'{name}[i]' for name in targets)} = {call}({', '.join(values)})",
        ]
        if self.far:
            limit, exact = self.far
            text.parts["math"] = "import math"
            lines += [
                "    found = 0",
                "    for i in range(x.size):",
                f"        found += abs(x[i]) > {limit}",
                "    for i in range(x.size if found else 0):",
                f"        if abs(x[i]) > {limit}:",
                f"            result0[i] = {exact}({real}(x[i]))",
            ]
        return f"{self.name}_loop", text.whole(f"{self.name}_loop", "\n".join(lines))

    def nothing(self, dtype):
        count = len(self.arrays) + self.makes
        return [numpy.empty(0, dtype)] * count + [0.0] * len(self.constants)

    def __call__(self, *given, out=None):
        """The results, in new arrays like the first one or in ``out``.

        Constants follow the arrays. The formula in NumPy may take more constants.
        """
        arrays, constants = given[: len(self.arrays)], given[len(self.arrays) :]
        first = arrays[0]
        made = [numpy.empty_like(first) for _ in range(self.makes)] if out is None else list(out)
        function, size = self.made[first.dtype], first.size
        rows = [a.reshape(-1) for a in (*arrays, *made)]
        values = [float(value) for value, _ in zip(constants, self.constants)]
        step = part_size(size)
        if step >= size:
            function(*rows, *values)
            return made

        def work(i):
            part = slice(i * step, (i + 1) * step)
            function(*[row[part] for row in rows], *values)

        deal_out(work, -(-size // step), size)
        return made


def part_size(size, piece=PIECE):
    """The number of elements of a part: all, or so that each thread has four parts."""
    parts = 4 * get_num_threads() if size >= THREADED else 1
    return max(-(-size // (parts * piece)) * piece, piece) if parts > 4 else size


ROWS, EACH, LABELS, TOTALS = "rows", "each", "labels", "totals"  # kinds of arguments
LINE, SUMS, NUMBER = "line", "sums", "number"
BLOCKS = 16  # of rows; their sums are added up in order, for any number of threads


class Rows(Kernel):
    """A kernel over the rows of matrices. The body is a function of matrices; ``kinds``: those of its arguments.

    ROWS: a matrix. EACH, LABELS, TOTALS: a number for each row, in the dtype of the matrix, in int64, in float64.
    LINE: a vector like a row. SUMS: a vector like a row, to which all rows of a part add. NUMBER: a number.
    The kernel writes into TOTALS and SUMS, and into the last of several matrices.
    """

    flags = {"contract", "reassoc"}  # lets the compiler add up in vectors

    def __init__(self, body, kinds, dtypes="f"):
        super().__init__(body, dtypes)
        self.kinds, self.takes = kinds, None
        matrices = [k for k, kind in enumerate(kinds) if kind == ROWS]
        self.written = [k for k, kind in enumerate(kinds) if kind in (TOTALS, SUMS)] + matrices[1:][-1:]

    def text(self, real):
        text = Text(real)
        name = text.add(self.body)
        return name, text.whole(name)

    def nothing(self, dtype):
        shapes = {ROWS: (0, 1), LINE: 1, SUMS: 1}
        dtypes = {LABELS: "int64", TOTALS: "float64"}
        made = [numpy.zeros(shapes.get(kind, 0), dtypes.get(kind, dtype)) for kind in self.kinds]
        return [0.0 if kind == NUMBER else a for kind, a in zip(self.kinds, made)]

    def __call__(self, *given):
        """Run it on matrices of equal shape. The sums overwrite the vectors that are given for SUMS."""
        function = self.made[given[0].dtype]
        count, length = given[0].shape
        summed = [k for k, kind in enumerate(self.kinds) if kind == SUMS]
        step = -(-count // BLOCKS) if summed else max(-(-part_size(count * length) // max(length, 1)), 1)
        parts = -(-count // step)
        sums = {k: numpy.zeros((parts, length), given[0].dtype) for k in summed}

        def work(i):
            part = slice(i * step, (i + 1) * step)
            arguments = [a[part] if kind in (ROWS, EACH, LABELS, TOTALS) else a for kind, a in zip(self.kinds, given)]
            for k, rows in sums.items():
                arguments[k] = rows[i]
            function(*arguments)

        deal_out(work, parts, count * length)
        for k, rows in sums.items():
            given[k][...] = rows.sum(axis=0, dtype="float64")


def each(**facts):
    """Make a kernel of a scalar body. The name keeps the function of floats."""

    def keep(body):
        Each(body, **facts)
        return body

    return keep


def rows(*kinds, dtypes="f"):
    """Make a kernel of a function of matrices with arguments of these kinds."""

    def keep(body):
        Rows(body, kinds, dtypes)
        return body

    return keep
