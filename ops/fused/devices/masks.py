"""Masks of dropout, drawn on the device: the same numbers from the same key, whatever the device."""

import numpy

from tinygrad_ms.launches.kernels import DTYPES
from tinygrad_ms.ops.fused.devices.kernel import MOST_BLOCKS, THREADS, Making
from tinygrad_ms.ops.fused.devices.text import TYPES
from tinygrad_ms.ops.fused.symbols import written
from tinygrad_ms.random import bits, splitmix

__all__: list[str] = []

TEXT = """
typedef TYPE T;
typedef REAL R;
extern "C" __global__ void NAME(const T* like, T* y, long long size, long long key, long long least, double kept) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    for (; i < size; i += (long long)gridDim.x * blockDim.x) {
        unsigned long long a0 = i + 1, a1 = key;
        LINES
        y[i] = (long long)(RANDOM >> 40) >= least ? (R)kept : (R)0;
    }
}
"""


class Mask(Making):
    """For an array of the dtype, which is not read, and the numbers size, key, least, kept.

    ``kept`` where the upper 24 bits of the number of that place are at least ``least``, else 0.
    """

    def text(self, dtypes, constants):
        lines, (random,) = written(lambda xp, z, seed: [splitmix(z, seed)], "uint64", 2)
        text = TEXT.replace("LINES", "\n        ".join(lines)).replace("RANDOM", random)
        return text.replace("TYPE", TYPES[dtypes[0]]).replace("REAL", "double" if dtypes[0] == "d" else "float")

    def shapes_of(self, arrays, numbers):
        return [((numbers[0],), arrays[0].dtype)]

    def samples(self, dtype):
        return [numpy.zeros(0, DTYPES[dtype]), 70, 2**62 + 7, 2**22, 4 / 3]

    def geometry(self, arrays, numbers):
        return (min(-(-numbers[0] // THREADS), MOST_BLOCKS),), THREADS


def mask(xp, like, size, key, least, kept):
    random = bits(xp, key, size) >> numpy.uint64(40)
    return [xp.where(random >= numpy.uint64(least), kept, 0.0).astype(like.dtype)]


DROPOUT = Mask("dropout_mask", 1, mask, "eEfd")
