"""Masks of dropout, drawn on the device: the same numbers from the same key, whatever the card."""

import numpy

from tinygrad_ms.ops.fused.devices.kernel import MOST_BLOCKS, THREADS, Kernel
from tinygrad_ms.ops.fused.devices.text import DTYPES, TYPES

__all__: list[str] = []

FACTORS, STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)  # of Philox, for the words and for the key
ROUNDS = 10

TEXT = """
typedef TYPE T;
extern "C" __global__ void NAME(const T* like, T* mask, long long size, long long key, double p, double kept) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    for (; 4 * i < size; i += (long long)gridDim.x * blockDim.x) {
        unsigned c[4] = {(unsigned)i, (unsigned)(i >> 32), 0, 0}, k[2] = {(unsigned)key, (unsigned)(key >> 32)};
        for (int round = 0; round < 10; round++) {
            unsigned long long a = 0xD2511F53ULL * c[0], b = 0xCD9E8D57ULL * c[2];
            c[0] = (unsigned)(b >> 32) ^ c[1] ^ k[0];
            c[2] = (unsigned)(a >> 32) ^ c[3] ^ k[1];
            c[1] = (unsigned)b;
            c[3] = (unsigned)a;
            k[0] += 0x9E3779B9u;
            k[1] += 0xBB67AE85u;
        }
        for (int j = 0; j < 4 && 4 * i + j < size; j++)
            mask[4 * i + j] = (float)((c[j] >> 8) * (1.0 / 16777216) >= p ? kept : 0.0);
    }
}
"""


def philox(xp, blocks, key):
    """Four words of 32 bits for each of the counters 0, 1, ...: Philox4x32-10 (Salmon et al. 2011, section 3.3)."""
    low = 0xFFFFFFFF
    i = xp.arange(blocks, dtype="uint64")
    c = [i & low, i >> 32, xp.zeros_like(i), xp.zeros_like(i)]
    k = [key & low, key >> 32 & low]
    for _ in range(ROUNDS):
        a, b = c[0] * FACTORS[0], c[2] * FACTORS[1]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(word + step) & low for word, step in zip(k, STEPS)]
    return xp.stack(c, axis=-1)


class Mask(Kernel):
    """For an empty array of the dtype, and the numbers size, key, p, kept: ``kept``, or 0 with probability p.

    A thread makes four elements of one counter.
    """

    def text(self, dtypes, constants):
        return TEXT.replace("TYPE", TYPES[dtypes[0]])

    def makes(self, arrays, numbers):
        return [((numbers[0],), arrays[0].dtype)]

    def samples(self, dtype):
        return [numpy.zeros(0, DTYPES[dtype]), 70, 2**40 + 7, 0.25, 2.0]

    def geometry(self, arrays, numbers):
        return (min(-(-numbers[0] // (4 * THREADS)), MOST_BLOCKS),), THREADS


def mask(xp, like, size, key, p, kept):
    numbers = (philox(xp, -(-size // 4), key) >> 8).reshape(-1)[:size] * 2.0**-24
    return [xp.where(numbers >= p, kept, 0.0).astype(like.dtype)]


DROPOUT = Mask("dropout_mask", 1, mask, "eEfd")
