"""Kernels over the rows of matrices."""

import inspect
from functools import partial

import numpy

from tinygrad_ms.ops.fused.compiler import Text
from tinygrad_ms.ops.fused.kernels import PIECE, Kernel
from tinygrad_ms.ops.fused.streams import STREAMED, send, send_rest
from tinygrad_ms.ops.fused.team import memory_of_parts, part_size, pays

__all__: list[str] = []

ROWS, EACH, LABELS, TOTALS = "rows", "each", "labels", "totals"  # kinds of arguments
MORE, MORE_TOTALS, LINE, SUMS, NUMBER = "more", "more totals", "line", "sums", "number"
BLOCKS = 16  # of rows; their sums are added up in order, for any number of threads


class Rows(Kernel):
    """A kernel over the rows of matrices. The body is a function of matrices; ``kinds``: those of its arguments.

    ROWS: a matrix. EACH, LABELS, TOTALS: a number for each row, in the dtype of the matrix, in int64, in float64.
    MORE, MORE_TOTALS: several numbers for each row, in the dtype of the matrix, in float64.
    LINE: a vector like a row. SUMS: a vector like a row, to which all rows of a part add. NUMBER: a number.
    The kernel writes into TOTALS, MORE_TOTALS and SUMS, and into the last of several matrices.
    single: the body is a function of one row of each matrix, and of the number for it, or of a vector of one number
    for TOTALS. It fills the row of the last matrix.
    streams: a large result goes past the caches. That is no faster where the arithmetic takes longer than the memory.
    work: how many elementwise operations take the time of its work on one number.
    """

    flags = {"contract", "reassoc"}  # lets the compiler add up in vectors

    def __init__(self, body, kinds, dtypes="f", single=False, streams=True, work=1):
        super().__init__(body, dtypes)
        self.kinds, self.takes, self.single, self.streams, self.work = kinds, None, single, streams, work
        self.matrices = [k for k, kind in enumerate(kinds) if kind == ROWS]
        self.written = [k for k, kind in enumerate(kinds) if kind in (TOTALS, MORE_TOTALS, SUMS)] + self.matrices[1:][
            -1:
        ]

    def text(self, real):
        text = Text(real)
        name = text.add(self.body)
        if not self.single:
            return name, text.whole(name)
        forms = {ROWS: "{}[i]", EACH: "{}[i]", LABELS: "int({}[i])", TOTALS: "{}[i : i + 1]"}
        given = list(inspect.signature(self.body).parameters)
        values = [forms.get(kind, "{}").format(a) for kind, a in zip(self.kinds, given)]
        values[self.matrices[-1]] = "near[held + i * stride : held + i * stride + size]"
        loop = f"""def {self.name}_rows({", ".join(given)}, near, stride):
    held, size = 0, {given[0]}.shape[1]
    for i in range({given[0]}.shape[0]):
        {name}({", ".join(values)})
        if stride == 0:
            held = {text.add(send)}(near, held + size, {given[self.matrices[-1]]}, (i + 1) * size)
    {text.add(send_rest)}(near, held, {given[self.matrices[-1]]})"""
        return f"{self.name}_rows", text.whole(f"{self.name}_rows", loop)

    def nothing(self, dtype):
        shapes = {ROWS: (0, 1), MORE: (0, 1), MORE_TOTALS: (0, 1), LINE: 1, SUMS: 1}
        dtypes = {LABELS: "int64", TOTALS: "float64", MORE_TOTALS: "float64"}
        made = [numpy.zeros(shapes.get(kind, 0), dtypes.get(kind, dtype)) for kind in self.kinds]
        made = [0.0 if kind == NUMBER else a for kind, a in zip(self.kinds, made)]
        return self.into_rows(made, False) if self.single else made

    def into_rows(self, arguments, streams):
        """For a body of one row: the last matrix as a vector, the memory that a row is computed in, and its stride."""
        y = arguments[self.matrices[-1]]
        flat = arguments[self.matrices[-1]] = y.reshape(-1)
        return [*arguments, numpy.empty(y.shape[1] + PIECE, y.dtype) if streams else flat, 0 if streams else y.shape[1]]

    def hows(self):
        hows = ["own" if kind == SUMS else "whole" if kind in (LINE, NUMBER) else "part" for kind in self.kinds]
        if self.single:
            hows[self.matrices[-1]] = "flat"
        return [*hows, "piece", "whole"] if self.single else hows

    def __call__(self, *given):
        """Run it on matrices of equal shape. The sums overwrite the vectors that are given for SUMS."""
        dtype, arguments = given[0].dtype, list(given)
        count, length = given[0].shape
        summed = [k for k, kind in enumerate(self.kinds) if kind == SUMS]
        several = pays(count * length * self.work)
        step = -(-count // BLOCKS) if summed else -(-part_size(count * length) // max(length, 1)) if several else count
        parts = -(-count // max(step, 1))
        sums = {k: numpy.zeros((parts, length), dtype) for k in summed}
        streams = self.streams and length >= PIECE and given[0].nbytes >= STREAMED
        if parts > 1:
            arguments = [sums.get(k, a) for k, a in enumerate(arguments)]
            if self.single:
                k = self.matrices[-1]
                arguments[k : k + 1] = [flat := given[k].reshape(-1), length]
                if streams:
                    near = memory_of_parts(parts, length + PIECE, dtype)
                    arguments += [near.reshape(-1), near.shape[1], 0]
                else:
                    arguments += [flat, step * length, length]
            self.job(dtype)(step, count, *arguments)
        else:
            arguments = [sums[k][0] if k in sums else a for k, a in enumerate(arguments)]
            self.made[dtype](*(self.into_rows(arguments, streams) if self.single else arguments))
        for k, rows in sums.items():
            given[k][...] = rows.sum(axis=0, dtype="float64")


def rows(*kinds, **facts):
    """Make a kernel of a function of matrices with arguments of these kinds."""

    def keep(body):
        Rows(body, kinds, **facts)
        return body

    return keep


row_by_row = partial(rows, single=True)
