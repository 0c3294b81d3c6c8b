"""Running sums of long rows of float32, which NumPy adds up one by one, in which each addition waits for the last."""

import numpy

__all__: list[str] = []

_FEW, _LONG = 32, 1 << 14  # elements added up by one product; of a row from which that pays


def running_sums(x, axis, backwards=False):
    """cumsum of the raw array x along ``axis`` (None: of all), ``backwards`` from the end; None where NumPy is as fast.

    Each few elements are multiplied by a triangle of ones, and the sums before them are added: half of NumPy's time and
    a smaller error. 0 inf in that product would be NaN, so that a sum which ends in no number is left to NumPy.
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
