"""The matrix sign function and the linear matrix equations it solves: mcsgn, solve_sylvester, solve_lyapunov.

Every derivative here is another equation of the same kind, so all orders exist and no eigendecomposition is taken.
"""

from numpy import broadcast_shapes

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.newton_schulz import KnownInverse, check_matrices, orthogonalise, solve_symmetric
from tinygrad_ms.ops.newton_sign import sign, sylvester

__all__ = ["mcsgn", "solve_lyapunov", "solve_sylvester"]


def symmetric(x):
    """The symmetric part of (..., n, n)."""
    return (x + x.mT) / 2


def common_batch(xp, *matrices):
    """The matrices with their leading dimensions broadcast."""
    lead = [m.shape[:-2] for m in matrices]
    if all(shape == lead[0] for shape in lead):
        return matrices
    batch = broadcast_shapes(*lead)
    return [xp.broadcast_to(m, (*batch, *m.shape[-2:])) for m in matrices]


def check_right_side(name, A, B, C):
    if C.ndim < 2 or C.shape[-2:] != (A.shape[-1], B.shape[-1]):
        raise ValueError(
            f"{name}: C has shape {C.shape}; expected (..., {A.shape[-1]}, {B.shape[-1]}),"
            f" the sizes of A {A.shape} and B {B.shape}"
        )
    for what, x in (("B", B), ("C", C)):
        if x.dtype != A.dtype:
            raise TypeError(f"{name}: {what} has dtype {x.dtype} and A {A.dtype}; convert one with .astype")


# --- A X + X A = C, A symmetric positive definite ------------------------------------------------------------------


def _pull_lyapunov(needed, g, A, y, parity, steps, coefficients, known):
    S = solve_lyapunov(A, g, parity=parity, steps=steps, coefficients=coefficients, known=known)
    return -_outer(S, y, parity) if needed[0] else None, S


def _outer(S, y, parity):
    """The symmetric part of S y^T + y^T S; with a parity S y is enough."""
    if parity:
        Sy = S @ y
        return parity * (Sy + Sy.mT)
    return symmetric(S @ y.mT + y.mT @ S)


def _push_lyapunov(tangents, A, y, parity, steps, coefficients, known):
    C = _right_side(tangents, y)
    return solve_lyapunov(A, C, parity=parity, steps=steps, coefficients=coefficients, known=known)


def _right_side(tangents, y):
    """dC - dA y - y dA."""
    dA, dC = tangents
    if dA is None:
        return dC
    dA = symmetric(dA)
    change = dA @ y + y @ dA
    return -change if dC is None else dC - change


@primitive(
    vjp=_pull_lyapunov,
    jvp=_push_lyapunov,
    formula=r"A X + X A = C:\quad A S + S A = \bar X,\quad \bar C = S,\quad \bar A = -\mathrm{sym}(S X^T + X^T S)",
    source="000, the block matrix of section 'efficient solution'",
    notes="A stands for its symmetric part; at A = 0 the result is 0 by convention",
)
def solve_lyapunov(xp, A, C, /, parity=0, steps=None, coefficients=None, known=None):
    """The X with A X + X A = C, for symmetric positive definite A (..., n, n) and C (..., n, n), float32 or float64.

    Newton-Schulz for mcsgn([[A, C], [0, -A]]) on its blocks: matrix products only. A stands for its symmetric part;
    ``parity`` -1 or +1 solves for the skew or the symmetric part of C and is cheaper (7 products a step, not 9).
    ``steps=k`` runs exactly k steps without synchronising the host, None adapts to the residual (``msign``).
    ``known`` is for rules that have A^{-1} at hand (``newton_schulz.KnownInverse``).
    Raises ValueError for shapes that do not fit and TypeError for other dtypes.
    """
    if parity not in (-1, 0, 1):
        raise ValueError(f"solve_lyapunov: parity={parity!r}; expected -1 (skew C), 1 (symmetric C) or 0")
    if not isinstance(known, (KnownInverse, type(None))):
        raise TypeError(f"solve_lyapunov: known is a {type(known).__name__}; expected a KnownInverse, or nothing")
    check_matrices("solve_lyapunov", A, square=True)
    check_right_side("solve_lyapunov", A, A, C)
    A, C = common_batch(xp, A, C)
    return solve_symmetric(xp, A, C, parity, False, steps, coefficients, known)


def _pull_with_inverse(needed, g, P, solution, inverse, steps, coefficients):
    gW, gJ = g
    S = gP = None
    if gW is not None:
        S = solve_lyapunov(P, gW, parity=-1, steps=steps, coefficients=coefficients)
        gP = -_outer(S, solution, -1)
    if gJ is not None:
        change = inverse @ symmetric(gJ) @ inverse
        gP = -change if gP is None else gP - change
    return gP, S


def _push_with_inverse(tangents, P, solution, inverse, steps, coefficients):
    dP = tangents[0]
    dW = solve_lyapunov(P, _right_side(tangents, solution), parity=-1, steps=steps, coefficients=coefficients)
    return dW, inverse * 0 if dP is None else -(inverse @ symmetric(dP) @ inverse)


