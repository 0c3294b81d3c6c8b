"""Kernels for devices over the rows of a matrix: softmax and its kin, cross-entropy with labels, normalisation.

A block takes a row at a time. All compute in the dtype of the arrays, half precision in float32, and round once.
"""

import numpy

from tinygrad_ms.arrays.sums import HALF
from tinygrad_ms.ops.fused.devices import DTYPES, MOST_BLOCKS, TYPES, Kernel

__all__: list[str] = []


class Rows(Kernel):
    """Behind the arrays stand the numbers of rows and of columns, then other numbers.

    source: the body of the function. parameters: what it gets behind ``const T* x``. shapes: of the results, by
    (x, numbers), None for that of x; they have the dtype of x, those in ``wide`` at least float32.
    """

    def __init__(self, name, parameters, source, reference, shapes, samples, dtypes="fd", wide=(), head=""):
        super().__init__(name, 1 + parameters.count("const "), reference, dtypes)
        self.parameters, self.source, self.head, self.wide = parameters, source, head, wide
        self.shapes, self.arguments = shapes, samples

    def text(self, dtypes, constants):
        real = "double" if dtypes[0] == "d" else "float"
        kinds = {"T": TYPES[dtypes[0]], "R": real, "L": TYPES[dtypes[1]] if len(dtypes) > 1 else "int"}
        types = "\n".join(f"typedef {kind} {name};" for name, kind in kinds.items())
        parameters = f"const T* x, {self.parameters}"
        return f'{types}{self.head}\nextern "C" __global__ void NAME({parameters}) {{{self.source}}}\n'

    def makes(self, arrays, numbers):
        x, kinds = arrays[0], [arrays[0].dtype] * len(self.shapes)
        for k in self.wide if x.dtype.char in HALF else ():
            kinds[k] = numpy.dtype("float32")
        return [(x.shape if shape is None else shape(x, numbers), kind) for shape, kind in zip(self.shapes, kinds)]

    def geometry(self, arrays, numbers):
        rows, n = numbers[:2]
        return (min(rows, MOST_BLOCKS),), 32 if n <= 256 else 64 if n <= 512 else 128 if n <= 2048 else 256

    def samples(self, dtype):
        return self.arguments(numpy.dtype(DTYPES[dtype]))


def wave(*shape):
    """Numbers to check with."""
    count = int(numpy.prod(shape))
    return (3 * numpy.sin(numpy.arange(count) ** 1.5)).reshape(shape)


def doubled(*arrays):
    return [a.astype("float64") for a in arrays]


# --- softmax --------------------------------------------------------------------------------------------------------

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

# --- cross-entropy with labels --------------------------------------------------------------------------------------

NO_LABEL = -(2**63)  # an ``ignore_index`` that ignores nothing
LABELS = numpy.array([4, -100, 69])


def _picked(xp, y, labels, ignore):
    """For each row: 1 where its label is a class, 0 where it is ignored, else NaN; and the label, or 0."""
    inside = (labels >= 0) & (labels < y.shape[-1])
    return xp.where(labels == ignore, 0.0, xp.where(inside, 1.0, numpy.nan)), xp.where(inside, labels, 0)


def label_loss(xp, x, labels, rows, n, ignore):
    (y,) = log_softmax(xp, x.astype("float64"), rows, n)
    counts, k = _picked(xp, y, labels, ignore)
    picked = xp.take_along_axis(y, k[..., None].astype("int64"), axis=-1)[..., 0]
    return [y.astype(x.dtype), xp.where(counts == 0, 0.0, -picked * counts).astype(x.dtype)]


def label_total(xp, losses, labels, rows, n, ignore, mean):
    count = xp.asarray(max(int((labels != ignore).sum()), 1) if mean else 1, dtype=losses.dtype)
    return [(losses.astype("float64").sum() / count).astype(losses.dtype), count]


def label_rule(xp, log_p, labels, scale, count, rows, n, step, divided, ignore):
    p = xp.exp(log_p.astype("float64"))
    counts, k = _picked(xp, p, labels, ignore)
    s = counts * (scale.reshape(labels.shape) if step else scale.reshape(())) / (count if divided else 1)
    there = (xp.arange(p.shape[-1]) == k[..., None]) & (counts == 1)[..., None]
    others = xp.where(there, 0.0, p).sum(axis=-1, keepdims=True)
    return [(xp.where(there, -others, p) * s[..., None]).astype(log_p.dtype)]


Rows(
    "label_loss", "const L* labels, T* y, T* losses, long long rows, long long n, long long ignore", f"""
    ROWS {{{SHIFTED}
        R rest = log(total);
        ALONG y[i * n + j] = (a[j] - top) - rest;
        long long k = labels[i];
        if (threadIdx.x == 0)
            losses[i] = k == ignore ? (R)0 : k < 0 || k >= n ? (R)not_a_number() : rest - (a[k] - top);
    }}
""", label_loss, [None, lambda x, numbers: x.shape[:-1]],
    lambda dtype: [wave(3, 70).astype(dtype), LABELS, 3, 70, -100],
)  # fmt: skip


