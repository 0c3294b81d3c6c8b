"""Least squares: pinv and lstsq, for matrices of any shape and rank in the last two axes.

Singular values up to ``rtol`` times the largest one count as zero. The derivatives are those along matrices of the same
rank. Where a change of the matrix changes the rank, the pseudo-inverse jumps and has no derivative.
"""

from typing import NamedTuple

import numpy

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.decompositions import svdvals
from tinygrad_ms.ops.linalg.solve import change, check_equations, lapack, of_vectors
from tinygrad_ms.ops.operands import as_operand

__all__ = ["lstsq", "pinv"]


def _kept(s, x, rtol):
    """Which of the singular values s of x do not count as zero."""
    rtol = max(x.shape[-2:]) * float(numpy.finfo(x.dtype).eps) if rtol is None else rtol
    return s > rtol * s.max(axis=-1, keepdims=True)


def _inverses(xp, s, x, rtol):
    """1 / s, and 0 for the s that count as zero."""
    kept = _kept(s, x, rtol)
    return kept / xp.where(kept, s, 1)


def _pinv_vjp(g, x, y):
    left = g.mT - x @ (y @ g.mT)  # (I - X Y) G^T
    right = g.mT - g.mT @ y @ x  # G^T (I - Y X)
    return left @ y @ y.mT + y.mT @ y @ right - y.mT @ g @ y.mT


def _pinv_jvp(t, x, y):
    left = t.mT - t.mT @ x @ y  # T^T (I - X Y)
    right = t.mT - y @ (x @ t.mT)  # (I - Y X) T^T
    return y @ y.mT @ left + right @ y.mT @ y - y @ t @ y


@primitive(
    vjp=_pinv_vjp,
    jvp=_pinv_jvp,
    formula=r"Y = X^+:\quad dY = -Y\,dX\,Y + Y Y^T dX^T (I - X Y) + (I - Y X)\,dX^T Y^T Y",
    source="Golub and Pereyra 1973, equation (4.12)",
    floats=True,
    notes="differentiable where the rank does not change; singular values up to rtol max(s) count as zero",
    flops=dense(21),
)
def pinv(xp, x, rtol=None):
    """The Moore-Penrose inverse (..., m, n) of (..., n, m). rtol: by default max(n, m) machine epsilons."""
    u, s, vh = lapack("pinv", xp.linalg.svd, x, full_matrices=False)
    if not x.size:
        return xp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), dtype=x.dtype)
    return xp.matmul(vh.mT * _inverses(xp, s, x, rtol)[..., None, :], u.mT).astype(x.dtype)


def _lstsq_vjp(needed, g, a, b, y, rtol):
    p = pinv(a, rtol=rtol)
    g_b = p.mT @ g
    if not needed[0]:
        return None, g_b
    outside = (b - a @ y) @ (p @ g_b).mT  # 0 where a y = b
    missed = (p.mT @ y) @ (g - a.mT @ g_b).mT  # 0 where the columns of a are independent
    return outside + missed - g_b @ y.mT, g_b


def _lstsq_jvp(tangents, a, b, y, rtol):
    t_a, t_b = tangents
    p = pinv(a, rtol=rtol)
    t_y = p @ change(t_a, t_b, y)
    if t_a is None:
        return t_y
    missed = t_a.mT @ (p.mT @ y)
    return t_y + p @ (p.mT @ (t_a.mT @ (b - a @ y))) + missed - p @ (a @ missed)


@primitive(
    vjp=_lstsq_vjp,
    jvp=_lstsq_jvp,
    formula=r"Y = A^+ B,\ R = B - A Y:\quad"
    r" dY = A^+ (dB - dA\,Y) + A^+ A^{+T} dA^T R + (I - A^+ A)\,dA^T A^{+T} Y",
    source="Golub and Pereyra 1973, equation (4.12)",
    floats=True,
    notes="differentiable where the rank does not change; singular values up to rtol max(s) count as zero",
    flops=dense(21),
)
def _lstsq(xp, a, b, /, rtol=None):
    """The shortest of the matrices Y that minimise |A Y - B|."""
    batch = check_equations("lstsq", a, b, square=False)
    if not a.size:
        return xp.zeros((*batch, a.shape[-1], b.shape[-1]), dtype=a.dtype)
    u, s, vh = lapack("lstsq", xp.linalg.svd, a, full_matrices=False)
    return xp.matmul(vh.mT, _inverses(xp, s, a, rtol)[..., None] * xp.matmul(u.mT, b))


class LeastSquares(NamedTuple):
    """The results of ``lstsq``, in the order of NumPy and PyTorch."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def lstsq(a, b, rtol=None) -> LeastSquares:
    """The shortest y that minimises |a y - b|, for a (..., n, m) and b a vector (n,) or (..., n, k).

    Returns (solution, residuals, rank, singular_values). solution: y, (m,) or (..., m, k). residuals: the sums of
    squares of b - a y, () or (..., k); NumPy leaves them out where they are zero or the rank is lower. rank: the number
    of singular values above rtol times the largest, by default max(n, m) machine epsilons. singular_values: all of
    them, (..., min(n, m)). Batches broadcast. All but the rank have derivatives of every order, along
    matrices of one rank.
    """
    a, b = as_operand(a), as_operand(b)
    y = of_vectors(_lstsq, a, b, rtol=rtol)
    s = svdvals(a)
    rank = _kept(s, a, rtol).sum(axis=-1) if a.size else (s > 0).sum(axis=-1)
    rest = b - a @ y
    return LeastSquares(y, (rest * rest).sum(axis=-1 if b.ndim == 1 else -2), rank, s)