@primitive(
    vjp=_pull_with_inverse,
    jvp=_push_with_inverse,
    outputs=("solution", "inverse"),
    formula=r"P W + W P = \mathrm{skew}(C),\quad J = P^{-1}:\quad dJ = -J\,dP\,J",
    source="000, the block matrix of section 'efficient solution'",
)
def solve_skew_with_inverse(xp, P, C, /, steps=None, coefficients=None):
    """(W, P^{-1}) with P W + W P = (C - C^T) / 2, from one iteration: the inverse is a by-product of the solve."""
    P, C = common_batch(xp, P, C)
    return solve_symmetric(xp, P, C, -1, True, steps, coefficients)


# --- A X + X B = C -------------------------------------------------------------------------------------------------


def _pull_sylvester(needed, g, A, B, y, steps, spectrum):
    S = solve_sylvester(A.mT, B.mT, g, steps=steps, spectrum=spectrum)
    return -(S @ y.mT) if needed[0] else None, -(y.mT @ S) if needed[1] else None, S


def _push_sylvester(tangents, A, B, y, steps, spectrum):
    dA, dB, dC = tangents
    terms = [dC, None if dA is None else -(dA @ y), None if dB is None else -(y @ dB)]
    first, *rest = [term for term in terms if term is not None]
    for term in rest:
        first = first + term
    return solve_sylvester(A, B, first, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_pull_sylvester,
    jvp=_push_sylvester,
    formula=r"A X + X B = C:\quad A^T S + S B^T = \bar X,\quad \bar C = S,\ \bar A = -S X^T,\ \bar B = -X^T S",
    source="000, the block matrix of section 'efficient solution'; Higham 2008, section 2.4",
    notes="both spectra in the right half plane",
)
def solve_sylvester(xp, A, B, C, /, steps=None, spectrum="complex"):
    """The X with A X + X B = C: A (..., n, n) and B (..., m, m) with spectra in the right half plane, C (..., n, m).

    X is half the corner of mcsgn([[A, C], [0, -B]]), by scaled Newton on the blocks. ``spectrum="real"`` promises real
    eigenvalues of A and B and runs the quintic table instead, matrix products only. Raises ValueError for shapes that
    do not fit; an equation without a unique solution gives NaN or large numbers. The SciPy function of this name has
    no batch.
    """
    check_matrices("solve_sylvester", A, square=True)
    check_matrices("solve_sylvester", B, square=True)
    check_right_side("solve_sylvester", A, B, C)
    A, B, C = common_batch(xp, A, B, C)
    if _is_real("solve_sylvester", spectrum):
        return _sylvester_by_table(xp, A, B, C, steps)
    return sylvester(xp, A, B, C, steps).reshape(C.shape)


def _sylvester_by_table(xp, A, B, C, steps):
    n, m = C.shape[-2:]
    X = xp.zeros((*C.shape[:-2], n + m, n + m), C.dtype)
    X[..., :n, :n], X[..., n:, n:] = A, -B
    size = (xp.abs(X).max(axis=(-2, -1)) if X.size else xp.ones(X.shape[:-2], X.dtype))[..., None, None]
    largest = (xp.abs(C).max(axis=(-2, -1)) if C.size else xp.ones(C.shape[:-2], C.dtype))[..., None, None]
    ratio = size / xp.where(largest == 0, 1, largest)  # the corner enters linearly: its scale is free
    X[..., :n, n:] = C * ratio
    return orthogonalise(xp, X, steps, square=True)[..., :n, n:] / (2 * ratio)


def _is_real(name, spectrum):
    if spectrum not in ("real", "complex"):
        raise ValueError(f"{name}: spectrum={spectrum!r}; expected 'real' or 'complex'")
    return spectrum == "real"


# --- the matrix sign -----------------------------------------------------------------------------------------------


def _pull_mcsgn(g, x, y, steps, spectrum):
    N = (x @ y).mT
    Y = solve_sylvester(N, N, g, steps=steps, spectrum=spectrum)
    return Y - y.mT @ Y @ y.mT


def _push_mcsgn(t, x, y, steps, spectrum):
    N = x @ y
    return solve_sylvester(N, N, t - y @ t @ y, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_pull_mcsgn,
    jvp=_push_mcsgn,
    formula=r"S = \mathrm{mcsgn}(A),\ N = A S:\quad N\,dS + dS\,N = dA - S\,dA\,S",
    source="000 (3); Higham 2008, theorem 5.3 and equation (5.7)",
    notes="no eigenvalue on the imaginary axis",
    floats=True,
)
def mcsgn(xp, x, /, steps=None, spectrum="complex"):
    """The matrix sign x (x^2)^{-1/2} of square x (..., n, n): eigenvalues become the signs of their real parts.

    By scaled Newton. ``spectrum="real"`` promises real eigenvalues and runs the quintic table, matrix products only
    (complex ones turn it into NaN). ``steps=k`` runs exactly k steps without synchronising the host. Not ``msign``:
    the two agree for symmetric matrices. Raises ValueError unless x is square; eigenvalues on the imaginary axis have
    no sign and give NaN or an arbitrary result.
    """
    check_matrices("mcsgn", x, square=True)
    if _is_real("mcsgn", spectrum):
        return orthogonalise(xp, x, steps, square=True)
    return sign(xp, x, steps)
