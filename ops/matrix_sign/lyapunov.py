"""A X + X A = C for symmetric positive definite A, and the functions whose derivatives are such equations.

These are the polar factor (``msign``) and square roots. The derivative of an equation is another one of its kind, so
all orders exist and no eigendecomposition is taken.
"""

import numpy

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, symmetric
from tinygrad_ms.ops.matrix_sign.block_solve import InverseOf, solve_symmetric
from tinygrad_ms.ops.matrix_sign.polar_iteration import orthogonalise
from tinygrad_ms.ops.matrix_sign.sylvester import check_right_side, common_batch

__all__ = ["inv_sqrtm", "solve_lyapunov", "sqrtm"]


# --- A X + X A = C -------------------------------------------------------------------------------------------------


def _lyapunov_vjp(needed, g, A, y, parity, steps, coefficients, inverse):
    S = _solve_lyapunov(A, g, parity=parity, steps=steps, coefficients=coefficients, inverse=inverse)
    return -_outer(S, y, parity) if needed[0] else None, S


def _outer(S, y, parity):
    """The symmetric part of S y^T + y^T S; with a parity S y is enough."""
    if parity:
        Sy = S @ y
        return parity * (Sy + Sy.mT)
    return symmetric(S @ y.mT + y.mT @ S)


def _lyapunov_jvp(tangents, A, y, parity, steps, coefficients, inverse):
    C = _right_side(tangents, y)
    return _solve_lyapunov(A, C, parity=parity, steps=steps, coefficients=coefficients, inverse=inverse)


def _right_side(tangents, y):
    """dC - dA y - y dA."""
    dA, dC = tangents
    if dA is None:
        return dC
    dA = symmetric(dA)
    change = dA @ y + y @ dA
    return -change if dC is None else dC - change


@primitive(
    vjp=_lyapunov_vjp,
    jvp=_lyapunov_jvp,
    formula=r"A X + X A = C:\quad A S + S A = \bar X,\quad \bar C = S,\quad \bar A = -\mathrm{sym}(S X^T + X^T S)",
    source="000, (20) and (21)",
    notes="A stands for its symmetric part; at A = 0 the result is 0 by convention",
    flops=dense(100),
)
def _solve_lyapunov(xp, A, C, /, parity=0, steps=None, coefficients=None, inverse=None):
    """As ``solve_lyapunov``; ``inverse`` is for rules that have A^{-1} at hand (an ``InverseOf``)."""
    if parity not in (-1, 0, 1):
        raise ValueError(f"solve_lyapunov: parity={parity!r}; expected -1 (skew C), 1 (symmetric C) or 0")
    if not isinstance(inverse, (InverseOf, type(None))):
        raise TypeError(f"solve_lyapunov: inverse is a {type(inverse).__name__}; expected an InverseOf, or nothing")
    check_matrices("solve_lyapunov", A, square=True, name="A", lapack=False)
    check_right_side("solve_lyapunov", A, A, C)
    A, C = common_batch(xp, A, C)
    return solve_symmetric(xp, A, C, parity, False, steps, coefficients, inverse)


def solve_lyapunov(A, C, /, parity=0, steps=None, coefficients=None):
    """The X with A X + X A = C, for symmetric positive definite A (..., n, n) and C (..., n, n), float32 or float64.

    Newton-Schulz for mcsgn([[A, C], [0, -A]]) on its blocks: matrix products only. A stands for its symmetric part;
    ``parity`` -1 or +1 solves for the skew or the symmetric part of C and is cheaper (7 products a step, not 9).
    ``steps=k`` runs exactly k steps without synchronising the host, None adapts to the residual (``msign``).
    Raises ValueError for shapes that do not fit and TypeError for other dtypes.
    """
    return _solve_lyapunov(A, C, parity=parity, steps=steps, coefficients=coefficients)


def _with_inverse_vjp(needed, g, P, solution, inverse, steps, coefficients):
    gW, gJ = g
    S = gP = None
    if gW is not None:
        S = _solve_lyapunov(P, gW, parity=-1, steps=steps, coefficients=coefficients)
        gP = -_outer(S, solution, -1)
    if gJ is not None:
        change = inverse @ symmetric(gJ) @ inverse
        gP = -change if gP is None else gP - change
    return gP, S


