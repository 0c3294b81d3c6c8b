"""Kernels of the cross-entropy with integer labels.

The gradient at the label, p - 1, is computed as minus the sum of the other entries of the row. The difference p - 1
would lose its digits where p is near 1.
"""

from numpy import empty, float32, float64

from tinygrad_ms.ops.fused.row_kernels import EACH, LABELS, ROWS, TOTALS, row_by_row, rows
from tinygrad_ms.ops.fused.rows import largest, powers, sum_of
from tinygrad_ms.ops.fused.single import DOWN, exp_below

__all__: list[str] = []

PART = 1024  # so many exponentials are kept before they are added up


def sum_of_powers(x, m, part):
    """The sum of e^(x - m) for x <= m."""
    total = float64(0.0)
    for start in range(0, x.size, PART):
        piece = x[start : start + PART]
        total += powers(piece, m, part[: piece.size])
    return total * DOWN


@rows(ROWS, LABELS, TOTALS, TOTALS, TOTALS)
def label_loss(x, label, top, rest, total):
    """The largest number m of each row, and the sum of e^(x - m), without and with the entry of the label."""
    part = empty(PART, float32)
    for i in range(x.shape[0]):
        k, m = int(label[i]), largest(x[i])
        others = sum_of_powers(x[i, :k], m, part) + sum_of_powers(x[i, k + 1 : x.shape[1]], m, part)
        top[i], rest[i], total[i] = m, others, others + float64(exp_below(x[i, k] - m))


@row_by_row(ROWS, ROWS, LABELS, EACH, EACH, EACH)
def label_loss_rule(x, y, label, top, scale, last):
    """scale e^(x - top), and ``last`` at the label."""
    for j in range(x.size):
        y[j] = exp_below(x[j] - top) * scale
    y[label] = last


def probabilities(log_p, y, scale):
    """scale p for a part of a row, and its sum."""
    for j in range(y.size):
        y[j] = exp_below(log_p[j]) * scale
    return sum_of(y)


@row_by_row(ROWS, ROWS, EACH, LABELS)
def softmax_minus_one_hot(log_p, y, scale, label):
    others = probabilities(log_p[:label], y[:label], scale)
    others += probabilities(log_p[label + 1 : y.size], y[label + 1 : y.size], scale)
    y[label] = -others
