"""Losses. ``reduction``: "mean", "sum", or "none" for the loss of each element or sample."""

from math import prod

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.primitive import elementwise, linear, primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.activations import sigmoid, softplus
from tinygrad_ms.ops.comparisons import clip, where
from tinygrad_ms.ops.elementwise import exp, sign
from tinygrad_ms.ops.shapes import permute_dims

__all__ = [
    "binary_cross_entropy_with_logits", "cross_entropy", "huber", "l1", "mse", "nll", "softmax_cross_entropy",
]  # fmt: skip

# --- the loss of one element --------------------------------------------------------------------------------


@elementwise(
    derivative=(lambda input, target: 2 * (input - target), lambda input, target: 2 * (target - input)),
    formula=r"l = (x - t)^2,\quad \frac{dl}{dx} = 2 (x - t)",
    source="002 (80) with the quadratic cost",
    floats=True,
)
def squared_error(xp, input, target):
    """(input - target)^2."""
    difference = input - target
    return difference * difference


@elementwise(
    derivative=(lambda input, target: sign(input - target), lambda input, target: sign(target - input)),
    formula=r"l = |x - t|,\quad \frac{dl}{dx} = \mathrm{sign}(x - t)",
    source="002 (1)",
    floats=True,
    notes="gradient 0 where input equals target",
)
def absolute_error(xp, input, target):
    """abs(input - target)."""
    return xp.abs(input - target)


@elementwise(
    derivative=(
        lambda input, target, delta: clip(input - target, -delta, delta),
        lambda input, target, delta: clip(target - input, -delta, delta),
    ),
    formula=r"l = \begin{cases} (x - t)^2 / 2 & |x - t| \le \delta \\ \delta (|x - t| - \delta / 2) &"
    r" \text{else} \end{cases},\quad \frac{dl}{dx} = \mathrm{clip}(x - t, -\delta, \delta)",
    source="Huber 1964, section 4",
    floats=True,
    notes="the second derivative jumps where abs(input - target) = delta",
)
def huber_error(xp, input, target, delta=1.0):
    """Quadratic within ``delta`` of the target, linear beyond."""
    distance = xp.abs(input - target)
    near = xp.minimum(distance, delta)
    return near * (distance - 0.5 * near)


@elementwise(
    derivative=(lambda input, target: sigmoid(input) - target, lambda input: -input),
    formula=r"l = -t \ln \sigma(x) - (1 - t) \ln (1 - \sigma(x)),\quad \frac{dl}{dx} = \sigma(x) - t",
    source="002 (100); the stable form max(x, 0) - x t + ln(1 + exp(-|x|))",
    floats=True,
)
def logistic_error(xp, input, target):
    """The cross-entropy of the probability sigmoid(input) and the target, without overflow for any logit."""
    return xp.maximum(input, 0) - input * target + xp.log1p(xp.exp(-xp.abs(input)))


# --- losses of elements -------------------------------------------------------------------------------------


def mse(input, target, weight=None, reduction="mean"):
    """Mean squared error of arrays of equal shape, mean (input - target)^2.

    weight: factor of each element; the mean is then sum(weight loss) / sum(weight).
    Raises ValueError where the shapes differ: a (n, 1) against a (n,) would silently broadcast to (n, n).
    """
    return _reduce("mse", squared_error(*_alike("mse", input, target)), weight, reduction)


def l1(input, target, weight=None, reduction="mean"):
    """Mean absolute error, mean abs(input - target); gradient 0 at equality. Arguments as for ``mse``."""
    return _reduce("l1", absolute_error(*_alike("l1", input, target)), weight, reduction)


def huber(input, target, delta=1.0, weight=None, reduction="mean"):
    """Huber loss: (input - target)^2 / 2 within ``delta``, slope ``delta`` beyond; arguments of ``mse``."""
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}; it must be positive")
    return _reduce("huber", huber_error(*_alike("huber", input, target), delta=delta), weight, reduction)