def _with_inverse_jvp(tangents, P, solution, inverse, steps, coefficients):
    dP = tangents[0]
    dW = _solve_lyapunov(P, _right_side(tangents, solution), parity=-1, steps=steps, coefficients=coefficients)
    return dW, inverse * 0 if dP is None else -(inverse @ symmetric(dP) @ inverse)


@primitive(
    vjp=_with_inverse_vjp,
    jvp=_with_inverse_jvp,
    outputs=("solution", "inverse"),
    formula=r"P W + W P = \mathrm{skew}(C),\quad J = P^{-1}:\quad dJ = -J\,dP\,J",
    source="000, (20) and (21)",
    flops=dense(100),
)
def solve_skew_with_inverse(xp, P, C, /, steps=None, coefficients=None):
    """(W, P^{-1}) with P W + W P = (C - C^T) / 2, from one iteration: the inverse is a by-product of the solve."""
    P, C = common_batch(xp, P, C)
    return solve_symmetric(xp, P, C, -1, True, steps, coefficients)


# --- the polar factor ----------------------------------------------------------------------------------------------


def polar_derivative(M, y, G, steps, coefficients, P=None):
    """The derivative of y = msign(M) in the direction G, which is also its adjoint applied to G."""
    if M.shape[-2] < M.shape[-1]:
        return polar_derivative(M.mT, y.mT, G.mT, steps, coefficients).mT
    if P is None:
        P = y.mT @ M
    B = y.mT @ G
    if M.shape[-2] == M.shape[-1]:
        return y @ _solve_lyapunov(P, B, parity=-1, steps=steps, coefficients=coefficients) * 2
    W, inverse = solve_skew_with_inverse(P, B, steps=steps, coefficients=coefficients)
    return y @ (2 * W - B @ inverse) + G @ inverse


# --- square roots of symmetric positive definite matrices ----------------------------------------------------------


def _root_derivative(G, y, steps, coefficients):
    """S with y S + S y = sym(G): its own adjoint, so the rule of both modes."""
    return _solve_lyapunov(y, G, parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=_root_derivative,
    jvp=_root_derivative,
    formula=r"Y = A^{1/2}:\quad Y S + S Y = \mathrm{sym}(\bar Y),\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
    flops=dense(60),
)
def sqrtm(xp, A, /, steps=None, coefficients=None):
    """The square root of symmetric positive definite A (..., n, n): L msign(L)^T with A = L L^T.

    A stands for its symmetric part. Raises ValueError where the Cholesky factor does not exist (NaN on a GPU).
    """
    check_matrices("sqrtm", A, square=True, name="A", lapack=False)
    L = _cholesky("sqrtm", xp, A)
    y = L @ orthogonalise(xp, L, steps, coefficients).mT
    return (y + y.mT) / 2


def _cholesky(name, xp, A):
    try:
        return xp.linalg.cholesky((A + A.mT) / 2)
    except numpy.linalg.LinAlgError:
        raise ValueError(f"{name}: A {A.shape} is not positive definite: its Cholesky factor does not exist") from None


def _inverse_root_derivative(G, y, steps, coefficients):
    """S with y S + S y = -y^2 sym(G) y^2: its own adjoint, so the rule of both modes."""
    return _solve_lyapunov(y, -(y @ (y @ symmetric(G) @ y) @ y), parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=_inverse_root_derivative,
    jvp=_inverse_root_derivative,
    formula=r"Y = A^{-1/2}:\quad Y S + S Y = -Y^2\,\mathrm{sym}(\bar Y)\,Y^2,\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
    flops=dense(60),
)
def inv_sqrtm(xp, A, /, steps=None, coefficients=None):
    """The inverse square root of symmetric positive definite A (..., n, n): msign(L) L^{-1} with A = L L^T.

    A stands for its symmetric part. Raises ValueError where the Cholesky factor does not exist (NaN on a GPU).
    """
    check_matrices("inv_sqrtm", A, square=True, name="A", lapack=False)
    L = _cholesky("inv_sqrtm", xp, A)
    unitary = orthogonalise(xp, L, steps, coefficients)
    y = xp.linalg.solve(L.mT, unitary.mT).mT
    return (y + y.mT) / 2
