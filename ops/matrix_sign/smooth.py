"""The smooth msign of tall M, by the iteration on [M; e I]. ``msign`` is the front door; docs/msign.md, section 4."""

from math import hypot, sqrt
from typing import Any, NamedTuple

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.block_solve import InverseOf
from tinygrad_ms.ops.iterations.coefficients import converge, hashable, roundoff
from tinygrad_ms.ops.iterations.polar import orthogonalise_smooth
from tinygrad_ms.ops.linalg.parts import check_matrices
from tinygrad_ms.ops.matrix_sign.lyapunov import _solve_lyapunov

__all__: list[str] = []


# --- smooth msign --------------------------------------------------------------------------------------------------


def _safe(x):
    """x with its zeros replaced by ones."""
    return x + (x == 0)


def _inner(a, b):
    """<a, b> per matrix, as (..., 1, 1). On a CPU the product of a row and a column reads both once."""
    if BACKENDS[type(raw(a))].name != "cpu":  # such a product would leave the whole sum to few threads
        return (a * b).sum(axis=(-2, -1), keepdims=True)
    flat = (*a.shape[:-2], 1, a.shape[-2] * a.shape[-1])
    return a.reshape(flat) @ b.reshape(flat).mT


class Scaled(NamedTuple):
    """What the rule computes with, in units of c, the geometric mean of the bounds of the eigenvalues of P.

    The bounds are e = eps ||M||_F and (1 + eps^2)^{1/2} ||M||_F. Divided by c, they lie symmetrically about one.
    """

    r: float  # c / ||M||_F
    u: Any  # M / c
    p: Any  # P / c
    p_inverse: Any  # c P^{-1}
    y: Any  # Y


def _scaled(M, y, scaled_inverse, norm, eps) -> Scaled:
    """The scaled quantities from the outputs of the forward. If ``y`` is None, Y = M T / e is computed again."""
    r = sqrt(eps) * sqrt(hypot(1, eps))
    u, q = M / (r * _safe(norm)), scaled_inverse * (r / eps)
    y = u @ q if y is None else y
    p = times(y.mT, u)
    p += scaled_inverse * (eps / r)
    return Scaled(r, u, p, q, y)


def _smooth_inner(p, p_inverse, B, m, eps, steps, coefficients):
    """c (W - B P^{-1}), where W solves P W + W P = B - B^T. If the rows converge, the solve starts from c P^{-1}."""
    n, known = p_inverse.shape[-1], raw(p_inverse)
    lower = eps / sqrt(1 + n * eps * eps)
    sure = converge(steps, hashable(coefficients), lower, n, m + n, roundoff(known.dtype))
    inverse = InverseOf(known, sqrt(hypot(1, eps)) / sqrt(eps)) if sure else None
    inner = _solve_lyapunov(p, B, parity=-1, steps=steps, coefficients=coefficients, inverse=inverse)
    inner *= 2
    inner -= B @ p_inverse
    return inner


def _smooth_vjp(needed, g, M, y, scaled_inverse, norm, eps, steps, coefficients):
    gy, g_scaled, g_norm = g
    if gy is None and g_scaled is None:
        return (g_norm * (M / _safe(norm)),)
    r, u, p, p_inverse, y = _scaled(M, y, scaled_inverse, norm, eps)
    B = None if gy is None else times(y.mT, gy)
    if g_scaled is not None:
        B = scaled_inverse @ g_scaled if B is None else B + scaled_inverse @ g_scaled
    gradient = y @ _smooth_inner(p, p_inverse, B, M.shape[-2], eps, steps, coefficients)
    if gy is not None:
        gradient += gy @ p_inverse  # so far e is constant; all is times c
    gradient -= (r * r * _inner(gradient, u)) * u  # e grows with ||M||_F, so the derivative along M is zero
    gradient /= r * _safe(norm)
    return (gradient if g_norm is None else gradient + (r * g_norm) * u,)


def _smooth_jvp(tangents, M, y, scaled_inverse, norm, eps, steps, coefficients):
    (t,) = tangents
    r, u, p, p_inverse, y = _scaled(M, y, scaled_inverse, norm, eps)
    along = r * _inner(t, u)
    t = (t - (r * along) * u) / (r * _safe(norm))
    inner = _smooth_inner(p, p_inverse, times(y.mT, t), M.shape[-2], eps, steps, coefficients)
    return y @ inner + t @ p_inverse, scaled_inverse @ inner, along


SMOOTH: dict[str, Any] = {
    "outputs": ("y", "scaled_inverse", "norm"),
    "formula": r"P = Y^T M + e\,T,\ T = e P^{-1}:\quad"
    r" \bar M = \Pi(Y (W - B P^{-1}) + \bar Y P^{-1}),\ B = Y^T \bar Y,"
    r"\ \Pi(X) = X - \langle X, M\rangle M / \|M\|_F^2",
    "source": "docs/msign.md, section 4; Su Jianlin, equations 13 and 14 with this P",
    "notes": "discontinuous at M = 0, where the value and the gradient are 0 by convention",
    "floats": True,
    "flops": dense(60),
}


def smooth_primitive(keep_y: bool):
    """The smooth msign as a primitive. It keeps Y for backward, or backward computes Y again."""
    if keep_y:
        return primitive(vjp=_smooth_vjp, jvp=_smooth_jvp, **SMOOTH)
    else:
        return primitive(
            vjp=lambda needed, g, M, scaled_inverse, norm, eps, steps, coefficients: _smooth_vjp(
                needed, g, M, None, scaled_inverse, norm, eps, steps, coefficients
            ),
            jvp=lambda tangents, M, scaled_inverse, norm, eps, steps, coefficients: _smooth_jvp(
                tangents, M, None, scaled_inverse, norm, eps, steps, coefficients
            ),
            **SMOOTH,
        )


@smooth_primitive(keep_y=True)
def _msign_smooth(xp, M, /, eps, steps=None, coefficients=None):
    """The smooth msign of tall M: the blocks (Y, T) of msign([M; e I]), and ||M||_F as (..., 1, 1)."""
    check_matrices("msign", M, name="M", lapack=False)
    return orthogonalise_smooth(xp, M, eps, steps, coefficients)


@smooth_primitive(keep_y=False)
def _msign_smooth_recomputing(xp, M, /, eps, steps=None, coefficients=None):
    """As ``msign_smooth``, but backward computes Y = M T / e from M and T, with errors of order u / eps."""
    return _msign_smooth.primitive.forward(xp, M, eps, steps, coefficients)
