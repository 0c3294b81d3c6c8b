"""The matrix sign mcsgn of any spectrum and the equation A X + X B = C that it solves, by scaled Newton.

X <- (g X + X^{-1} / g) / 2 converges to mcsgn(X) for every X without eigenvalues on the imaginary axis, where the
quintic tables need real ones. Source: Higham, Functions of Matrices, 2008, equations (5.34) and (5.35).
Every derivative here is another equation of the same kind, so all orders exist and no eigendecomposition is taken.
"""

import numpy
from numpy import broadcast_shapes

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, per_matrix
from tinygrad_ms.ops.matrix_sign.coefficients import roundoff
from tinygrad_ms.ops.matrix_sign.iteration import host, normalise, squared_norm
from tinygrad_ms.ops.matrix_sign.polar_iteration import orthogonalise

__all__ = ["mcsgn", "solve_sylvester"]


# --- scaled Newton on raw arrays -----------------------------------------------------------------------------------


def inverses(xp, X):
    """The inverse of each matrix; NaN where there is none (CuPy does not raise, NumPy raises for the whole batch)."""
    try:
        return xp.linalg.inv(X)
    except numpy.linalg.LinAlgError:
        if X.shape[0] == 1:
            return xp.full(X.shape, xp.nan, X.dtype)
        return xp.concatenate([inverses(xp, one[None]) for one in X])


def newton(xp, A, B=None, K=None, steps=None):
    """mcsgn(A) for a batch (b, n, n), steps of at most 60, until the change squared is below the roundoff.

    With ``B`` (b, m, m) and ``K`` (b, n, m): the iteration on [[A, K], [0, -B]] by its blocks; returns the limit of K,
    twice the solution of A Y + Y B = K where A and B have their spectra in the right half plane.
    """
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
            now = host(change)
            now = float(numpy.nanmax(now, initial=0.0))  # a NaN matrix is done
            if now**2 < roundoff(A.dtype) or now < 1e-2 and now > best / 2:  # converged, or stagnating at its rounding
                break
            best = min(best, now)
    return A if B is None else K


def newton_mcsgn(xp, X, steps=None):
    """mcsgn of raw square matrices (..., n, n)."""
    if X.size == 0:
        return xp.zeros(X.shape, X.dtype)
    flat = X.reshape((-1,) + X.shape[-2:])
    A = xp.empty(flat.shape, X.dtype)
    with numpy.errstate(all="ignore"):
        normalise(xp, flat, A)
        return newton(xp, A, steps=steps).reshape(X.shape)


def newton_sylvester(xp, A, B, C, steps=None):
    """The solution X of A X + X B = C for raw batches of the same leading dimensions."""
    if C.size == 0:
        return xp.zeros(C.shape, C.dtype)
    A, B, C = (x.reshape((-1,) + x.shape[-2:]) for x in (A, B, C))
    with numpy.errstate(all="ignore"):
        scale = per_matrix(xp.maximum(xp.abs(A).max(axis=(1, 2)), xp.abs(B).max(axis=(1, 2))))
        K = xp.empty(C.shape, C.dtype)
        norm = normalise(xp, C, K)
        return newton(xp, A / scale, B / scale, K, steps) * (per_matrix(norm) / scale / 2)


# --- A X + X B = C -------------------------------------------------------------------------------------------------


def common_batch(xp, *matrices):
    """The matrices with their leading dimensions broadcast."""
    lead = [m.shape[:-2] for m in matrices]
    if all(shape == lead[0] for shape in lead):
        return matrices
    batch = broadcast_shapes(*lead)
    return [xp.broadcast_to(m, (*batch, *m.shape[-2:])) for m in matrices]


def check_right_side(name, A, B, C):
    """Raise the sentence where B and C do not fit A in A X + X B = C."""
    if C.ndim < 2 or C.shape[-2:] != (A.shape[-1], B.shape[-1]):
        raise ValueError(
            f"{name}: C has shape {C.shape}; expected (..., {A.shape[-1]}, {B.shape[-1]}),"
            f" the sizes of A {A.shape} and B {B.shape}"
        )
    for what, x in (("B", B), ("C", C)):
        if x.dtype != A.dtype:
            raise TypeError(f"{name}: {what} has dtype {x.dtype} and A {A.dtype}; convert one with .astype")


def _sylvester_vjp(needed, g, A, B, y, steps, spectrum):
    S = solve_sylvester(A.mT, B.mT, g, steps=steps, spectrum=spectrum)
    return -(S @ y.mT) if needed[0] else None, -(y.mT @ S) if needed[1] else None, S


def _sylvester_jvp(tangents, A, B, y, steps, spectrum):
    dA, dB, dC = tangents
    terms = [dC, None if dA is None else -(dA @ y), None if dB is None else -(y @ dB)]
    first, *rest = [term for term in terms if term is not None]
    for term in rest:
        first = first + term
    return solve_sylvester(A, B, first, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_sylvester_vjp,
    jvp=_sylvester_jvp,
    formula=r"A X + X B = C:\quad A^T S + S B^T = \bar X,\quad \bar C = S,\ \bar A = -S X^T,\ \bar B = -X^T S",
    source="000, (20) and (21); Higham 2008, section 2.4",
    notes="both spectra in the right half plane",
    flops=dense(100),
)
def solve_sylvester(xp, A, B, C, /, steps=None, spectrum="complex"):
    """The X with A X + X B = C: A (..., n, n) and B (..., m, m) with spectra in the right half plane, C (..., n, m).

    X is half the corner of mcsgn([[A, C], [0, -B]]), by scaled Newton on the blocks. ``spectrum="real"`` promises real
    eigenvalues of A and B and runs the quintic table instead, matrix products only. Raises ValueError for shapes that
    do not fit; an equation without a unique solution gives NaN or large numbers. The SciPy function of this name has
    no batch.
    """
    check_matrices("solve_sylvester", A, square=True, name="A", lapack=False)
    check_matrices("solve_sylvester", B, square=True, name="B", lapack=False)
    check_right_side("solve_sylvester", A, B, C)
    A, B, C = common_batch(xp, A, B, C)
    if _is_real("solve_sylvester", spectrum):
        return _sylvester_by_table(xp, A, B, C, steps)
    return newton_sylvester(xp, A, B, C, steps).reshape(C.shape)


