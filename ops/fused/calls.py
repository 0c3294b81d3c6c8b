"""Calls of compiled kernels with the arguments of an op or an optimizer; None if no kernel can take them."""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.ops.fused import LEAST, devices_do, find, is_on
from tinygrad_ms.ops.fused.tiles import LANES

__all__: list[str] = []

LARGE = 100_000  # elements: below it NumPy changes an array in place as fast
SMALL = 64  # rows and columns of a matrix at most, so that all that a kernel makes of it stays in the cache


def along_rows(name, *arrays, axis=-1):
    """The result of kernel ``name`` on equal arrays whose rows are the last axis."""
    first = arrays[0]
    if (on := devices_do(first)) is not None:
        return on.along_rows(name, *arrays, axis=axis)
    if first.size < LEAST or axis not in (-1, first.ndim - 1) or not (run := find(name, *arrays)):
        return None
    y = numpy.empty_like(first)
    run(*(a.reshape((-1, first.shape[-1])) for a in (*arrays, y)))
    return y


def softmax_minus_one_hot(scale, log_p, labels):
    """The gradient of the cross-entropy with integer labels."""
    if (on := devices_do(log_p)) is not None:
        return on.softmax_minus_one_hot(scale, log_p, labels)
    if log_p.size < LEAST or not (run := find("softmax_minus_one_hot", log_p)):
        return None
    y = numpy.empty_like(log_p)
    rows = [a.reshape((-1, log_p.shape[-1])) for a in (log_p, y)]
    factor = numpy.broadcast_to(scale, (*labels.shape, 1)).astype(log_p.dtype).reshape(-1)
    run(*rows, factor, labels.astype("int64").reshape(-1))
    return y


def labelled_loss(logits, target, reduction, ignore_index):
    """The loss with integer labels, log p, and the divisor of the mean. It is for devices alone."""
    on = devices_do(target)
    if on is None or target.dtype.kind not in "iu":
        return None
    return on.labelled_loss(wide(logits), target, reduction, ignore_index)


def labelled_rule(g, log_p, target, count, reduction, ignore_index):
    """The gradient of the logits from that of this loss."""
    on = devices_do(target)
    return on and on.labelled_rule(g, log_p, target, count, ignore_index, reduction == "mean")


def dropout_mask(key, least, kept, shape, dtype, device):
    """``kept`` with probability 1 - least / 2^24, else 0, made of ``key``; for devices alone."""
    on = devices_do(device)
    return on and on.dropout_mask(key, least, kept, shape, dtype, device)


def label_loss(logits, labels):
    """For each row the largest logit m, and the sums of e^(z - m) without and with the entry of the label."""
    if logits.size < LEAST or not (run := find("label_loss", logits)):
        return None
    x, labels = logits.reshape((-1, logits.shape[-1])), labels.astype("int64", copy=False).reshape(-1)
    found = numpy.empty_like(x, "float64", shape=(3, labels.size))
    run(x, labels, *found)
    return found


def label_loss_rule(scale, logits, labels, top, rest, total):
    """scale times the gradient of -ln p of the labels, from the results of ``label_loss``."""
    if not (run := find("label_loss_rule", logits)):
        return None
    y, scale = numpy.empty_like(logits), scale.reshape(-1) / total
    x, y_rows = (a.reshape((-1, logits.shape[-1])) for a in (logits, y))
    each = [a.astype(x.dtype) for a in (top, scale, -rest * scale)]
    run(x, y_rows, labels.astype("int64", copy=False).reshape(-1), *each)
    return y


def without_gaps(x):
    """The array with its elements one behind the other: itself, or a copy."""
    return BACKENDS[type(x)].xp.ascontiguousarray(x)


def newton_schulz(X, factors, out=None, identity=0.0):
    """X after steps X (a I + b S + c S S), S = X^T X, for a batch of small matrices, in ``out`` if it is given."""
    return _small_matrices("newton_schulz", (X,), out, factors, identity)


def newton_schulz_rule(X, G, factors):
    """The derivative of one such step along G."""
    return _small_matrices("newton_schulz_rule", (X, G), None, factors)


def lyapunov(K, A, out, pairs, parity):
    """K after the steps of ``iterations.block_solve``, in ``out``."""
    shifts = [(p, numpy.nan if q is None else q) for p, q in pairs]
    return _small_matrices("lyapunov", (K, A), out, shifts, parity) if parity else None


def _small_matrices(name, arrays, y, factors, *numbers):
    """The result of kernel ``name`` on batches of matrices of one shape, in ``y`` if that is given."""
    first, (m, n) = arrays[0], arrays[0].shape[-2:]
    if not all(isinstance(x, numpy.ndarray) and x.shape == first.shape for x in arrays) or not is_on():
        return None
    if first.dtype.char != "f" or first.size < LEAST or n % LANES or n > SMALL or m > 2 * SMALL:
        return None
    arrays = [without_gaps(x) for x in arrays]
    if not (run := find(name, *arrays)):
        return None
    y = numpy.empty_like(arrays[0]) if y is None else y
    run(*(x.reshape((-1, m * n)) for x in (*arrays, y)), numpy.array(factors, first.dtype).reshape(-1), n, *numbers)
    return y


def in_place(name, array, *constants) -> bool:
    """Run kernel ``name`` on the array; False if it did not run."""
    if array.size < LARGE or not (run := find(name, array)):
        return False
    run(array, *constants)
    return True


def sum_of_rows(name, array, length=4096):
    """The sum, in float64, of the results of kernel ``name`` for parts of ``length`` numbers."""
    if array.size < LARGE or not (run := find(name, array)):
        return None
    flat, count = array.reshape(-1), array.size // length
    total = numpy.empty_like(flat, "float64", shape=count + 1)
    run(flat[: count * length].reshape((count, length)), total[:count])
    run(flat[None, count * length :], total[count:])
    return total.sum()


def overlap_add(g, shape, window, axes):
    """The sum of overlapping windows over the last two axes. The windows are given place by place."""
    n = len(shape)
    if axes != (n - 2, n - 1):
        return None
    places = g.transpose((*range(n - 2), n, n + 1, n - 2, n - 1))
    rows = places.reshape((-1, prod(places.shape[-4:]))) if places.flags.c_contiguous else None
    if rows is None or not (run := find("overlap_add", rows)):
        return None
    y = numpy.empty_like(rows, shape=(rows.shape[0], shape[-2] * shape[-1]))
    run(rows, y, *window, places.shape[-1], shape[-1])
    return y.reshape(shape)