class One(Rows):
    """A kernel of one block."""

    def geometry(self, arrays, numbers):
        return (1,), 1024 if numbers[1] > 2048 else 256


One(
    "label_total",
    "const L* labels, T* loss, T* count, long long rows, long long n, long long ignore, long long mean", """
    double total = 0, counted = 0;
    ALONG { total += x[j]; counted += labels[j] != ignore; }
    total = total_of(total);
    counted = total_of(counted);
    if (!mean || counted == 0) counted = 1;
    if (threadIdx.x == 0) { loss[0] = total / counted; count[0] = counted; }
""", label_total, [lambda x, numbers: ()] * 2,
    lambda dtype: [wave(3).astype(dtype), LABELS, 1, 3, -100, 1],
)  # fmt: skip
Rows(
    "label_rule",
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
""", label_rule, [None],
    lambda dtype: [
        *log_softmax(numpy, wave(3, 70).astype(dtype), 3, 70), LABELS, wave(3).astype(dtype),
        numpy.asarray(2, dtype), 3, 70, 1, 1, -100,
    ],
)  # fmt: skip

# --- normalisation --------------------------------------------------------------------------------------------------

MOMENTS = """
__device__ inline R at(const T* x, long long j, R s) { return s == 1 ? (R)x[j] : x[j] / s; }
struct Moments { R scale, mean, low, r; };  // h = ((x / scale - mean) - low) r
__device__ inline Moments moments_of(const T* x, long long n, R eps, bool center) {
    Moments f = {1, 0, 0, 0};
    R square = 0;
    for (bool first = true;; first = false) {  // a second time where squares leave the range
        R total = 0, rest = 0;
        if (center) ALONG total += at(x, j, f.scale);
        f.mean = center ? total_of(total) / n : 0;
        square = 0;
        ALONG { R c = at(x, j, f.scale) - f.mean; rest += c; square += c * c; }
        f.low = center ? total_of(rest) / n : 0;
        square = total_of(square) / n - f.low * f.low;
        if (!first || (square > (sizeof(R) == 4 ? (R)1e-30 : (R)1e-290) && square < infinity())) break;
        R top = 0;
        ALONG top = maximum(top, (R)fabs((R)x[j]));
        top = largest_of(top);
        int e = 1;
        if (top > 0 && top < infinity()) frexp(top, &e);
        f.scale = ldexp((R)1, e - 1);
        if (eps > 0 && !(f.scale > 1)) f.scale = 1;
        if (f.scale == 1) break;
    }
    f.r = 1 / sqrt(square + eps / f.scale / f.scale);
    return f;
}
"""


def _moments(xp, x, n, eps, center):
    """As in the text, by calls of the array library, in float64: scale, mean, r for each row, and x centred."""
    z = x.astype("float64").reshape((-1, n))
    top = abs(z).max(axis=-1, keepdims=True)
    far = (top > 0) & (top < numpy.inf) & ((top < 1e-140) | (top > 1e140))
    scale = xp.ldexp(xp.ones_like(top), xp.frexp(xp.where(far, top, 1.0))[1] - 1)
    scale = xp.where(far, xp.maximum(scale, 1.0) if eps else scale, 1.0)
    z = z / scale
    mean = z.mean(axis=-1, keepdims=True) * center
    c = z - mean
    r = 1 / ((c * c).mean(axis=-1, keepdims=True) + eps / scale / scale) ** 0.5
    return scale, mean, r, c


def normalize(xp, x, weight, bias, rows, n, weighted, biased, center, eps):
    _, _, r, c = _moments(xp, x, n, eps, center)
    y = c * (r * weight.reshape(-1).astype("float64")) if weighted else c * r
    y = y + bias.reshape(-1) if biased else y
    return [y.reshape(x.shape).astype(x.dtype)]


def normalize_rule(xp, g, x, weight, rows, n, weighted, center, eps):
    scale, mean, r, c = _moments(xp, x, n, eps, center)
    u = g.astype("float64").reshape((-1, n)) * (weight.reshape(-1) if weighted else 1)
    s, along = r / scale, (c * u).mean(axis=-1, keepdims=True)
    dx = s * (u - u.mean(axis=-1, keepdims=True) * center) - c * (s * (r * (r * along)))
    facts = xp.concatenate([scale, mean, 0 * mean, r], axis=-1)
    return [dx.reshape(x.shape).astype(x.dtype), facts.astype(x.dtype if x.itemsize > 2 else "float32")]


def columns(xp, g, x, facts, rows, n, parts):
    f, u, z = doubled(facts.reshape((-1, 4)), g.reshape((-1, n)), x.reshape((-1, n)))
    h = (z / f[:, :1] - f[:, 1:2] - f[:, 2:3]) * f[:, 3:]
    step, kind = -(-rows // parts), x.dtype if x.itemsize > 2 else "float32"
    sums = [[a[i * step : (i + 1) * step].sum(axis=0) for i in range(parts)] for a in (u * h, u)]
    return [xp.stack(a).astype(kind).reshape(-1) if parts == 1 else xp.stack(a).astype(kind) for a in sums]


Rows(
    "normalize",
    "const T* weight, const T* bias, T* y, long long rows, long long n, long long weighted, long long biased,"
    " long long center, double eps", """
    ROWS {
        const T* a = x + i * n;
        Moments f = moments_of(a, n, eps, center);
        ALONG {
            R c = (at(a, j, f.scale) - f.mean) - f.low, w = weighted ? (R)weight[j] : (R)1;
            y[i * n + j] = c * (f.r * w) + (biased ? (R)bias[j] : (R)0);
        }
    }
""", normalize, [None],
    lambda dtype: [*(a.astype(dtype) for a in (wave(3, 70), wave(70), wave(70))), 3, 70, 1, 1, 1, 1e-5],
    dtypes="eEfd", head=MOMENTS,
)  # fmt: skip
Rows(
    "normalize_rule",  # x is the gradient of the result here
    "const T* z, const T* weight, T* dx, R* facts, long long rows, long long n, long long weighted, long long center,"
    " double eps", """
    ROWS {
        const T *a = z + i * n, *g = x + i * n;
        Moments f = moments_of(a, n, eps, center);
        R along = 0, across = 0;
        ALONG {
            R u = weighted ? g[j] * (R)weight[j] : (R)g[j];
            along += ((at(a, j, f.scale) - f.mean) - f.low) * u;
            across += u;
        }
        along = total_of(along) / n;
        across = center ? total_of(across) / n : 0;
        R s = f.r / f.scale, k = s * (f.r * (f.r * along));
        ALONG {
            R u = weighted ? g[j] * (R)weight[j] : (R)g[j];
            dx[i * n + j] = s * (u - across) - ((at(a, j, f.scale) - f.mean) - f.low) * k;
        }
        if (threadIdx.x == 0) {
            facts[4 * i] = f.scale; facts[4 * i + 1] = f.mean; facts[4 * i + 2] = f.low; facts[4 * i + 3] = f.r;
        }
    }
""", normalize_rule, [None, lambda x, numbers: (numbers[0], 4)],
    lambda dtype: [*(a.astype(dtype) for a in (wave(3, 70), wave(3, 70)[::-1], wave(70))), 3, 70, 1, 1, 1e-5],
    dtypes="eEfd", head=MOMENTS, wide=(1,),
)  # fmt: skip


class Columns(Rows):
    """A block takes 32 columns of a part of the rows."""

    def geometry(self, arrays, numbers):
        return (-(-numbers[1] // 32), numbers[2]), 256


def _part_shape(x, numbers):
    return (numbers[1],) if numbers[2] == 1 else (numbers[2], numbers[1])


Columns(
    "columns",  # the gradients of weight and bias; x is that of the result
    "const T* z, const R* facts, R* by_weight, R* by_bias, long long rows, long long n, long long parts", """
    __shared__ R sums[2][256];
    long long j = blockIdx.x * 32LL + threadIdx.x % 32, step = (rows + parts - 1) / parts, start = blockIdx.y * step;
    R along = 0, across = 0;
    for (long long i = start + threadIdx.x / 32; j < n && i < rows && i < start + step; i += 8) {
        const R* f = facts + 4 * i;
        R g = x[i * n + j], c = f[0] == 1 ? (R)z[i * n + j] : z[i * n + j] / f[0];
        along += g * (((c - f[1]) - f[2]) * f[3]);
        across += g;
    }
    sums[0][threadIdx.x] = along;
    sums[1][threadIdx.x] = across;
    __syncthreads();
    if (threadIdx.x < 64) {
        R total = 0;
        j = blockIdx.x * 32LL + threadIdx.x % 32;
        for (int k = threadIdx.x % 32; k < 256; k += 32) total += sums[threadIdx.x / 32][k];
        if (j < n) (threadIdx.x < 32 ? by_weight : by_bias)[blockIdx.y * n + j] = total;
    }
""", columns, [_part_shape] * 2,
    lambda dtype: [
        *(a.astype(dtype) for a in (wave(9, 70), wave(9, 70)[::-1])),
        (wave(9, 4) ** 2 + 1).astype("float32" if dtype.itemsize < 4 else dtype), 9, 70, 2,
    ],
    dtypes="eEfd", wide=(0, 1),
)  # fmt: skip
