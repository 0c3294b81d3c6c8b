"""Targets of classification: labels and probabilities, and the ops that pick what a label names.

Classes are the last axis.
"""

import functools
from math import prod

import numpy

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import sum_over, wide
from tinygrad_ms.engine.primitive import linear, primitive
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.fused import calls

__all__: list[str] = []

# --- labels ---------------------------------------------------------------------------------------------------------


def _entries(xp, x, labels):
    """The places of the labelled entries in the flattened x."""
    classes = max(x.shape[-1], 1)
    return xp.arange(0, prod(labels.shape) * classes, classes) + labels.reshape((-1,))


@linear(
    transpose=lambda g, labels, x_shape: place_label(g, labels=labels, classes=x_shape[-1]),
    formula=r"y_n = x_{n t_n}",
    source="linear map; its transpose",
    moves=True,
)
def pick_label(xp, x, /, labels):
    """The entry of each row at its integer label: (..., classes), (...) -> (...)."""
    return x.reshape((-1,))[_entries(xp, x, labels)].reshape(labels.shape)


@linear(
    transpose=lambda g, labels: pick_label(g, labels=labels),
    formula=r"Y_{nc} = x_n\,[c = t_n]",
    source="linear map; its transpose",
    moves=True,
)
def place_label(xp, x, /, labels, classes):
    """Rows of zeros with x at the labels: the transpose of ``pick_label``."""
    y = xp.zeros((*labels.shape, classes), dtype=x.dtype)
    y.reshape((-1,))[_entries(xp, y, labels)] = x.reshape((-1,))
    return y


def _past_label(g, labels):
    """g minus its entry at the label of each row."""
    return g - pick_label(g, labels=labels).reshape((*labels.shape, 1))


def _minus_sum_at_label(y, labels):
    """y minus the sum of each row at its label."""
    return y - place_label(y.sum(axis=-1), labels=labels, classes=y.shape[-1])


@primitive(
    vjp=(
        lambda g, log_probabilities, labels: (_past_label(g, labels) * exp(log_probabilities)).sum(
            axis=-1, keepdims=True
        ),
        lambda g, scale, log_probabilities, labels: _past_label(g, labels) * scale * exp(log_probabilities),
    ),
    jvp=(
        lambda t, log_probabilities, labels: softmax_minus_one_hot(t, log_probabilities, labels=labels),
        lambda t, scale, log_probabilities, labels: _minus_sum_at_label(t * scale * exp(log_probabilities), labels),
    ),
    formula=r"Y_{nc} = s_n \Big( p_{nc} - [c = t_n] \sum_k p_{nk} \Big)",
    source="ai-edu, equation 103; the probabilities p of a row sum to 1",
)
def softmax_minus_one_hot(xp, scale, log_probabilities, /, labels):
    """The gradient of the cross-entropy with integer labels, in one buffer; ``scale`` has shape (..., 1)."""
    if (found := calls.softmax_minus_one_hot(scale, log_probabilities, labels)) is not None:
        return found
    y = xp.ascontiguousarray(xp.exp(log_probabilities))
    row, entries = y.reshape((-1,)), _entries(xp, y, labels)
    row[entries] = 0
    total = xp.matmul(y, xp.ones(y.shape[-1], y.dtype))  # p - 1 would lose its digits where p is near 1
    row[entries] = -total.reshape((-1,))
    return xp.multiply(y, scale, out=y)


UNSIGNED = {n: numpy.dtype(f"u{n}") for n in (1, 2, 4, 8)}


def mask_of(op, labels, classes, ignore_index):
    """``ignore_index``, or None if no label is equal to it. Then the samples need no mask.

    On the CPU one reduction finds whether all labels are in range: as unsigned numbers, negative labels are huge. On a
    device the host would have to wait for it, so there the mask is always used.
    """
    if BACKENDS[type(labels)].name != "cpu":
        return ignore_index
    if not labels.size or numpy.maximum.reduce(labels.view(UNSIGNED[labels.itemsize]), None) < classes:
        return ignore_index if 0 <= ignore_index < classes else None
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
    if wrong.size:
        raise ValueError(
            f"{op}: target has the label {wrong[0]}; with {classes} classes, labels lie in"
            f" 0 ... {classes - 1}"
            f" (or are ignore_index={ignore_index})"
        )
    return ignore_index


# --- what the loss is made of ---------------------------------------------------------------------------------------


