"""Kernels of the iterations on devices: what lies between their products, and scaling. One launch each.

The text in C and the array functions below it say the same; ``i`` is the number of an element, x is (batch, n, n).
"""

from tinygrad_ms.launches import launcher
from tinygrad_ms.launches.kernels import elementwise, per_matrix_reduction
from tinygrad_ms.ops.fused.symbols import SIGNS

__all__: list[str] = []


def for_device(x) -> bool:
    """Whether the arrays are of a library that has products and kernels of one launch."""
    return launcher(x) is not None


@per_matrix_reduction("T x", "T y", "x < 0 ? -x : x", SIGNS["maximum"].format("a", "b"), "y = a")
def largest_element(xp, x, y):
    y[...] = xp.abs(x).max(axis=(1, 2))


@per_matrix_reduction(
    "T x, T top", "float64 y", "((double)x / (top == 0 ? 1.0 : top)) * ((double)x / (top == 0 ? 1.0 : top))", "a + b",
    "y = sqrt(a)",
)  # fmt: skip
def relative_norm(xp, x, top, y):
    """||x / top||_F, where top is the largest element."""
    y[...] = xp.sqrt(xp.square(x.astype("float64") / xp.where(top == 0, 1, top)).sum(axis=(1, 2)))


@per_matrix_reduction("T x", "T y", "x * x", "a + b", "y = sqrt(a)")
def norm_of_norms(xp, x, y):
    y[...] = xp.sqrt(xp.square(x).sum(axis=(1, 2)))


@elementwise(
    "T x, T top, float64 norm, float64 scale", "T y",
    "y = top == 0 ? (T)0 : (T)((double)x / top / (norm * scale))",
)  # fmt: skip
def relative(xp, x, top, norm, scale, y):
    """x / (top norm scale), 0 for 0."""
    y[...] = x.astype("float64") / xp.where(top == 0, 1, top) / (xp.where(top == 0, 1, norm) * scale)


@elementwise(
    "T s, T t, float64 a, float64 r, int64 width", "T y",
    "y = t + (T)a * s + ((i / width) % width == i % width ? (T)r : (T)0)",
)  # fmt: skip
def completed(xp, s, t, a, r, n, y):
    """t + a s + r I."""
    xp.add(t, s * a, out=y)
    y += r * xp.eye(n, dtype=y.dtype)


@elementwise(
    "T q, T other, T r, float64 sign, float64 p, int64 width", "T d, T s",
    "d = q + (T)sign * other; s = r + ((i / width) % width == i % width ? (T)p : (T)0)",
)  # fmt: skip
def combined(xp, q, other, r, sign, p, n, d, s):
    """q + sign other, and r + p I."""
    xp.add(q, other * sign, out=d)
    xp.add(r, p * xp.eye(n, dtype=r.dtype), out=s)


@elementwise("T x, T other, T top, float64 sign", "T y", "y = (x + (T)sign * other) / (top == 0 ? (T)1 : top)")
def relative_part(xp, x, other, top, sign, y):
    """(x + sign other) / top."""
    xp.divide(x + other * sign, xp.where(top == 0, 1, top), out=y)


@elementwise(
    "T x, T other, float64 sign, T top, T size, float64 norm, float64 factor", "T y",
    "y = size == 0 ? (T)0 : (T)(((double)x + sign * other) * (factor / norm * ((double)top / size)))",
)  # fmt: skip
def rescaled(xp, x, other, sign, top, size, norm, factor, y):
    """(x + sign other) top factor / (size norm), and 0 where size is 0."""
    rest = xp.where(size == 0, 0, factor / norm * (top.astype("float64") / xp.where(size == 0, 1, size)))
    y[...] = (x + sign * other.astype("float64")) * rest


@elementwise(
    "T top, float64 low, float64 high, int64 limit, int64 step", "T y",
    """
    int e = 0;
    if (top - top == 0 && (top > high || (top < low && top > 0))) frexp((double)top, &e);
    e = e > limit ? limit : e < -limit ? -limit : e;
    y = (T)ldexp(1.0, ((e % step + step) % step) - e);
    """,
)  # fmt: skip
def ordinary_factor(xp, top, low, high, limit, step, y):
    """The power of two, a multiple of ``step``, that brings ``top`` near one where it is extreme; else 1."""
    extreme = xp.isfinite(top) & ((top > high) | ((top < low) & (top > 0)))
    power = xp.minimum(xp.maximum(xp.frexp(xp.where(extreme, top, 0))[1], -limit), limit) // step * step
    xp.ldexp(xp.ones_like(top), -power, out=y)


# --- largest elements and norms ---------------------------------------------------------------------------------------

LARGE = 2**16  # elements of a single matrix that is reduced row by row: one block of threads makes one result


def rows_of(x):
    """A large single matrix (1, n, m) as (n, 1, m), along memory; None for others."""
    if len(x) > 1 or x.size < LARGE:
        return None
    return (x if x.flags.c_contiguous else x.mT)[0][:, None, :]


def largest_elements_of(xp, x):
    """The largest absolute element of each matrix, (batch,)."""
    top = xp.empty(len(x), x.dtype)
    if (rows := rows_of(x)) is not None:
        tops = xp.empty(len(rows), x.dtype)
        largest_element(rows, tops)
        x = tops[None, None, :]
    largest_element(x, top)
    return top


def relative_norms(xp, x, top):
    """||x / top||_F of each matrix, (batch,) in float64, for its largest element ``top``."""
    norm, top = xp.empty(len(x), "float64"), top.reshape(-1, 1, 1)
    if (rows := rows_of(x)) is None:
        relative_norm(x, top, norm)
    else:
        norms = xp.empty(len(rows), "float64")
        relative_norm(rows, top, norms)
        norm_of_norms(norms[None, None, :], norm)
    return norm
