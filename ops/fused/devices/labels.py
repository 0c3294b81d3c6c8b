"""Cross-entropy with integer labels: the loss of each row, its mean or sum, and the gradient."""

import numpy

from tinygrad_ms.ops.fused.devices.rows import Rows, wave
from tinygrad_ms.ops.fused.devices.softmax import SHIFTED, log_softmax

__all__: list[str] = []

NO_LABEL = -(2**63)  # an ``ignore_index`` that ignores nothing
LABELS = numpy.array([4, -100, 69])


def _picked(xp, y, labels, ignore):
    """For each row: 1 where its label is a class, 0 where it is ignored, else NaN; and the label, or 0."""
    inside = (labels >= 0) & (labels < y.shape[-1])
    return xp.where(labels == ignore, 0.0, xp.where(inside, 1.0, numpy.nan)), xp.where(inside, labels, 0)


def labelled_loss(xp, x, labels, rows, n, ignore):
    (y,) = log_softmax(xp, x.astype("float64"), rows, n)
    counts, k = _picked(xp, y, labels, ignore)
    picked = xp.take_along_axis(y, k[..., None].astype("int64"), axis=-1)[..., 0]
    return [y.astype(x.dtype), xp.where(counts == 0, 0.0, -picked * counts).astype(x.dtype)]


def labelled_total(xp, losses, labels, rows, n, ignore, mean):
    count = xp.asarray(max(int((labels != ignore).sum()), 1) if mean else 1, dtype=losses.dtype)
    return [(losses.astype("float64").sum() / count).astype(losses.dtype), count]


def labelled_rule(xp, log_p, labels, scale, count, rows, n, step, divided, ignore):
    p = xp.exp(log_p.astype("float64"))
    counts, k = _picked(xp, p, labels, ignore)
    s = counts * (scale.reshape(labels.shape) if step else scale.reshape(())) / (count if divided else 1)
    there = (xp.arange(p.shape[-1]) == k[..., None]) & (counts == 1)[..., None]
    others = xp.where(there, 0.0, p).sum(axis=-1, keepdims=True)
    return [(xp.where(there, -others, p) * s[..., None]).astype(log_p.dtype)]


Rows(
    "labelled_loss", "const L* labels, T* y, T* losses, long long rows, long long n, long long ignore", f"""
    ROWS {{{SHIFTED}
        R rest = log(total);
        ALONG y[i * n + j] = (a[j] - top) - rest;
        long long k = labels[i];
        if (threadIdx.x == 0)
            losses[i] = k == ignore ? (R)0 : k < 0 || k >= n ? (R)not_a_number() : rest - (a[k] - top);
    }}
""", labelled_loss, [None, lambda x, numbers: x.shape[:-1]],
    lambda dtype: [wave(3, 70).astype(dtype), LABELS, 3, 70, -100],
)  # fmt: skip


class One(Rows):
    """A kernel of one block."""

    def geometry(self, arrays, numbers):
        return (1,), 1024 if numbers[1] > 2048 else 256


One(
    "labelled_total",
    "const L* labels, T* loss, T* count, long long rows, long long n, long long ignore, long long mean", """
    double total = 0, counted = 0;
    ALONG { total += x[j]; counted += labels[j] != ignore; }
    total = total_of(total);
    counted = total_of(counted);
    if (!mean || counted == 0) counted = 1;
    if (threadIdx.x == 0) { loss[0] = total / counted; count[0] = counted; }
""", labelled_total, [lambda x, numbers: ()] * 2,
    lambda dtype: [wave(3).astype(dtype), LABELS, 1, 3, -100, 1],
)  # fmt: skip
Rows(
    "labelled_rule",
    "const L* labels, const T* scale, const T* count, T* y, long long rows, long long n, long long step,"
    " long long divided, long long ignore", """
    ROWS {
        long long k = labels[i];
        R s = divided ? scale[i * step] / count[0] : scale[i * step], others = 0;
        if (k == ignore) s = 0; else if (k < 0 || k >= n) s = not_a_number();
        ALONG if (j != k) others += exp(x[i * n + j]);
        others = total_of(others);  // not p - 1, which has no digits where p is near 1
        ALONG y[i * n + j] = s * (j == k ? -others : exp(x[i * n + j]));
    }
""", labelled_rule, [None],
    lambda dtype: [
        *log_softmax(numpy, wave(3, 70).astype(dtype), 3, 70), LABELS, wave(3).astype(dtype),
        numpy.asarray(2, dtype), 3, 70, 1, 1, -100,
    ],
)  # fmt: skip
