"""Losses of classes: softmax_cross_entropy and nll. ``reduction``: "mean", "sum", or "none" for that of each sample."""

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.cards import on_its_card
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.activations import probabilities
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.fused import calls, find
from tinygrad_ms.ops.label_loss import MOST, _softmax_cross_entropy
from tinygrad_ms.ops.losses import check_reduction
from tinygrad_ms.ops.operands import as_number, as_operand, refuse_lists
from tinygrad_ms.ops.shapes import permute_dims
from tinygrad_ms.ops.targets import SoftTargets, mask_of, targets_of
from tinygrad_ms.ops.watch import note_read

__all__ = ["cross_entropy", "nll", "softmax_cross_entropy"]


def _cross_entropy_vjp(
    needed, g, log_probabilities, target, count, weight, reduction, label_smoothing, ignore_index
):  # fmt: skip
    g, g_log = g
    g_logits = g_target = None
    if g is not None and count is not None:  # by a kernel
        g_logits = calls.labelled_rule(wide(g), log_probabilities, target, count, reduction, ignore_index)
    if g is not None and g_logits is None:
        g = wide(g)
        targets = targets_of(target, log_probabilities, weight, reduction, label_smoothing, ignore_index)
        scale = g.reshape((*g.shape, *(1,) * (log_probabilities.ndim - g.ndim))) / targets.count
        g_logits = targets.gradient(log_probabilities, scale)
        if needed[1]:
            g_target = (label_smoothing - 1) * scale * log_probabilities
            g_target = g_target if weight is None else g_target * weight
    if g_log is not None:
        from_log = g_log - exp(log_probabilities) * g_log.sum(axis=-1, keepdims=True)
        g_logits = from_log if g_logits is None else g_logits + from_log
    return g_logits, g_target


def _cross_entropy_jvp(
    tangents, log_probabilities, target, weight, reduction, label_smoothing, ignore_index
):  # fmt: skip
    t, t_target = tangents
    targets = targets_of(target, log_probabilities, weight, reduction, label_smoothing, ignore_index)
    t_loss = t_log = None
    if t is not None:
        t_log = t - (exp(log_probabilities) * t).sum(axis=-1, keepdims=True)
        t_loss = targets.loss(t_log)
    if t_target is not None:
        t_factor = (1 - label_smoothing) * t_target
        t_factor = t_factor if weight is None else t_factor * weight
        term = SoftTargets(t_factor, targets.count, reduction).loss(log_probabilities)
        t_loss = term if t_loss is None else t_loss + term
    return t_loss, t_log


@primitive(
    vjp=_cross_entropy_vjp,
    jvp=_cross_entropy_jvp,
    outputs=("loss", "log_probabilities"),
    cache=("count",),
    formula=r"L = -\sum_c t_c \ln p_c,\ p = \mathrm{softmax}(z):\quad \frac{dL}{dz} = p - t",
    source="ai-edu, equation 103",
    notes="the second output keeps log p for the gradient; classes are the last axis;"
    " ignored samples have gradient zero",
)
def _cross_entropy(xp, logits, target, /, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=None):
    """The loss, and log p for its gradient, at least in float32. The classes are in the last axis.

    It leaves what the mean was divided by, if a kernel did that.
    """
    if (
        weight is None
        and not label_smoothing
        and (found := calls.labelled_loss(logits, target, reduction, ignore_index))
    ):
        loss, log_p, count = found
        return (loss.astype(logits.dtype, copy=False), log_p), (count,)
    log_p = probabilities(xp, wide(logits), -1, logarithm=True)
    targets = targets_of(target, log_p, weight, reduction, label_smoothing, ignore_index)
    return (targets.loss(log_p, xp).astype(logits.dtype, copy=False), log_p), (None,)


@on_its_card
def softmax_cross_entropy(
    logits, target, weight=None, *, axis=-1, reduction="mean", label_smoothing=0.0, ignore_index=-100
):  # fmt: skip
    """-sum_c t_c log p_c with p = softmax(logits) along ``axis``; the gradient is p - t.

    Also called ``cross_entropy``.

    logits: (..., classes). They may be large: the largest one is subtracted first.
    target: integer labels with the shape of logits without ``axis``, or probabilities with the shape of logits.
    weight: (classes,), a factor for each class. label_smoothing: a number s; t becomes (1 - s) t + s / classes.
    ignore_index: samples with this label count neither in the loss nor in the mean. If no sample counts, the mean is
    0.
    reduction: "mean" divides by the samples (with labels: by the sum of their weights).
    Raises TypeError and ValueError for wrong dtypes and shapes, and for labels out of range. On a GPU the check of the
    labels would make the host wait. There a label out of range makes the loss NaN.

    >>> logits = tg.tensor([[2.0, 0.0], [0.0, 2.0]], requires_grad=True)
    >>> loss = tg.cross_entropy(logits, [0, 0])
    >>> loss.backward()
    >>> round(loss.item(), 4), tg.round(logits.grad, 3)
    (1.1269, Tensor([[-0.06,  0.06],
            [-0.44,  0.44]], dtype=float32))
    """
    logits, target, weight, ignore_index = _prepare("softmax_cross_entropy", logits, target, weight, axis, ignore_index)
    check_reduction("softmax_cross_entropy", reduction)
    if type(label_smoothing) is not float or label_smoothing:
        label_smoothing = as_number(label_smoothing, "softmax_cross_entropy: label_smoothing")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"softmax_cross_entropy: label_smoothing is {label_smoothing}; it must lie in [0, 1]")
    plain = weight is None is ignore_index and not label_smoothing and target.dtype.kind in "iu"
    if plain and (0 < logits.size <= MOST or (logits.size > MOST and find("label_loss", raw(logits)))):
        if reduction == "mean":
            return _softmax_cross_entropy(logits, target)  # a call with its defaults takes less time
        return _softmax_cross_entropy(logits, target, reduction=reduction)
    return _cross_entropy(
        logits, target, weight=weight, reduction=reduction, label_smoothing=label_smoothing, ignore_index=ignore_index
    )[0]


