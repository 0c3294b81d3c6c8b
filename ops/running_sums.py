"""Running sums of long rows of float32. NumPy adds one by one, and each addition has to wait for the one before."""

import numpy

__all__: list[str] = []

_FEW, _LONG = 32, 1 << 14  # elements added up by one product; the row length from which this is faster


def running_sums(x, axis, backwards=False):
    """cumsum of the raw array x along ``axis`` (None: flattened), or from the end. None if NumPy is as fast.

    Each group of ``_FEW`` elements is multiplied by a triangle of ones, and the sum before the group is added. It takes
    half of NumPy's time and has a smaller error. An infinite x would give NaN in the product, as 0 inf is NaN. So a
    result that is not finite is left to NumPy.
    """
    n = x.size if axis is None else x.shape[-1] if x.ndim and axis in (-1, x.ndim - 1) else 0
    if n < _LONG or n % _FEW or type(x) is not numpy.ndarray or x.dtype.char != "f":
        return None
    if x.ndim > 1 and not x.flags.c_contiguous:
        return None
    ones = numpy.ones((_FEW, _FEW), x.dtype)
    y = (x.reshape((-1, _FEW)) @ (numpy.tril(ones) if backwards else numpy.triu(ones))).reshape((-1, n // _FEW, _FEW))
    if backwards:
        y[:, :-1] += y[:, :0:-1, 0].cumsum(axis=1)[:, ::-1, None]
    else:
        y[:, 1:] += y[:, :-1, -1].cumsum(axis=1)[:, :, None]
    return y.reshape((n,) if axis is None else x.shape) if numpy.isfinite(y[:, 0 if backwards else -1]).all() else None
