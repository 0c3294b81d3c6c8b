"""Newton-Schulz for msign, pure and smooth, on raw arrays.

A step is an odd quintic, x <- a x + b x^3 + c x^5, applied to the singular values of X (msign) or to its
eigenvalues (mcsgn) by matrix products alone. Completing the square and moving c into the scale of X leaves two shifts
of a diagonal as the only elementwise work of a step of three products:

    a + b s + c s^2 = c (s + b/2c)^2 + (a - b^2/4c),        S = X^T X,  T = (S + p I)^2 + q I,  X <- X T.

Source: Su Jianlin, The derivative of msign, equations (5), (6). The coefficients are in ``coefficients``, the
public ops in ``matrix_sign/msign``.
"""

from functools import wraps
from math import prod, sqrt

import numpy

from tinygrad_ms.arrays.sums import HALF
from tinygrad_ms.cards import F, there
from tinygrad_ms.launches.products import product
from tinygrad_ms.ops.fused.calls import newton_schulz
from tinygrad_ms.ops.iterations.coefficients import schedule_for
from tinygrad_ms.ops.iterations.driver import (
    Iteration,
    Workspace,
    cache_slices,
    diagonal,
    is_numpy,
    iterate,
    normalise,
    residual,
)
from tinygrad_ms.ops.iterations.kernels import for_device
from tinygrad_ms.ops.iterations.on_device import OrthogonaliseOnDevice
from tinygrad_ms.ops.iterations.report import warn_of_cap
from tinygrad_ms.ops.linalg.parts import per_matrix

__all__: list[str] = []

SYMMETRIC_PRODUCT = 1024  # from this size on, NumPy's X^T X by BLAS syrk is faster than a general product


class Orthogonalise(Iteration):
    """X <- X T(X^T X) for a batch of tall matrices (msign), or X <- X T(X X) for square ones (``mcsgn``).

    With ``eps`` X is [M / ||M||_F; eps I] (smooth msign). The first step makes no products with I. In NumPy S and T get
    one extra row. Then the diagonals of all matrices of the batch form one vector with stride n + 1, and S += p I is a
    single addition. (CuPy's products would copy such arrays.) ``out``: the last step may leave X there.
    """

    arrays = ("X", "back", "S_rows", "T_rows", "norm")
    results = ("X",)

    def __init__(self, xp, workspace, M, start, mcsgn=False, eps=0.0, out=None):
        self.xp, self.mcsgn, self.out = xp, mcsgn, out
        batch, m, n = M.shape
        rows = m + n if eps else m
        self.X, self.back = workspace("X", batch, rows, n), workspace("back", batch, rows, n)
        height = n + 1 if is_numpy(xp) else n
        self.S_rows, self.T_rows = workspace("S", batch, height, n), workspace("T", batch, height, n)
        self.bind()
        scale = start * sqrt(1 + n * eps * eps)
        self.norm = normalise(xp, M, self.X[:, :m], scale)
        if mcsgn == "trace":  # M / (tr M^2)^{1/2}: Su Jianlin, equation 6
            self.X *= per_matrix(1 / (scale * xp.sqrt((self.X * self.X.mT).sum(axis=(1, 2)))))
        self.identity = eps / scale  # the lower block of X is this times I, until the first step

    def bind(self):
        n = self.X.shape[-1]
        self.S, self.T = self.S_rows[:, :n], self.T_rows[:, :n]
        self.S_diagonal, self.T_diagonal = diagonal(self.S_rows, n), diagonal(self.T_rows, n)

    def square(self):
        xp, n = self.xp, self.X.shape[-1]
        X = self.X[:, : -n if self.identity else None]
        if self.mcsgn:
            xp.matmul(X, X, out=self.S)
        else:
            gram(xp, X, self.S)
        if self.identity:
            self.S_diagonal += self.identity**2

    def update(self, p, q, last=False):
        xp, T = self.xp, self.S
        self.S_diagonal += p
        if q is not None:
            T = self.T
            xp.matmul(self.S, self.S, out=T)
            self.T_diagonal += q
        new = self.out if last and self.out is not None else self.back
        if self.identity:
            n = T.shape[-1]
            xp.matmul(self.X[:, :-n], T, out=new[:, :-n])
            xp.multiply(T, self.identity, out=new[:, -n:])
            self.identity = 0.0
        else:
            xp.matmul(self.X, T, out=new)
        self.X, self.back = new, self.X

    def run(self, pairs, last=False):
        factors = [(p, 1.0, 0.0) if q is None else (p * p + q, 2 * p, 1.0) for p, q in pairs]
        new = self.out if last and self.out is not None else self.back
        if self.mcsgn or newton_schulz(self.X, factors, new, self.identity) is None:
            return super().run(pairs, last)
        self.X, self.back, self.identity = new, self.X, 0.0

    def residual(self, scale):
        return residual(self.xp, self.S, self.S_diagonal, scale, self.norm)

    def rescale(self, factor):
        self.X *= factor
        self.S *= factor * factor


