"""The arrays of an update in pieces: all passes of the update over one piece find it in the cache of a CPU."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS

PIECE = 1 << 16  # elements; a parameter, its gradient, two moments and a scratch array of float32 take 1.3 MB
LINE = 64  # bytes; NumPy writes a result twice as fast from such an address on


def pieces(*arrays):
    """Pieces of the arrays, which have one shape. The arrays as they are where they are small or on devices.

    A recording gets them whole, too: its list has blocks of its own.
    """
    size, kind = arrays[0].size, type(arrays[0])
    if size <= 2 * PIECE or BACKENDS[kind].name != "cpu" or BACKENDS[kind].recorder:
        return [arrays]
    if not all(a.flags.c_contiguous for a in arrays):
        return [arrays]
    rows = [a.reshape(-1) for a in arrays]
    return [[row[i : i + PIECE] for row in rows] for i in range(0, size, PIECE)]


def aligned(shape, dtype):
    """An empty array of NumPy that begins at such an address."""
    size = dtype.itemsize * int(numpy.prod(shape, dtype="int64"))
    memory = numpy.empty(size + LINE, "uint8")
    start = -memory.__array_interface__["data"][0] % LINE
    return memory[start : start + size].view(dtype).reshape(shape)
