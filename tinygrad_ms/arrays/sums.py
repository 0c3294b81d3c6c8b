"""Sums over axes, where NumPy has a faster way than its reductions."""

from functools import cache
from math import prod

import numpy


def may_sum_to(whole: tuple, shape: tuple) -> bool:
    """Whether an array of ``shape`` broadcasts to one of shape ``whole``."""
    extra = len(whole) - len(shape)
    for n, m in zip(shape, whole[max(extra, 0) :]):
        if n != m and n != 1:
            return False
    return extra >= 0


def sum_to(x, shape: tuple):
    """x, an array or Tensor, summed over the axes that broadcasting from ``shape`` has added or stretched."""
    if x.size == prod(shape):  # every axis that goes has length 1
        return x.reshape(shape)
    extra = len(x.shape) - len(shape)
    stretched = [i for i, n in enumerate(shape, extra) if n != x.shape[i]]
    return sum_over(x, (*range(extra), *stretched)).reshape(shape)


def sum_over(x, axes):
    """x, an array or Tensor, summed over ``axes`` (not negative, increasing), which stay with length 1.

    Half precision is summed in a wider dtype and rounded once.

    A sum over the last axes, over the last but one, or over the first axes is computed as a matrix product with a
    vector of ones, for NumPy's float32 and float64. NumPy's own reduction of short rows is about ten times slower.
    """
    if isinstance(x, numpy.ndarray) and x.dtype.char in "fd" and x.size and 0 < len(axes) < x.ndim:
        kept = x.ndim  # before the last axes that go
        while kept and kept - 1 in axes:
            kept -= 1
        count = prod(x.shape[kept:])
        if kept < x.ndim and count <= MOST_ONES and (kept == x.ndim - 1 or x.flags.c_contiguous):
            y = x.reshape((*x.shape[:kept], count)) @ ones(x.dtype)[:count, None]
            return sum_over(y.reshape(x.shape[:kept] + (1,) * (x.ndim - kept)), axes[: len(axes) - x.ndim + kept])
        count = prod(x.shape[axis] for axis in axes)
        if axes == (x.ndim - 2,) and count <= MOST_ONES:
            return x if count == 1 else ones(x.dtype)[None, :count] @ x
        if axes[-1] == len(axes) - 1 and x.flags.c_contiguous:
            y = numpy.ones(count, x.dtype) @ x.reshape((count, -1))
            return y.reshape((1,) * len(axes) + x.shape[len(axes) :])
    if x.dtype.char in HALF:
        return wide(x, prod(x.shape[axis] for axis in axes)).sum(axis=axes, keepdims=True).astype(x.dtype)
    return x.sum(axis=axes, keepdims=True) if axes else x


def wide(x, terms: int = 1):
    """x, an array or Tensor, in the dtype to add up ``terms`` of its numbers in; only half precision needs another.

    For half precision it is float32. Above 4,096 terms it is float64: added up one by one in float32, so many terms
    could be an ulp of float16 off.
    """
    return x.astype("float32" if terms <= MOST_ONES else "float64") if x.dtype.char in HALF else x


HALF = "eE"  # the characters of float16 and bfloat16
MOST_ONES = 4096  # NumPy sums longer rows in pairs, with smaller rounding errors


@cache
def ones(dtype):
    """A vector of ``MOST_ONES`` ones, which is made once."""
    return numpy.ones(MOST_ONES, dtype)