cross_entropy = softmax_cross_entropy


@on_its_card
def nll(log_probabilities, target, weight=None, *, axis=-1, reduction="mean", ignore_index=-100):
    """Negative log-likelihood -log p of integer labels, given log p (as from ``log_softmax``).

    Arguments and errors as for ``softmax_cross_entropy``.
    """
    log_probabilities, target, weight, ignore_index = _prepare(
        "nll", log_probabilities, target, weight, axis, ignore_index
    )
    if is_float(target.dtype):
        raise TypeError("nll: target must be integer labels; for probabilities use softmax_cross_entropy with logits")
    check_reduction("nll", reduction)
    scores = wide(log_probabilities)
    note_read(target)
    labels = raw(target).copy() if getattr(log_probabilities, "requires_grad", False) else raw(target)
    loss = targets_of(labels, scores, weight, reduction, 0.0, ignore_index).loss(scores)
    return loss if scores is log_probabilities else loss.astype(log_probabilities.dtype)


def _prepare(op, logits, target, weight, axis, ignore_index):
    """The checked arguments, with the classes in the last axis. ``ignore_index`` is None if nothing is ignored."""
    if weight is None and type(logits) is Tensor and axis == -1 and type(labels := raw(target)) is type(logits.data):
        shape = logits.data.shape  # nearly all calls are as plain as this one, and cost little
        if shape and labels.dtype.kind in "iu" and is_float(logits.data.dtype) and labels.shape == shape[:-1]:
            return logits, target, None, mask_of(op, labels, shape[-1], ignore_index)
    logits = as_operand(logits)
    refuse_lists(op, target)
    if type(raw(target)) not in BACKENDS:
        target = asarray(target, device=logits.device if isinstance(logits, Tensor) else None)
    shape, dtype = logits.shape, target.dtype
    if not is_float(logits.dtype):
        raise TypeError(f"{op}: the scores have dtype {logits.dtype}; they must be floats, use .astype('float32')")
    if not shape or not -len(shape) <= axis < len(shape):
        raise ValueError(f"{op}: axis {axis} is no axis of the scores, which have shape {shape}")
    axis %= len(shape)
    if axis != len(shape) - 1:
        order = (*range(axis), *range(axis + 1, len(shape)), axis)
        logits = permute_dims(logits, axes=order)
        target = permute_dims(target, axes=order) if target.shape == shape else target
    classes, samples = shape[axis], logits.shape[:-1]
    if weight is not None:
        refuse_tracked(
            f"{op}: weight", weight, "it has no derivative here; pass .detach(), or multiply the losses by it"
        )
        if type(raw(weight)) not in BACKENDS:
            weight = asarray(weight, device=logits.device if isinstance(logits, Tensor) else None)
        note_read(weight)
        weight = raw(weight).copy()  # a copy, because the gradient reads it again
        if weight.shape != (classes,):
            raise ValueError(f"{op}: weight has shape {weight.shape}; with {classes} classes it must be ({classes},)")
    if is_float(dtype):
        if target.shape != logits.shape:
            hint = f"; labels of shape {samples} must be integers, use .astype('int64')"
            hint = hint if target.shape == samples else ""
            raise ValueError(
                f"{op}: the scores have shape {shape} and target has shape {target.shape} and dtype {dtype}:"
                f" probabilities must have the shape of the scores{hint}"
            )
        return logits, target, weight, None
    if dtype.kind not in "iu" or target.shape != samples:
        raise (TypeError if dtype.kind not in "iu" else ValueError)(
            f"{op}: the scores have shape {shape} and target has shape {target.shape} and dtype {dtype}: with"
            f" {classes} classes in axis {axis}, expected integer labels of shape {samples} or float"
            f" probabilities of shape {shape}"
        )
    return logits, target, weight, mask_of(op, raw(target), classes, ignore_index)