class HardTargets:
    """Integer labels t: the loss of sample n is -factor_n log p[n, t_n]; factor None stands for 1."""

    def __init__(self, labels, factor, count, reduction):
        self.labels, self.factor, self.reduction = labels, factor, reduction
        self.count = count  # the divisor of the mean

    def loss(self, a, xp=None):
        """The loss as a function of a = log p; it is linear in a. A forward, on raw arrays, gives ``xp``."""
        pick, choose = (pick_label, where) if xp is None else (_forward(pick_label, xp), xp.where)
        losses = pick(a, labels=self.labels)
        if self.factor is not None:
            losses = self.factor * choose(self.factor == 0, 0.0, losses)  # ignored: log p may be -inf
        return _reduced(-losses, self)

    def gradient(self, log_p, scale):
        """``scale`` times the derivative of the loss by the logits, factor_n (p - [c = t_n])."""
        scale = scale if self.factor is None else scale * self.factor.reshape((*self.factor.shape, 1))
        return softmax_minus_one_hot(scale, log_p, labels=self.labels)


class SoftTargets:
    """Probabilities or smoothed labels: the loss of sample n is -sum_c factor_nc log p_nc."""

    def __init__(self, factor, count, reduction):
        self.factor, self.count, self.reduction = factor, count, reduction

    def loss(self, a, xp=None):
        """The loss as a function of a = log p; it is linear in a. A class with factor 0 adds 0, also if a is -inf."""
        choose = where if xp is None else xp.where
        return _reduced(-(self.factor * choose(self.factor == 0, 0.0, a)).sum(axis=-1), self)

    def gradient(self, log_p, scale):
        """``scale`` times the derivative of the loss by the logits, y = p sum_c factor_nc - factor."""
        total = self.factor.sum(axis=-1, keepdims=True)
        return scale * _balanced(
            total * exp(log_p) - self.factor, log_p > -0.69
        )  # where p > 1 / 2, y may have lost digits


def _balanced(y, likely):
    """y with rows that add up to 0. The likely entry of a row, if there is one, is made of the others."""
    if type(y) not in BACKENDS or BACKENDS[type(y)].name != "cpu":
        return where(likely, -where(likely, 0.0, y).sum(axis=-1, keepdims=True), y)
    index = numpy.unravel_index(likely.ravel().nonzero()[0], likely.shape)  # nonzero is fast for one axis
    if index[0].size:
        y[index] = 0
        y[index] = -sum_over(y, (y.ndim - 1,))[(*index[:-1], 0)]
    return y


def _forward(op, xp):
    return functools.partial(op.primitive.forward, xp)


def _reduced(losses, targets):
    return losses if targets.reduction == "none" else losses.sum() / targets.count


def targets_of(target, log_p, weight, reduction, label_smoothing, ignore_index):
    """The targets of all samples with their weights. Of ``log_p`` only shape and dtype count."""
    classes, labels, samples = log_p.shape[-1], target, None
    soft = is_float(target.dtype)
    weight = weight if weight is None else weight.astype(log_p.dtype)
    if not soft and ignore_index is not None:
        labels, samples = _kept(target, classes, ignore_index, log_p.dtype)
    kept = samples
    if weight is not None and not soft:
        samples = weight[labels] if kept is None else kept * weight[labels]
    if reduction != "mean":
        count = 1
    elif samples is None:
        count = prod(log_p.shape[:-1]) or 1
    else:
        count = samples.sum()
        count = count + (count == 0)  # nothing counts: the mean is 0
    if not soft and not label_smoothing:
        return HardTargets(labels, samples, count, reduction)
    factor = wide(target)
    if not soft:
        ones = (labels == labels).astype(log_p.dtype)
        factor = _forward(place_label, BACKENDS[type(labels)].xp)(ones, labels=labels, classes=classes)
    if label_smoothing:
        factor = (1 - label_smoothing) * factor + label_smoothing / classes
    if weight is not None:
        factor = factor * weight
    return SoftTargets(factor if kept is None else factor * kept.reshape((*kept.shape, 1)), count, reduction)


def _kept(labels, classes, ignore_index, dtype):
    """Labels that are safe to index with; 1 where they count, 0 where ignored, NaN where out of range."""
    counts = labels != ignore_index
    inside = (labels >= 0) & (labels < classes)
    kept = (counts & inside).astype(dtype) / (inside | ~counts).astype(dtype)
    return labels * (inside & counts), kept