def binary_cross_entropy_with_logits(input, target, weight=None, pos_weight=None, reduction="mean"):
    """Cross-entropy of sigmoid(input) against targets in [0, 1], of equal shape.

    Stable for logits of any size.

    weight: factor of each element's loss (the mean divides by the number of elements, as in PyTorch);
    pos_weight: factor of the term of the positive class, broadcast.
    """
    op = "binary_cross_entropy_with_logits"
    input, target = _alike(op, input, target)
    if pos_weight is None:
        losses = logistic_error(input, target)
    else:
        losses = pos_weight * target * softplus(-input) + (1 - target) * softplus(input)
    return _reduce(op, losses if weight is None else losses * weight, None, reduction)


def _alike(op, input, target):
    """The arguments, once their shapes are known to be equal (a number fits any)."""
    here, there = getattr(input, "shape", None), getattr(target, "shape", None)
    if here != there and here is not None and there:
        hint = f"; did you mean target.reshape({here})?" if prod(here) == prod(there) else ""
        raise ValueError(f"{op}: input has shape {here} and target has shape {there}: they must be equal{hint}")
    return input, target


def _reduce(op, losses, weight, reduction):
    _check_reduction(op, reduction)
    if weight is not None:
        losses = losses * weight
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if weight is None:
        return losses.mean()
    return losses.sum() / (weight * (losses * 0 + 1)).sum()


