"""Calls of the kernels of a device with what an op has; None where no kernel can take it."""

from math import prod

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.cards import card
from tinygrad_ms.ops.fused.devices import find, row_norms
from tinygrad_ms.ops.fused.devices.labels import NO_LABEL
from tinygrad_ms.ops.fused.devices.masks import DROPOUT

__all__: list[str] = []

FEW, ROWS_OF_A_PART, MOST_PARTS = 1024, 256, 256  # rows up to which sums of columns are made in one part


def along_rows(name, *arrays, axis):
    first = arrays[0]
    if axis not in (-1, len(first.shape) - 1) or not first.shape or not (run := find(name, *arrays)):
        return None
    return run(*arrays, prod(first.shape[:-1]), first.shape[-1])[0]


def labelled_loss(logits, labels, reduction, ignore):
    """The loss with integer labels, log p, and what the mean divides by."""
    if not (run := find("labelled_loss", logits)) or not (total := find("labelled_total", logits)):
        return None
    ignore, rows, classes = NO_LABEL if ignore is None else ignore, labels.size, logits.shape[-1]
    log_p, losses = run(logits, labels, rows, classes, ignore)
    if reduction == "none":
        return losses, log_p, losses
    loss, count = total(losses, labels, 1, rows, ignore, int(reduction == "mean"))
    return loss, log_p, count


def softmax_minus_one_hot(scale, log_p, labels):
    return labelled_rule(scale, log_p, labels, scale, NO_LABEL, False)


def labelled_rule(g, log_p, labels, count, ignore, divided):
    """The gradient of the logits; g, that of the loss, is a number or has one for each label."""
    rows = labels.size
    if not (run := find("labelled_rule", log_p)) or g.dtype != log_p.dtype or g.size not in (1, rows):
        return None
    ignore, step = NO_LABEL if ignore is None else ignore, int(g.size == rows)
    return run(log_p, labels, g, count, rows, log_p.shape[-1], step, int(divided), ignore)[0]


def normalize(x, weight, bias, axes, eps, center):
    n = _length(x, axes, weight, bias)
    if n is None or type(weight) is float and weight != 1:
        return row_norms.normalize(x, weight, bias, axes, eps, center)
    if not (run := find("normalize", x)):
        return None
    w, b = (x if type(a) is float else a for a in (weight, bias))
    if type(bias) is float and bias:
        return None
    return run(x, w, b, x.size // n, n, int(w is weight), int(b is bias), int(center), float(eps))[0]


def normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center):
    """The gradients of x, weight and bias."""
    n = _length(x, axes, weight)
    if n is None or type(weight) is float and weight != 1:
        return row_norms.normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center)
    if bias_shape not in ((), x.shape[x.ndim - len(axes) :]):
        return None
    if not (run := find("normalize_rule", g, x)) or not (columns := find("columns", g, x)):
        return None
    rows, w = x.size // n, x if type(weight) is float else weight
    dx, facts = run(g, x, w, rows, n, int(w is weight), int(center), float(eps))
    if not (needed[1] or needed[2]):
        return dx, None, None
    parts = 1 if rows <= FEW else min(-(-rows // ROWS_OF_A_PART), MOST_PARTS)
    sums = columns(g, x, facts, rows, n, parts)
    if parts > 1:
        sums = [a.sum(axis=0) for a in sums]
    shape = x.shape[x.ndim - len(axes) :]
    return dx, *(a if a.shape == shape else a.reshape(shape) for a in sums)


def _length(x, axes, *factors):
    """How many elements the last axes ``axes`` have, if each factor is a number or has their shape; else None."""
    last = range(x.ndim - len(axes), x.ndim)
    if sorted(axis % x.ndim for axis in axes) != [*last]:
        return None
    shape = x.shape[last.start :]
    for a in factors:
        if type(a) is not float and not (type(a) is type(x) and a.shape == shape and a.dtype == x.dtype):
            return None
    return prod(shape)


def dropout_mask(key, least, kept, shape, dtype, device):
    """An array of ``shape``: ``kept`` with probability 1 - least / 2^24, else 0, made of ``key``, of 63 bits."""
    backend, index = parse_device(device)
    with card(backend, index):
        like, size = backend.xp.empty(0, dtype), prod(shape)
        if not size or not hasattr(backend.xp, "RawModule") or not DROPOUT.ready(backend, like.dtype.char, like):
            return None
        return DROPOUT(like, size, key, least, kept)[0].reshape(shape)
