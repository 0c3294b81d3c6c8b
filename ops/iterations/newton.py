"""Scaled Newton on raw arrays, for the matrix sign mcsgn of any spectrum and for the equation A X + X B = C.

X <- (g X + X^{-1} / g) / 2 converges to mcsgn(X) for every X without eigenvalues on the imaginary axis. The quintic
tables need real eigenvalues. Source: Higham, Functions of Matrices, 2008, equations (5.34) and (5.35).
"""

import numpy

from tinygrad_ms.arrays.registry import host
from tinygrad_ms.ops.iterations.coefficients import roundoff
from tinygrad_ms.ops.iterations.driver import normalise, squared_norm
from tinygrad_ms.ops.linalg.parts import per_matrix

KRONECKER = 1024  # up to this many unknowns a dense system solves an equation that the sign cannot


def inverses(xp, X):
    """The inverse of each matrix; NaN where there is none. (CuPy does not raise; NumPy raises for the whole batch.)"""
    try:
        return xp.linalg.inv(X)
    except numpy.linalg.LinAlgError:
        if X.shape[0] == 1:
            return xp.full(X.shape, xp.nan, X.dtype)
        return xp.concatenate([inverses(xp, one[None]) for one in X])


def newton(xp, A, B=None, K=None, steps=None):
    """mcsgn(A) for a batch (b, n, n), by at most 60 steps, until the square of the change is below the roundoff.

    With ``B`` (b, m, m) and ``K`` (b, n, m): the iteration on [[A, K], [0, -B]] by its blocks; returns the limits of A,
    B and K, twice the solution of A Y + Y B = K where A and B have their spectra in the right half plane. Adaptive
    steps put NaN into A where they have not converged, and where rounding has decided the sign of an eigenvalue.
    """
    change, best, lost = None, numpy.inf, None
    late = int(-0.9 * numpy.log2(roundoff(A.dtype)))  # an eigenvalue is so many bits nearer to the axis than to zero
    for step in range(60 if steps is None else steps):
        A_inverse = inverses(xp, A)
        size, size_inverse = squared_norm(xp, A), squared_norm(xp, A_inverse)
        if B is not None:
            B_inverse = inverses(xp, B)
            size, size_inverse = size + squared_norm(xp, B), size_inverse + squared_norm(xp, B_inverse)
        g = (size_inverse / size) ** 0.25
        if change is not None:  # the scaling spoils the quadratic convergence near the limit
            g = xp.where(change < 1e-2, 1, g)
        half, other = per_matrix(g / 2), per_matrix(0.5 / g)
        if B is not None:
            K = half * K + other * (A_inverse @ K @ B_inverse)
            B, B_before = half * B + other * B_inverse, B
        A, A_before = half * A + other * A_inverse, A
        difference, size = squared_norm(xp, A - A_before), squared_norm(xp, A)
        if B is not None:
            difference, size = difference + squared_norm(xp, B - B_before), size + squared_norm(xp, B)
        change = xp.sqrt(difference / size)
        if steps is None:
            if step >= late:
                lost = ~(change < 1e-2) if lost is None or step == 59 else lost | ~(change < 1e-2)
            now = host(change)
            now = float(numpy.nanmax(now, initial=0.0))  # a matrix of NaN counts as converged
            if now**2 < roundoff(A.dtype) or now < 1e-2 and now > best / 2:  # converged, or stopped by rounding
                break
            best = min(best, now)
    if lost is not None:
        A = xp.where(per_matrix(lost), xp.nan, A)
    return A if B is None else (A, B, K)


def newton_mcsgn(xp, X, steps=None):
    """mcsgn of raw square matrices (..., n, n)."""
    if X.size == 0:
        return xp.zeros(X.shape, X.dtype)
    flat = X.reshape((-1,) + X.shape[-2:])
    A = xp.empty(flat.shape, X.dtype)
    with numpy.errstate(all="ignore"):
        normalise(xp, flat, A)
        return newton(xp, A, steps=steps).reshape(X.shape)


