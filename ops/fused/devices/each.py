"""Kernels of single elements, whose text is made of their formula in NumPy."""

import inspect

import numpy

from tinygrad_ms.launches.kernels import DTYPES
from tinygrad_ms.ops.fused.devices.kernel import MOST_BLOCKS, THREADS, Making
from tinygrad_ms.ops.fused.devices.text import TYPES
from tinygrad_ms.ops.fused.symbols import NAMES, written

__all__: list[str] = []


class Each(Making):
    """A kernel that treats each element alone: ``kernel`` of NumPy, written as text. sample: constants for a check.

    It computes in the dtype of the arrays, half precision in float32; ``wide``: all but float64 as well in float64.
    So a constant ``itemsize``, of a result with fewer bytes than the arithmetic, is 8: there are no digits to spare.
    A fused multiply-add would round once where the formula relies on two roundings.
    """

    options = ("--fmad=false",)

    def __init__(self, name, kernel, takes, sample, wide):
        super().__init__(name, takes, self.in_numpy, "eEfd")
        self.kernel, self.sample, self.wide, self.count = kernel, sample, wide, 0
        names = list(inspect.signature(kernel).parameters)[1 + takes :]
        self.spare = names.index("itemsize") if "itemsize" in names else -1

    def in_numpy(self, xp, *given):
        arrays, constants = given[: self.takes], given[self.takes :]
        wide = [a.astype("float64") for a in arrays]
        return [y.astype(arrays[0].dtype, copy=False) for y in self.kernel(xp, *wide, *constants)]

    def text(self, dtypes, constants):
        real = "float64" if self.wide or dtypes[0] == "d" else "float32"
        if self.spare >= 0 and not self.wide:
            constants = (*constants[: self.spare], 8, *constants[self.spare + 1 :])
        lines, results = written(self.kernel, real, self.takes, constants)
        t, r = TYPES[dtypes[0]], NAMES[real]
        arrays = [f"const {t}* x{k}" for k in range(self.takes)] + [f"{t}* y{k}" for k in range(len(results))]
        return "\n".join([
            f'extern "C" __global__ void NAME({", ".join(arrays)}, long long size) {{',
            "    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;",
            "    for (; i < size; i += (long long)gridDim.x * blockDim.x) {",
            *(f"        const {r} a{k} = x{k}[i];" for k in range(self.takes)),
            *(f"        {line}" for line in lines), *(f"        y{k}[i] = {y};" for k, y in enumerate(results)),
            "    }", "}", "",
        ])  # fmt: skip

    def shapes_of(self, arrays, numbers):
        if not self.count:
            self.count = len(written(self.kernel, "float32", self.takes, numbers)[1])
        return [(arrays[0].shape, arrays[0].dtype)] * self.count

    def samples(self, dtype):
        x = numpy.array([0.0, -0.5, 0.5, -1.28, 0.75, 3.0, -3.0, 9.0, -9.0, 30.0, -30.0, 1e4, -1e4, numpy.nan])
        others = [numpy.cos(numpy.arange(x.size))] * (self.takes - 1)
        return [*[a.astype(DTYPES[dtype]) for a in (x, *others)], *self.sample]

    def geometry(self, arrays, numbers):
        return (min(-(-arrays[0].size // THREADS), MOST_BLOCKS),), THREADS

    def split(self, arrays, numbers):
        return tuple(numbers), (arrays[0].size,)

    def joined(self, constants, passed):
        return constants
