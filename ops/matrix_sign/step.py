"""One step of Newton-Schulz as a primitive, for ``msign_unrolled``."""

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.fused import calls
from tinygrad_ms.ops.iterations.polar import gram
from tinygrad_ms.ops.linalg.parts import check_matrices
from tinygrad_ms.ops.matrix_sign.closed_form import _identity

__all__: list[str] = []


def _along(g, X, U, T, a, b, c):
    """G T + X (U D + D U) with D = X^T G + G^T X, T = a I + b S + c S S and U = b / 2 I + c S."""
    if (found := calls.newton_schulz_rule(X, g, (a, b, c))) is not None:
        return found
    if T is None:
        S, identity = times(X.mT, X), _identity(X)
        U = c * S + (b / 2) * identity
        T = times(S, U + (b / 2) * identity) + a * identity
    D = times(X.mT, g)
    E = times(U, D + D.mT)
    y = times(g, T)
    y += times(X, E + E.mT)
    return y


@primitive(
    vjp=_along,
    jvp=_along,
    cache=("U", "T"),
    batched=True,
    formula=r"S = X^T X,\; T = a I + b S + c S^2,\; D = X^T \bar Y + \bar Y^T X:\quad"
    r"\bar X = \bar Y T + X (b D + c (S D + D S))",
    source="Su Jianlin, equation 5; the Jacobian is symmetric: Y is the gradient of a sum over singular values",
    flops=dense(6),
)
def _newton_schulz_step(xp, X, /, a, b, c):
    """X (a I + b S + c S S) with S = X^T X, for X (..., m, n). Its derivative is its own adjoint."""
    check_matrices("newton_schulz_step", X, name="X", lapack=False)
    if (y := calls.newton_schulz(X, (a, b, c))) is not None:
        return y, (None, None)
    n = X.shape[-1]
    S = gram(xp, X)

    def shifted(x, number):
        on_diagonal = x.reshape((*x.shape[:-2], n * n))[..., :: n + 1]
        on_diagonal += number
        return x

    U = shifted(S * c, b)
    T = shifted(times(S, U), a)
    return times(X, T), (shifted(U, -b / 2), T)
