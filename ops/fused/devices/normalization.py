"""layer_norm and rms_norm: rows, their gradient, and the sums over rows that weight and bias get."""

import numpy

from tinygrad_ms.ops.fused.devices.rows import Rows, doubled, wave

__all__: list[str] = []


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
