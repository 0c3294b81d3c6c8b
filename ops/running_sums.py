"""Running sums of rows in float32. NumPy adds the elements one by one, and every addition waits for the one before."""

import numpy

from tinygrad_ms.ops.row_blocks import in_parts

__all__: list[str] = []

_FEW = sorted(range(16, 65), key=lambda k: abs(k - 32))  # numbers of elements that one product may add up
_LONG, _MANY = 128, 1 << 15  # elements of a row, and of the array, from which the products are faster


def running_sums(x, axis, backwards=False):
    """The cumsum of the raw array x along ``axis`` (None: of all), or None where NumPy is as fast.

    backwards: from the end. A row is cut into pieces of equal length. The sum of all pieces before is added to the
    first element of each, which is then multiplied by a triangle of ones. This takes about two thirds of the time of
    NumPy, and has a smaller error. 0 inf would be NaN in the product, so NumPy computes all sums if one is not finite
    at the end.
    """
    n = x.size if axis is None else x.shape[-1] if x.ndim and axis in (-1, x.ndim - 1) else 0
    if n < _LONG or x.size < _MANY or type(x) is not numpy.ndarray or x.dtype.char != "f":
        return None
    few = next((k for k in _FEW if n % k == 0), 0)
    if not few or (x.ndim > 1 and not x.flags.c_contiguous):
        return None
    ones, rows = numpy.ones((few, few), x.dtype), (-1, n // few, few)
    triangle, y = numpy.tril(ones) if backwards else numpy.triu(ones), numpy.empty((x.size // n, n), x.dtype)
    with numpy.errstate(over="ignore", invalid="ignore"):
        for part, z in in_parts(x.reshape((-1, n)), y):  # the steps on a part stay in the cache
            pieces = part.reshape((-1, few)).copy()
            sums = (pieces @ ones[0]).reshape(rows[:2])
            if backwards:
                pieces.reshape(rows)[:, :-1, -1] += sums[:, :0:-1].cumsum(axis=1)[:, ::-1]
            else:
                pieces.reshape(rows)[:, 1:, 0] += sums[:, :-1].cumsum(axis=1)
            numpy.matmul(pieces, triangle, out=z.reshape((-1, few)))
    return y.reshape((n,) if axis is None else x.shape) if numpy.isfinite(y[:, 0 if backwards else -1]).all() else None