def gram(xp, X, out=None):
    """X^T X for X (..., m, n)."""
    n = X.shape[-1]
    if not is_numpy(xp) or n >= SYMMETRIC_PRODUCT:
        return product(xp, X.mT, X, out)
    out = xp.empty((*X.shape[:-2], n, n), X.dtype) if out is None else out
    half = n // 2  # in halves, because NumPy would take syrk for one array on both sides, which is slower for small n
    xp.matmul(X[..., :half].mT, X, out=out[..., :half, :])
    xp.matmul(X[..., half:].mT, X, out=out[..., half:, :])
    return out


def steps_for(M):
    """The iteration for the library of M."""
    return OrthogonaliseOnDevice if not isinstance(M, numpy.ndarray) and for_device(M) else Orthogonalise


def orthogonalise(xp, M, steps=None, coefficients=None, mcsgn=False, warn=False):
    """msign of M (..., n, m) by Newton-Schulz; ``mcsgn``: that of square matrices with real spectra.

    It works on the smaller side. Each matrix is divided by its Frobenius norm (``mcsgn="trace"``: by (tr M^2)^{1/2}).
    ``warn``: warn where adaptive steps end at their cap.
    """
    if M.shape[-2] < M.shape[-1]:
        return orthogonalise(xp, M.mT, steps, coefficients, warn=warn).mT
    schedule = schedule_for(M.shape, M.dtype, steps, coefficients)
    if M.size == 0:
        return xp.zeros(M.shape, M.dtype)
    tall = M.reshape((-1,) + M.shape[-2:])
    out = xp.empty(tall.shape, M.dtype)
    with numpy.errstate(all="ignore"):  # NaN in, NaN out
        if M.shape[-1] == 1:  # a vector or a number is only divided by its norm
            normalise(xp, tall, out)
            return out.reshape(M.shape)
        workspace, capped, kind = Workspace(xp, M.dtype), False, steps_for(tall)
        for part in cache_slices(tall, 4):
            result = out[part] if schedule.end == 1 else None
            iteration = kind(xp, workspace, tall[part], schedule.chunks[0][0], mcsgn, out=result)
            capped |= iterate(xp, schedule, iteration)
            if result is None:
                xp.multiply(iteration.X, schedule.end, out=out[part])
    if capped and warn:
        warn_of_cap(*M.shape[-2:])
    return out.reshape(M.shape)


def orthogonalise_smooth(xp, M, eps, steps=None, coefficients=None):
    """The blocks Y (..., m, n) and T (..., n, n) of msign([M / ||M||_F; eps I]) for tall M, and ||M||_F (..., 1, 1).

    T = e (M^T M + e^2 I)^{-1/2} with e = eps ||M||_F. Zero gives zeros.
    """
    m, n = M.shape[-2:]
    schedule = schedule_for((m + n, n), M.dtype, steps, coefficients)
    tall = M.reshape((prod(M.shape[:-2]), m, n))
    make = xp.empty if M.size else xp.zeros
    y, scaled_inverse, norm = (make((len(tall), *shape), M.dtype) for shape in ((m, n), (n, n), (1, 1)))
    if M.size:
        with numpy.errstate(all="ignore"):
            workspace, capped, kind = Workspace(xp, M.dtype), False, steps_for(tall)
            for part in cache_slices(tall, 6):
                iteration = kind(xp, workspace, tall[part], schedule.chunks[0][0], eps=eps)
                capped |= iterate(xp, schedule, iteration)
                size = norm[part] = per_matrix(iteration.norm)
                xp.multiply(iteration.X[:, :m], schedule.end, out=y[part])
                xp.multiply(iteration.X[:, m:], schedule.end * (size != 0), out=scaled_inverse[part])
        if capped:
            warn_of_cap(m, n)
    return tuple(x.reshape(M.shape[:-2] + x.shape[1:]) for x in (y, scaled_inverse, norm))


# --- half precision --------------------------------------------------------------------------------------------------


def half_in_float32(function: F) -> F:
    """Decorator: a matrix M in half precision is taken in float32, on the tape, and each result rounded once."""

    @wraps(function)
    def call(M, *args, **options):
        if getattr(getattr(M, "dtype", None), "char", "-") not in HALF:
            return function(M, *args, **options)
        y = function(there(M.astype, M)("float32"), *args, **options)
        results = tuple(there(part.astype, part)(M.dtype) for part in (y if isinstance(y, tuple) else (y,)))
        return results if isinstance(y, tuple) else results[0]

    return call  # type: ignore[return-value]
