"""Scaled Newton iterations on raw arrays: mcsgn of any spectrum, and the Sylvester equation by it.

X <- (g X + X^{-1} / g) / 2 converges to mcsgn(X) for every X without eigenvalues on the imaginary axis, where the
quintic tables need real ones. Source: Higham, Functions of Matrices, 2008, equations (5.34) and (5.35).
"""

import numpy

from tinygrad_ms.ops.newton_schulz import column, host, normalise, squared_norm


def inverses(xp, X):
    """The inverse of each matrix; NaN where there is none (CuPy does not raise, NumPy raises for the whole batch)."""
    try:
        return xp.linalg.inv(X)
    except numpy.linalg.LinAlgError:
        if X.shape[0] == 1:
            return xp.full(X.shape, xp.nan, X.dtype)
        return xp.concatenate([inverses(xp, one[None]) for one in X])


def newton_sign(xp, A, B=None, K=None, steps=None):
    """mcsgn(A) for a batch (b, n, n), steps of at most 60, until the change squared is below the roundoff.

    With ``B`` (b, m, m) and ``K`` (b, n, m): the iteration on [[A, K], [0, -B]] by its blocks; returns the limit of K,
    twice the solution of A Y + Y B = K where A and B have their spectra in the right half plane.
    """
    roundoff = float(numpy.finfo(A.dtype.name).eps) / 2
    change, best = None, numpy.inf
    for _ in range(60 if steps is None else steps):
        A_inverse = inverses(xp, A)
        size, size_inverse = squared_norm(xp, A), squared_norm(xp, A_inverse)
        if B is not None:
            B_inverse = inverses(xp, B)
            size, size_inverse = size + squared_norm(xp, B), size_inverse + squared_norm(xp, B_inverse)
        g = (size_inverse / size) ** 0.25
        if change is not None:  # the scaling spoils the quadratic convergence near the limit
            g = xp.where(change < 1e-2, 1, g)
        half, other = column(g / 2), column(0.5 / g)
        if B is not None:
            K = half * K + other * (A_inverse @ K @ B_inverse)
            B, B_before = half * B + other * B_inverse, B
        A, A_before = half * A + other * A_inverse, A
        difference, size = squared_norm(xp, A - A_before), squared_norm(xp, A)
        if B is not None:
            difference, size = difference + squared_norm(xp, B - B_before), size + squared_norm(xp, B)
        change = xp.sqrt(difference / size)
        if steps is None:
            now = host(change)
            now = float(numpy.nanmax(now, initial=0.0))  # a NaN matrix is done
            if now**2 < roundoff or now < 1e-2 and now > best / 2:  # converged, or stagnating at its rounding
                break
            best = min(best, now)
    return A if B is None else K


def sign(xp, X, steps=None):
    """mcsgn of raw square matrices (..., n, n)."""
    if X.size == 0:
        return xp.zeros(X.shape, X.dtype)
    flat = X.reshape((-1,) + X.shape[-2:])
    A = xp.empty(flat.shape, X.dtype)
    with numpy.errstate(all="ignore"):
        normalise(xp, flat, A)
        return newton_sign(xp, A, steps=steps).reshape(X.shape)


def sylvester(xp, A, B, C, steps=None):
    """The solution X of A X + X B = C for raw batches of the same leading dimensions."""
    if C.size == 0:
        return xp.zeros(C.shape, C.dtype)
    A, B, C = (x.reshape((-1,) + x.shape[-2:]) for x in (A, B, C))
    with numpy.errstate(all="ignore"):
        scale = column(xp.maximum(xp.abs(A).max(axis=(1, 2)), xp.abs(B).max(axis=(1, 2))))
        K = xp.empty(C.shape, C.dtype)
        norm = normalise(xp, C, K)
        return newton_sign(xp, A / scale, B / scale, K, steps) * (column(norm) / scale / 2)