def _sylvester_by_table(xp, A, B, C, steps):
    """The corner of the dense block matrix, by the quintics."""
    n, m = C.shape[-2:]
    X = xp.zeros((*C.shape[:-2], n + m, n + m), C.dtype)
    X[..., :n, :n], X[..., n:, n:] = A, -B
    size = (xp.abs(X).max(axis=(-2, -1)) if X.size else xp.ones(X.shape[:-2], X.dtype))[..., None, None]
    largest = (xp.abs(C).max(axis=(-2, -1)) if C.size else xp.ones(C.shape[:-2], C.dtype))[..., None, None]
    ratio = size / xp.where(largest == 0, 1, largest)  # the corner enters linearly: its scale is free
    X[..., :n, n:] = C * ratio
    return orthogonalise(xp, X, steps, mcsgn=True)[..., :n, n:] / (2 * ratio)


def _is_real(name, spectrum):
    if spectrum not in ("real", "complex"):
        raise ValueError(f"{name}: spectrum={spectrum!r}; expected 'real' or 'complex'")
    return spectrum == "real"


# --- the matrix sign -----------------------------------------------------------------------------------------------


def _mcsgn_vjp(g, x, y, steps, spectrum):
    N = (x @ y).mT
    Y = solve_sylvester(N, N, g, steps=steps, spectrum=spectrum)
    return Y - y.mT @ Y @ y.mT


def _mcsgn_jvp(t, x, y, steps, spectrum):
    N = x @ y
    return solve_sylvester(N, N, t - y @ t @ y, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_mcsgn_vjp,
    jvp=_mcsgn_jvp,
    formula=r"S = \mathrm{mcsgn}(A),\ N = A S:\quad N\,dS + dS\,N = dA - S\,dA\,S",
    source="000 (3); Higham 2008, theorem 5.3 and equation (5.7)",
    notes="no eigenvalue on the imaginary axis",
    floats=True,
    flops=dense(60),
)
def mcsgn(xp, x, /, steps=None, spectrum="complex"):
    """The matrix sign x (x^2)^{-1/2} of square x (..., n, n): eigenvalues become the signs of their real parts.

    By scaled Newton. ``spectrum="real"`` promises real eigenvalues and runs the quintic table, matrix products only
    (complex ones turn it into NaN). ``steps=k`` runs exactly k steps without synchronising the host. Not ``msign``:
    the two agree for symmetric matrices. Raises ValueError unless x is square; eigenvalues on the imaginary axis have
    no sign and give NaN or an arbitrary result.
    """
    check_matrices("mcsgn", x, square=True, lapack=False)
    if _is_real("mcsgn", spectrum):
        return orthogonalise(xp, x, steps, mcsgn=True)
    return newton_mcsgn(xp, x, steps)


def msign_dense_vjp(M, G, *, eps=1e-3, steps=8):
    """The gradient of <G, msign(M)> as the source computes it: mcsgn of one dense (n + m) x (n + m) matrix.

    With O = msign(M), A = M O^T, B = O^T M: X is half the corner of -mcsgn([[A + eps I, -G], [0, -B - eps I]]), and the
    gradient X - O X^T O. M and G are raw arrays (..., n, m); M is scaled by its norm before the absolute ``eps`` is
    added, else a small M loses its gradient. The error is of the order of eps ||M||_F / s_n for square M (2e-2 for
    Gaussian M of 16 x 16, for 3.5 times the work of ``msign``); for rectangular M tens of percent (16 x 64: 0.2, for 40
    times the work), since one of A, B is singular. Source: 000, (23) and (13).
    """
    if isinstance(M, Tensor) or isinstance(G, Tensor):
        raise TypeError("msign_dense_vjp: M and G are raw arrays here; pass tensor.data")
    check_matrices("msign_dense_vjp", M, name="M", lapack=False)
    xp = BACKENDS[type(M)].xp
    n, m = M.shape[-2:]
    norm = xp.sqrt((M * M).sum(axis=(-2, -1), keepdims=True))
    M = M / norm
    O = orthogonalise(xp, M, steps, "su")
    block = xp.zeros((*M.shape[:-2], n + m, n + m), M.dtype)
    block[..., :n, :n] = M @ O.mT + eps * xp.eye(n, dtype=M.dtype)
    block[..., n:, n:] = -(O.mT @ M) - eps * xp.eye(m, dtype=M.dtype)
    block[..., :n, n:] = -G
    with numpy.errstate(all="ignore"):
        X = orthogonalise(xp, block, steps, "su", mcsgn=True)[..., :n, n:] / -2
        return (X - O @ X.mT @ O) / norm
