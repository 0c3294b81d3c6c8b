"""Softmax cross-entropy with plain integer labels: one op, in few calls of the array library, or in a compiled kernel.

``ops/classification.py`` does this for any target. Here is the case that most networks meet at every step. The classes
are the last axis.
"""

from functools import lru_cache

import numpy

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.activations import log_softmax
from tinygrad_ms.ops.fused import calls
from tinygrad_ms.ops.short_rows import as_columns, most
from tinygrad_ms.ops.short_rows import total as add_up
from tinygrad_ms.ops.targets import softmax_minus_one_hot

__all__: list[str] = []

INT = numpy.dtype("int64")
MOST = 1 << 16  # up to so many logits the number of calls decides the time


def _scale(g, target, reduction):
    """The gradient of the loss of each sample, from that of the result. It has an axis of size one for the classes."""
    g = wide(g)
    g = g / (target.size or 1) if reduction == "mean" else g
    return g.reshape((*target.shape, 1) if reduction == "none" else (1,) * (target.ndim + 1))


def _label_loss_rule(g, logits, target, e, rest, total, entries, reduction):
    scale = _scale(g, target, reduction)
    if e is None:  # under create_graph, or a kernel computes e anew
        found = None if total is None else calls.label_loss_rule(scale, logits, target, entries, rest, total)
        return softmax_minus_one_hot(scale, log_softmax(wide(logits)), labels=target) if found is None else found
    columns = total.ndim == 1
    scale = scale.reshape((-1,) if columns else (-1, 1)) / total
    y = e * scale
    row = y.reshape((-1,))
    if rest is None:
        row[entries] = 0
    row[entries] = -(add_up(y) if rest is None else (rest * scale).reshape((-1,)))  # p - 1 would lose its digits
    return (y.T if columns else y).reshape(logits.shape)


def _label_loss_jvp(t, logits, target, reduction):
    t = softmax_minus_one_hot(wide(t[..., :1]) * 0 + 1, log_softmax(wide(logits)), labels=target) * t
    t = t.sum(axis=-1)
    return t if reduction == "none" else t.sum() / (target.size or 1) if reduction == "mean" else t.sum()


@primitive(
    vjp=(_label_loss_rule, None),
    jvp=(_label_loss_jvp, None),
    cache=("e", "rest", "total", "entries"),
    formula=r"L = -\ln p_t,\ p = \mathrm{softmax}(z):\quad \frac{dL}{dz_c} = \frac{p_c - [c = t]}{n}",
    source="ai-edu, equation 103",
    notes="classes are the last axis; n is the number of samples of a mean, else 1",
)
def _softmax_cross_entropy(xp, logits, target, /, reduction="mean"):
    """-ln softmax(logits)[target] of each sample, at least in float32: their mean, their sum or all of them.

    z are the logits minus their maximum. The cache has e^z without the labelled entries, its sums over the classes, the
    sums with the labelled entries, and the places of these entries. Short rows are columns: there e^z is whole, only
    the second sums are known, and they have one axis. A compiled kernel leaves no e^z, and the maxima for the places.
    """
    n, classes = target.size, logits.shape[-1]
    labels = target if target.ndim == 1 else target.reshape((-1,))
    labels = labels if labels.dtype == INT else labels.astype(INT)
    if n * classes > MOST and (found := calls.label_loss(logits, labels)) is not None:
        top, rest, total = found
        labelled = logits.reshape((-1, classes))[xp.arange(n), labels]
        loss = _reduced(xp.log(total) - (labelled - top), target, reduction)
        return loss.astype(logits.dtype), (None, rest, total, top)
    z = wide(logits)
    if (columns := as_columns(z, -1)) is not None:
        z, entries = columns, labels * n + _numbers(n)
        z -= most(z)
    else:
        z, entries = xp.ascontiguousarray(z.reshape((n, classes))), labels + xp.arange(0, n * classes, classes)
        z = z - z.max(axis=1, keepdims=True)
    row = z.reshape((-1,))
    labelled = row[entries]
    e = xp.exp(z, out=z)
    if columns is not None:
        rest, total = None, add_up(e)
    else:
        row[entries] = 0
        rest = e.sum(axis=1, keepdims=True)
        total = rest + xp.exp(labelled).reshape(rest.shape)
    losses = xp.log(total) if columns is not None else xp.log(total).reshape((-1,))
    loss = _reduced(losses - labelled, target, reduction)
    loss = loss if loss.dtype == logits.dtype else loss.astype(logits.dtype)
    return loss, (e, rest, total, entries)


@lru_cache(8)
def _numbers(n):
    """0 ... n - 1 as an array of NumPy."""
    return numpy.arange(n)


def _reduced(losses, target, reduction):
    if reduction == "none":
        return losses.reshape(target.shape)
    total = numpy.add.reduce(losses) if type(losses) is numpy.ndarray else losses.sum()  # sum would add a frame
    return total / (target.size or 1) if reduction == "mean" else total