def _check_reduction(op, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{op}: reduction is {reduction!r}; it must be "mean", "sum" or "none"')


# --- labels -------------------------------------------------------------------------------------------------


def _rows(xp, x, labels):
    """x as a table with one row per label, and the index of the labelled entries."""
    count = prod(labels.shape)
    return x.reshape((count, x.shape[-1])), (xp.arange(count), labels.reshape((count,)))


@linear(
    transpose=lambda g, labels, x_shape: place_label(g, labels=labels, classes=x_shape[-1]),
    formula=r"y_n = x_{n t_n}",
    source="linear map; its transpose",
    moves=True,
)
def pick_label(xp, x, /, labels):
    """The entry of each row that its integer label names: (..., classes), (...) -> (...)."""
    table, index = _rows(xp, x, labels)
    return table[index].reshape(labels.shape)


@linear(
    transpose=lambda g, labels: pick_label(g, labels=labels),
    formula=r"Y_{nc} = x_n\,[c = t_n]",
    source="linear map; its transpose",
    moves=True,
)
def place_label(xp, x, /, labels, classes):
    """Rows of zeros with x at the labels: the transpose of ``pick_label``."""
    y = xp.zeros((*labels.shape, classes), dtype=x.dtype)
    table, index = _rows(xp, y, labels)
    table[index] = x.reshape((-1,))
    return y


@primitive(
    vjp=(
        lambda g, log_probabilities, labels: (
            (g * exp(log_probabilities)).sum(axis=-1, keepdims=True)
            - pick_label(g, labels=labels).reshape((*labels.shape, 1))
        ),
        lambda g, scale, log_probabilities: g * scale * exp(log_probabilities),
    ),
    jvp=(
        lambda t, log_probabilities, labels: softmax_minus_one_hot(t, log_probabilities, labels=labels),
        lambda t, scale, log_probabilities: t * scale * exp(log_probabilities),
    ),
    formula=r"Y_{nc} = s_n (p_{nc} - [c = t_n])",
    source="002 (103)",
)
def softmax_minus_one_hot(xp, scale, log_probabilities, /, labels):
    """The gradient of the cross-entropy with integer labels, in one buffer; ``scale`` has shape (..., 1)."""
    table, index = _rows(xp, log_probabilities, labels)
    table = xp.exp(table)
    table[index] -= 1
    y = table.reshape(log_probabilities.shape)
    return xp.multiply(y, scale, out=y)


# --- cross-entropy ------------------------------------------------------------------------------------------


def _terms(target, like, weight, reduction, label_smoothing, ignore_index):
    """What the loss of one sample is made of: (labels, factor, count).

    With integer labels it is -factor_n log p[n, labels_n] (factor None: 1); with soft targets and smoothed
    labels, where ``labels`` is None, -sum_c factor_nc log p_nc. ``count`` is what the mean divides by.
    """
    classes, labels, samples = like.shape[-1], target, None
    soft = is_float(target.dtype)
    weight = weight if weight is None else weight.astype(like.dtype)
    if not soft and ignore_index is not None:
        labels, samples = _kept(target, classes, ignore_index, like.dtype)
    kept = samples
    if weight is not None and not soft:
        samples = weight[labels] if kept is None else kept * weight[labels]
    if reduction != "mean":
        count = 1
    elif samples is None:
        count = prod(like.shape[:-1]) or 1
    else:
        count = samples.sum()
        count = count + (count == 0)  # nothing counts: the mean is 0
    if not soft and not label_smoothing:
        return labels, samples, count
    ones = (labels == labels).astype(like.dtype)
    factor = target if soft else place_label(ones, labels=labels, classes=classes)
    if label_smoothing:
        factor = (1 - label_smoothing) * factor + label_smoothing / classes
    if weight is not None:
        factor = factor * weight
    return None, factor if kept is None else factor * kept.reshape((*kept.shape, 1)), count


def _kept(labels, classes, ignore_index, dtype):
    """Labels that are safe to index with; 1 where they count, 0 where ignored, NaN where out of range."""
    counts = labels != ignore_index
    inside = (labels >= 0) & (labels < classes)
    kept = (counts & inside).astype(dtype) / (inside | ~counts).astype(dtype)
    return labels * (inside & counts), kept


def _weigh(a, labels, factor, count, reduction):
    """The loss as a function of a = log p, in which it is linear."""
    if labels is None:
        losses = -(factor * a).sum(axis=-1)
    elif factor is None:
        losses = -pick_label(a, labels=labels)
    else:
        losses = -(factor * where(factor == 0, 0.0, pick_label(a, labels=labels)))  # ignored: log p may be -inf
    return losses if reduction == "none" else losses.sum() / count


def _cross_entropy_vjp(
    needed, g, log_probabilities, target, weight, reduction, label_smoothing, ignore_index
):  # fmt: skip
    g, g_log = g
    g_logits = g_target = None
    if g is not None:
        labels, factor, count = _terms(target, log_probabilities, weight, reduction, label_smoothing, ignore_index)
        scale = g.reshape((*g.shape, *(1,) * (log_probabilities.ndim - g.ndim))) / count
        if labels is None:
            total = factor.sum(axis=-1, keepdims=True)
            g_logits = scale * (total * exp(log_probabilities) - factor)
        else:
            scale = scale if factor is None else scale * factor.reshape((*factor.shape, 1))
            g_logits = softmax_minus_one_hot(scale, log_probabilities, labels=labels)
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
    labels, factor, count = _terms(target, log_probabilities, weight, reduction, label_smoothing, ignore_index)
    t_loss = t_log = None
    if t is not None:
        t_log = t - (exp(log_probabilities) * t).sum(axis=-1, keepdims=True)
        t_loss = _weigh(t_log, labels, factor, count, reduction)
    if t_target is not None:
        t_factor = (1 - label_smoothing) * t_target
        t_factor = t_factor if weight is None else t_factor * weight
        term = _weigh(log_probabilities, None, t_factor, count, reduction)
        t_loss = term if t_loss is None else t_loss + term
    return t_loss, t_log


@primitive(
    vjp=_cross_entropy_vjp,
    jvp=_cross_entropy_jvp,
    outputs=("loss", "log_probabilities"),
    formula=r"L = -\sum_c t_c \ln p_c,\ p = \mathrm{softmax}(z):\quad \frac{dL}{dz} = p - t",
    source="002 (103)",
    notes="the second output keeps log p for the gradient; classes are the last axis;"
    " ignored samples have gradient zero",
)
def _softmax_cross_entropy(
    xp, logits, target, /, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=None
):
    """The loss, and log p, which its gradient needs; classes in the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))
    terms = _terms(target, log_probabilities, weight, reduction, label_smoothing, ignore_index)
    return _weigh(log_probabilities, *terms, reduction), log_probabilities


def softmax_cross_entropy(
    logits, target, weight=None, *, axis=-1, reduction="mean", label_smoothing=0.0, ignore_index=-100
):  # fmt: skip
    """-sum_c t_c log p_c with p = softmax(logits) along ``axis``; the gradient is p - t.

    Also called ``cross_entropy``.

    logits: (..., classes), of any size: the largest is subtracted first.
    target: integer labels, of the shape of logits without ``axis``; or probabilities, of the shape of logits.
    weight: (classes,), factor of each class. label_smoothing: t becomes (1 - s) t + s / classes.
    ignore_index: samples with this label count neither in the loss nor in the mean; where none counts the
    mean is 0.
    reduction: "mean" divides by the samples (with labels: by the sum of their weights).
    Raises TypeError and ValueError for wrong dtypes and shapes, and for labels out of range. On a GPU that
    last check would make the host wait; there such a label makes the loss NaN instead.
    """
    logits, target, weight, ignore_index = _prepare("softmax_cross_entropy", logits, target, weight, axis, ignore_index)
    _check_reduction("softmax_cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"softmax_cross_entropy: label_smoothing is {label_smoothing}; it must lie in [0, 1]")
    return _softmax_cross_entropy(
        logits,
        target,
        weight=weight,
        reduction=reduction,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )[0]


cross_entropy = softmax_cross_entropy


def nll(log_probabilities, target, weight=None, *, axis=-1, reduction="mean", ignore_index=-100):
    """Negative log-likelihood -log p of integer labels, given log p (as from ``log_softmax``).

    Arguments and errors as for ``softmax_cross_entropy``.
    """
    log_probabilities, target, weight, ignore_index = _prepare(
        "nll", log_probabilities, target, weight, axis, ignore_index
    )
    if is_float(target.dtype):
        raise TypeError("nll: target must be integer labels; for probabilities use softmax_cross_entropy with logits")
    _check_reduction("nll", reduction)
    raw = target.data if isinstance(target, Tensor) else target
    terms = _terms(raw, log_probabilities, weight, reduction, 0.0, ignore_index)
    return _weigh(log_probabilities, *terms, reduction)


def _prepare(op, logits, target, weight, axis, ignore_index):
    """Checked arguments, the classes in the last axis; ``ignore_index`` is None where nothing is ignored."""
    if not hasattr(target, "dtype"):
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
        weight = weight.data if isinstance(weight, Tensor) else weight
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
    raw = target.data if isinstance(target, Tensor) else target
    return logits, target, weight, _checked(op, raw, classes, ignore_index)


def _checked(op, labels, classes, ignore_index):
    """``ignore_index``, or None where no label can be it: then the samples need no mask.

    On the CPU one reduction answers whether all labels are in range (negative ones are huge as unsigned
    numbers). On a device the host would have to wait for that answer, so there the mask is always used.
    """
    if BACKENDS[type(labels)].name != "cpu":
        return ignore_index
    if not labels.size or labels.view(f"u{labels.itemsize}").max() < classes:
        return ignore_index if 0 <= ignore_index < classes else None
    wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
    if wrong.size:
        raise ValueError(
            f"{op}: target has the label {wrong[0]}; with {classes} classes, labels lie in"
            f" 0 ... {classes - 1}"
            f" (or are ignore_index={ignore_index})"
        )
    return ignore_index
