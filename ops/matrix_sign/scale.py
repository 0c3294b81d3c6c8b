"""Powers of two that bring matrices of an extreme scale into the middle of the range of their dtype.

The functions of this folder are homogeneous, so f(M) is f(s M) times a power of s, whatever s is: s is a constant of
the tape, the product with M is recorded, and value and derivatives of every order are right. Powers of two are exact.
"""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.matrix_sign.iteration import squared_norm

__all__: list[str] = []

ORDINARY = {"f": (2.0**-32, 2.0**32), "d": (2.0**-256, 2.0**256)}  # by NumPy's letter of the dtype


def largest_elements(*matrices):
    """The largest absolute element of each matrix (of several, together), (..., 1, 1)."""
    xp = BACKENDS[type(matrices[0])].xp
    largest = [abs(x).max(axis=(-2, -1), keepdims=True) for x in matrices]
    return largest[0] if len(largest) == 1 else xp.maximum(*largest)


def power_of_two(xp, largest, step=1):
    """The power of two, a multiple of ``step``, that brings ``largest`` near one; one for 0, infinity and NaN."""
    limit = xp.finfo(largest.dtype).maxexp // 8 * 8 - 8
    power = xp.frexp(xp.where(xp.isfinite(largest), largest, 0))[1]
    power = xp.minimum(xp.maximum(power, -limit), limit) // step * step
    return xp.ldexp(xp.ones_like(largest), -power)


def into_range(*matrices, step=1):
    """The powers of two s (..., 1, 1) for matrices whose scale is extreme, one for others; None where all are ordinary.

    Ordinary: the square of the largest element is far from the ends of the range. Several matrices get one s together.
    A GPU is not asked, as the host would wait: there s is always an array.
    """
    arrays = [raw(x) for x in matrices]
    if len(arrays) == 1 and type(arrays[0]) is numpy.ndarray and is_ordinary(arrays[0]):
        return None
    backend = BACKENDS.get(type(arrays[0]))
    if backend is None or any(x.dtype.kind != "f" or x.ndim < 2 or not x.size for x in arrays):
        return None
    xp, largest = backend.xp, largest_elements(*arrays)
    if largest.dtype.char not in ORDINARY:
        return None
    low, high = ORDINARY[largest.dtype.char]
    extreme = (largest > high) | ((largest < low) & (largest > 0))
    if backend.name == "cpu" and not extreme.any():
        return None
    return xp.where(extreme, power_of_two(xp, largest, step), 1).astype(largest.dtype)


def is_ordinary(x: numpy.ndarray) -> bool:
    """Whether the scale of every matrix is ordinary, none zero or NaN: the fast answer for NumPy arrays."""
    if x.ndim < 2 or not x.size or x.dtype.char not in ORDINARY:
        return False
    low, high = ORDINARY[x.dtype.char]
    if x.ndim == 2:
        return low <= max(x.max(), -x.min()) <= high
    x = x if x.flags.c_contiguous else x.mT
    with numpy.errstate(all="ignore"):
        squares = squared_norm(numpy, x.reshape((-1,) + x.shape[-2:]))  # of a batch this is faster than the maximum
    return low * low <= squares.min() and bool(squares.max() <= high * high)


def is_tracked(x) -> bool:
    """Whether a derivative may be asked of what is computed from x."""
    return getattr(x, "node", None) is not None
