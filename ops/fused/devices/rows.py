"""Kernels over the rows of a matrix: a block takes a row at a time.

All compute in the dtype of the arrays, half precision in float32, and round once.
"""

import numpy

from tinygrad_ms.arrays.sums import HALF
from tinygrad_ms.launches.kernels import DTYPES
from tinygrad_ms.ops.fused.devices.kernel import MOST_BLOCKS, Making
from tinygrad_ms.ops.fused.devices.text import TYPES

__all__: list[str] = []


class Rows(Making):
    """Behind the arrays stand the numbers of rows and of columns, then other numbers.

    source: the body of the function. parameters: what it gets behind ``const T* x``. shapes: of the results, by
    (x, numbers), None for that of x; they have the dtype of x, those in ``wide`` at least float32.
    """

    def __init__(self, name, parameters, source, reference, shapes, samples, dtypes="fd", wide=(), head=""):
        super().__init__(name, 1 + parameters.count("const "), reference, dtypes)
        self.parameters, self.source, self.head, self.wide = parameters, source, head, wide
        self.shapes, self.arguments = shapes, samples

    def text(self, dtypes, constants):
        real = "double" if dtypes[0] == "d" else "float"
        kinds = {"T": TYPES[dtypes[0]], "R": real, "L": TYPES[dtypes[1]] if len(dtypes) > 1 else "int"}
        types = "\n".join(f"typedef {kind} {name};" for name, kind in kinds.items())
        parameters = f"const T* x, {self.parameters}"
        return f'{types}{self.head}\nextern "C" __global__ void NAME({parameters}) {{{self.source}}}\n'

    def shapes_of(self, arrays, numbers):
        x, kinds = arrays[0], [arrays[0].dtype] * len(self.shapes)
        for k in self.wide if x.dtype.char in HALF else ():
            kinds[k] = numpy.dtype("float32")
        return [(x.shape if shape is None else shape(x, numbers), kind) for shape, kind in zip(self.shapes, kinds)]

    def geometry(self, arrays, numbers):
        rows, n = numbers[:2]
        return (min(rows, MOST_BLOCKS),), 32 if n <= 256 else 64 if n <= 512 else 128 if n <= 2048 else 256

    def samples(self, dtype):
        return self.arguments(numpy.dtype(DTYPES[dtype]))


def wave(*shape):
    """Numbers to check with."""
    count = int(numpy.prod(shape))
    return (3 * numpy.sin(numpy.arange(count) ** 1.5)).reshape(shape)


def doubled(*arrays):
    return [a.astype("float64") for a in arrays]
