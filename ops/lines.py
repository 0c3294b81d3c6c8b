"""Memory that begins with a line of the cache."""

import numpy

__all__: list[str] = []

LINE = 64  # bytes of a line of a cache, and of the longest vector register


def empty_on_a_line(n, dtype):
    """An empty vector of NumPy. A load or store in it meets one line, and no other array is on its first line."""
    room = numpy.empty(n + LINE // dtype.itemsize, dtype)
    start = -room.__array_interface__["data"][0] % LINE // dtype.itemsize
    return room[start : start + n]