def newton_sylvester(xp, A, B, C, steps=None, shifted=False):
    """The solution X of A X + X B = C for raw batches of the same leading dimensions; see ``proven``."""
    if C.size == 0:
        return xp.zeros(C.shape, C.dtype)
    A, B, C = (x.reshape((-1,) + x.shape[-2:]) for x in (A, B, C))
    with numpy.errstate(all="ignore"):
        scale = per_matrix(xp.maximum(xp.abs(A).max(axis=(1, 2)), xp.abs(B).max(axis=(1, 2))))
        K = xp.empty(C.shape, C.dtype)
        norm = normalise(xp, C, K)
        sign_a, sign_b, K = newton(xp, A / scale, B / scale, K, steps)
        return proven(xp, A, B, C, sign_a, sign_b, K * (per_matrix(norm) / scale / 2), steps, shifted)


def proven(xp, A, B, C, sign_a, sign_b, X, steps=None, shifted=False):
    """X if it solves A X + X B = C, -X if both spectra lie in the left half plane, else the X of another method.

    ``sign_a`` and ``sign_b`` are the signs of A and B from the iteration. They are I or -I if X is right. Where the
    host must not wait (a GPU, with ``steps``), and for matrices that are ``shifted`` already, a wrong X becomes NaN.
    """

    def near(S, sign):
        return squared_norm(xp, S - sign * xp.eye(S.shape[-1], dtype=S.dtype)) < 1

    right, left = near(sign_a, 1) & near(sign_b, 1), near(sign_a, -1) & near(sign_b, -1)
    X = xp.where(per_matrix(right), X, xp.where(per_matrix(left), -X, xp.nan))
    size = squared_norm(xp, A) ** 0.5 + squared_norm(xp, B) ** 0.5
    bar = roundoff(A.dtype) ** 0.5 * (size * squared_norm(xp, X) ** 0.5 + squared_norm(xp, C) ** 0.5)
    good = squared_norm(xp, xp.ascontiguousarray(A @ X + X @ B - C)) ** 0.5 <= bar
    X = xp.where(per_matrix(good), X, xp.nan)
    if shifted or steps is not None and not isinstance(X, numpy.ndarray):
        return X
    for i in numpy.flatnonzero(~host(good)):
        if xp.isfinite(A[i]).all() and xp.isfinite(B[i]).all() and xp.isfinite(C[i]).all():
            X[i] = other_solution(xp, A[i], B[i], C[i])
    return X


def other_solution(xp, A, B, C):
    """The X with A X + X B = C for one A and B of any spectra, by a dense system or by Newton on shifted matrices.

    A + s I and B - s I have the same X. A singular equation gives NaN.
    """
    n, m = C.shape
    if n * m <= KRONECKER:
        identity_n, identity_m = xp.eye(n, dtype=C.dtype), xp.eye(m, dtype=C.dtype)
        system = (
            A[:, None, :, None] * identity_m[:, None, :][None] + identity_n[:, None, :, None] * B.T[None, :, None, :]
        )
        try:
            return xp.linalg.solve(system.reshape(n * m, n * m), C.reshape(n * m)).reshape(n, m)
        except numpy.linalg.LinAlgError:
            return xp.full(C.shape, xp.nan, C.dtype)
    a, b = (numpy.linalg.eigvals(host(x)).real for x in (A, B))
    for shift, sign in (((b.min() - a.min()) / 2, a.min() + b.min()), ((b.max() - a.max()) / 2, -(a.max() + b.max()))):
        if sign > 0:
            A, B = A + float(shift) * xp.eye(n, dtype=C.dtype), B - float(shift) * xp.eye(m, dtype=C.dtype)
            return newton_sylvester(xp, A[None], B[None], C[None], shifted=True)[0]
    raise ValueError(
        f"A {A.shape} and B {B.shape} have eigenvalues on both sides of every line along the imaginary axis, and the"
        f" {n * m:,} unknowns are more than the {KRONECKER:,} that are solved for as one system; pass an equation with"
        " the spectra of A and of -B on two sides of such a line"
    )
