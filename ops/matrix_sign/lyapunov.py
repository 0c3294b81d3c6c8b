"""The equation A X + X A = C for symmetric positive definite A. The derivative of the polar factor is such an equation.

The derivative of the equation is another one of its kind. So all orders exist, without an eigendecomposition.
"""

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.block_solve import InverseOf, solve_symmetric
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.iterations.driver import into_range
from tinygrad_ms.ops.linalg.decompositions import on_host
from tinygrad_ms.ops.linalg.definite import _solve_by_eigenvalues, fits, positive_definite, unless_symmetric
from tinygrad_ms.ops.linalg.parts import check_matrices, common_batch, symmetric
from tinygrad_ms.ops.matrix_sign.sylvester import check_right_side
from tinygrad_ms.ops.operands import as_operand

__all__ = ["solve_lyapunov"]


# --- A X + X A = C -------------------------------------------------------------------------------------------------


def _lyapunov_vjp(needed, g, A, y, parity, steps, coefficients, inverse):
    S = _solve_lyapunov(A, g, parity=parity, steps=steps, coefficients=coefficients, inverse=inverse)
    return -_outer(S, y, parity) if needed[0] else None, S


def _outer(S, y, parity):
    """The symmetric part of S y^T + y^T S. If C has a parity, S y is enough."""
    if parity:
        Sy = S @ y
        return parity * (Sy + Sy.mT)
    return symmetric(times(S, y.mT) + times(y.mT, S))


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
    source="Su Jianlin, equations 20 and 21",
    notes="A stands for its symmetric part; at A = 0 the result is 0 by convention",
    flops=dense(100),
)
def _solve_lyapunov(xp, A, C, /, parity=0, steps=None, coefficients=None, inverse=None):
    """As ``solve_lyapunov``. Rules that know A^{-1} pass it as ``inverse`` (an ``InverseOf``)."""
    if parity not in (-1, 0, 1):
        raise ValueError(f"solve_lyapunov: parity={parity!r}; expected -1 (skew C), 1 (symmetric C) or 0")
    if not isinstance(inverse, (InverseOf, type(None))):
        raise TypeError(f"solve_lyapunov: inverse is a {type(inverse).__name__}; expected an InverseOf, or nothing")
    check_matrices("solve_lyapunov", A, square=True, name="A", lapack=False)
    check_right_side("solve_lyapunov", A, A, C)
    A, C = common_batch(xp, A, C)
    return solve_symmetric(xp, A, C, parity, False, steps, coefficients, inverse)


def solve_lyapunov(A, C, /, parity=0, steps=None, coefficients=None):
    """The X with A X + X A = C, for symmetric A (..., n, n) and any C (..., n, n), float32 or float64.

    For positive definite A the method is Newton-Schulz for mcsgn([[A, C], [0, -A]]) on its blocks, by matrix products
    alone. With ``parity`` -1 or +1 it solves for the skew or the symmetric part of C, with 7 products a step instead of
    9. ``steps=k`` runs exactly k steps and never makes the host wait; None adapts to the residual (``msign``).
    For other symmetric A the solution comes from the eigenvalues of A. With ``steps`` on a GPU, where the host would
    have to wait, it is NaN instead. Where two eigenvalues add up to zero, the result is inf or NaN; at A = 0 it is 0 by
    convention. A stands for its symmetric part.
    Raises ValueError for an A that is not symmetric to 1e-4 of its largest element (on a GPU the result is NaN;
    ``solve_sylvester(A, A, C)`` takes such an A) and for shapes that do not fit, TypeError for other dtypes.
    """
    A, C = as_operand(A), as_operand(C)
    s = into_range(A)
    result = _solve_anywhere(A if s is None else A * s, C, parity, steps, coefficients)
    return result if s is None else result * s


def _solve_anywhere(A, C, parity, steps, coefficients):
    """The solution by the method that fits A."""
    x = raw(A)
    if not fits(x):  # the primitive raises the error
        return _solve_lyapunov(A, C, parity=parity, steps=steps, coefficients=coefficients)
    xp = BACKENDS[type(x)].xp
    hint = (
        "solve_sylvester(A, A, C) solves the equation of any A, solve_sylvester(A, A.mT, C) the other one of this name"
    )
    spoiled, definite = unless_symmetric("solve_lyapunov", x, hint), positive_definite(xp, x)
    if steps is not None and not on_host(x):
        spoiled = xp.where(definite, 0, xp.nan) if spoiled is None else xp.where(definite, spoiled, xp.nan)
    elif not definite.all():
        fixed_rows(steps, coefficients)  # unused here, but checked
        check_right_side("solve_lyapunov", x, x, raw(C))
        result = _solve_by_eigenvalues(A, C, parity=parity)
        return result if spoiled is None else result + spoiled
    result = _solve_lyapunov(A, C, parity=parity, steps=steps, coefficients=coefficients)
    return result if spoiled is None else result + spoiled.astype(x.dtype)


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
    source="Su Jianlin, equations 20 and 21",
    flops=dense(100),
)
def solve_skew_with_inverse(xp, P, C, /, steps=None, coefficients=None):
    """(W, P^{-1}) with P W + W P = (C - C^T) / 2. One iteration gives both."""
    P, C = common_batch(xp, P, C)
    return solve_symmetric(xp, P, C, -1, True, steps, coefficients)


# --- the polar factor ----------------------------------------------------------------------------------------------


def polar_derivative(M, y, G, steps, coefficients, P=None):
    """The derivative of y = msign(M) in the direction G. It is its own adjoint, so it is the VJP of G, too."""
    if M.shape[-2] < M.shape[-1]:
        return polar_derivative(M.mT, y.mT, G.mT, steps, coefficients).mT
    if P is None:
        P = times(y.mT, M)
    B = times(y.mT, G)
    if M.shape[-2] == M.shape[-1]:
        return y @ _solve_lyapunov(P, B, parity=-1, steps=steps, coefficients=coefficients) * 2
    W, inverse = solve_skew_with_inverse(P, B, steps=steps, coefficients=coefficients)
    return y @ (2 * W - B @ inverse) + G @ inverse
