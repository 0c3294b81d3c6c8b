"""softmax and log_softmax of rows, and their rules."""

import numpy

from tinygrad_ms.ops.fused.devices.rows import Rows, doubled, wave

__all__: list[str] = []

SHIFTED = """
    const T* a = x + i * n;
    R top = -infinity(), total = 0;
    ALONG top = maximum(top, a[j]);
    top = largest_of(top);
    ALONG total += exp(a[j] - top);
    total = total_of(total);
"""


def softmax(xp, x, rows, n):
    e = xp.exp(x.astype("float64") - x.max(axis=-1, keepdims=True))
    return [(e / e.sum(axis=-1, keepdims=True)).astype(x.dtype)]


def softmax_rule(xp, g, y, rows, n):
    u, v = doubled(g, y)
    return [(v * (u - (u * v).sum(axis=-1, keepdims=True))).astype(g.dtype)]


def log_softmax(xp, x, rows, n):
    z = x.astype("float64") - x.max(axis=-1, keepdims=True)
    return [(z - xp.log(xp.exp(z).sum(axis=-1, keepdims=True))).astype(x.dtype)]


def log_softmax_rule(xp, g, y, rows, n):
    u, v = doubled(g, y)
    return [(u - xp.exp(v) * u.sum(axis=-1, keepdims=True)).astype(g.dtype)]


ONE, TWO = "T* y, long long rows, long long n", "const T* y, T* dx, long long rows, long long n"
Rows(
    "softmax", ONE, f"ROWS {{{SHIFTED} ALONG y[i * n + j] = exp(a[j] - top) / total; }}", softmax, [None],
    lambda dtype: [wave(3, 70).astype(dtype), 3, 70],
)  # fmt: skip
Rows(
    "log_softmax", ONE, f"ROWS {{{SHIFTED} R rest = log(total); ALONG y[i * n + j] = (a[j] - top) - rest; }}",
    log_softmax, [None], lambda dtype: [wave(3, 70).astype(dtype), 3, 70],
)  # fmt: skip
Rows(
    "softmax_rule", TWO, """
    ROWS {
        R along = 0;
        ALONG along += x[i * n + j] * y[i * n + j];
        along = total_of(along);
        ALONG dx[i * n + j] = y[i * n + j] * (x[i * n + j] - along);
    }
""", softmax_rule, [None],
    lambda dtype: [wave(3, 70).astype(dtype), softmax(numpy, wave(3, 70), 3, 70)[0].astype(dtype), 3, 70],
)  # fmt: skip
Rows(
    "log_softmax_rule", TWO, """
    ROWS {
        R whole = 0;
        ALONG whole += x[i * n + j];
        whole = total_of(whole);
        ALONG dx[i * n + j] = x[i * n + j] - exp(y[i * n + j]) * whole;
    }
""", log_softmax_rule, [None],
    lambda dtype: [wave(3, 70).astype(dtype), *log_softmax(numpy, wave(3, 70).astype(dtype), 3, 70), 3, 70],
)  # fmt: skip
