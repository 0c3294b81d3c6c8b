"""Softmax cross-entropy of a few samples with plain integer labels: one op, in few calls of the array library.

``ops/classification.py`` does this for any target. Here is the case that small networks meet at every step. The classes
are the last axis.
"""

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.activations import log_softmax
from tinygrad_ms.ops.short_rows import SHORT
from tinygrad_ms.ops.targets import softmax_minus_one_hot

__all__: list[str] = []

MOST = 1 << 16  # up to so many logits the number of calls decides the time


def _scale(g, target, reduction):
    """The gradient of the loss of each sample, from that of the result. It has an axis of size one for the classes."""
    g = wide(g)
    g = g / (target.size or 1) if reduction == "mean" else g
    return g.reshape((*target.shape, 1) if reduction == "none" else (1,) * (target.ndim + 1))


def _label_loss_rule(g, logits, target, e, rest, total, entries, reduction):
    scale = _scale(g, target, reduction)
    if e is None:  # under create_graph
        return softmax_minus_one_hot(scale, log_softmax(wide(logits)), labels=target)
    scale = scale.reshape((-1, 1) if total.shape[1] == 1 else (1, -1)) / total
    y = e * scale
    y.reshape((-1,))[entries] = -(rest * scale).reshape((-1,))  # p - 1 would lose its digits where p is near 1
    return (y if total.shape[1] == 1 else y.T).reshape(logits.shape)


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
    sums with the labelled entries, and the places of these entries.
    """
    n, classes = target.size, logits.shape[-1]
    labels = target.reshape((-1,)).astype("int64", copy=False)
    z = wide(logits).reshape((n, classes))
    if classes <= SHORT <= 4 * n:  # NumPy reduces columns several at once
        z, axis, entries = xp.ascontiguousarray(z.T), 0, labels * n + xp.arange(n)
    else:
        z, axis, entries = xp.ascontiguousarray(z), 1, labels + xp.arange(0, n * classes, classes)
    z = z - z.max(axis=axis, keepdims=True)
    labelled = z.reshape((-1,))[entries]
    e = xp.exp(z, out=z)
    e.reshape((-1,))[entries] = 0
    rest = e.sum(axis=axis, keepdims=True)
    total = rest + xp.exp(labelled).reshape(rest.shape)
    losses = xp.log(total).reshape((-1,)) - labelled
    if reduction == "none":
        loss = losses.reshape(target.shape)
    else:
        loss = losses.sum() / (n or 1) if reduction == "mean" else losses.sum()
    return loss.astype(logits.dtype, copy=False), (e, rest, total, entries)
