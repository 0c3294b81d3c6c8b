"""msign and the functions built on it: polar, nuclear_norm, sqrtm, inv_sqrtm. Matrix products only, every order.

The derivative of O = msign(M) is a Sylvester equation (source 000, equations (16) and (17)). For tall M (m x n, m >= n)
with P = O^T M = (M^T M)^{1/2} and a direction or cotangent G, reduced to the small side n:

    P W + W P = O^T G - G^T O,        derivative = O W + (G - O O^T G) P^{-1}

It is its own adjoint (msign is the gradient of the nuclear norm), so one function serves both modes. The equation is
solved by mcsgn (``matrix_equations``), whose rule is another such equation: all orders of derivatives exist, also at
repeated singular values, where rules made of svd or eigh divide by zero.
"""

import warnings
from math import hypot, sqrt
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.matrix_equations import solve_lyapunov, solve_skew_with_inverse, symmetric
from tinygrad_ms.ops.newton_schulz import (
    KnownInverse,
    check_matrices,
    orthogonalise,
    orthogonalise_smooth,
    roundoff,
    transpose,
)
from tinygrad_ms.ops.quintics import as_rows, converge, hashable, minimax_coefficients
from tinygrad_ms.ops.reductions import MATRIX_NORMS
from tinygrad_ms.ops.shapes import expand_reduced, moveaxis, operand

__all__ = ["inv_sqrtm", "minimax_coefficients", "msign", "nuclear_norm", "polar", "sqrtm"]

# --- msign ---------------------------------------------------------------------------------------------------------


def msign(M, *, eps=0.0, method="newton_schulz", steps=None, coefficients=None, recompute=False, check=False):
    """The orthogonal polar factor U V^T of M = U diag(s) V^T: M (..., n, m), float32 or float64, batched.

    Args:
        eps: 0 is the pure msign. With eps > 0 the smooth M (M^T M + e^2 I)^{-1/2}, e = eps ||M||_F per matrix:
            differentiable at every M but zero, rank-deficient included, with |gradient| <= |G| / e. For training.
        method: "newton_schulz" (products only, derivative by the mcsgn Sylvester solve: the choice on a GPU) or "svd"
            (rank-aware closed form, faster on a CPU; derivatives of second and higher order by the mcsgn solve).
        steps: None adapts to the residual, which synchronises the host; k runs exactly k steps and does not. Eight
            suffice while the least singular value is above 1e-3 ||M||_F (eight always with eps >= 1e-3).
        coefficients: a table ("su", "polar_express", "muon", "muon_you") or rows (a, b, c), the last one repeated as
            needed; ``minimax_coefficients`` makes some. Without ``steps`` each row runs once. The derivative is that of
            the exact msign, whatever the table leaves unconverged.
        recompute: with eps > 0, keep one array of the size of M less for backward, which computes the result again by
            one product, with rounding errors of order u / eps: those of the result itself where M is rank-deficient.
        check: look at the values (this synchronises): non-finite input is a ValueError, rank deficiency a warning.

    Zero gives zero with zero gradient; 1 x 1 is the sign; the scale of M does not matter. NaN or infinity makes its
    matrix NaN. A rank-deficient M, where msign is discontinuous, gives with "newton_schulz" an iterate whose extra
    singular values stay below about 0.1, with a bounded derivative, and with "svd" U_r V_r^T and the derivative along
    its rank. Raises ValueError for vectors and bad options, TypeError for other dtypes. Source: 000; docs/msign.md.
    """
    if method not in ("newton_schulz", "svd"):
        raise ValueError(f"msign: method={method!r}; expected 'newton_schulz' or 'svd'")
    if not (isinstance(eps, (int, float)) and (eps == 0 or 1e-12 <= eps <= 1e6)):
        raise ValueError(f"msign: eps={eps!r}; expected 0, or a number from 1e-12 to 1e6, relative to ||M||_F")
    if coefficients is not None and not isinstance(coefficients, str):
        coefficients = as_rows(coefficients)
    M = operand(M)
    shape = M.shape
    if len(shape) > 1 and shape[-2] < shape[-1]:  # work on the smaller side
        options = {"eps": eps, "method": method, "steps": steps, "coefficients": coefficients}
        return msign(M.mT, recompute=recompute, check=check, **options).mT
    if check:
        _check_finite(M)
    if method == "svd":
        y = _msign_svd(M, eps=float(eps), steps=steps, coefficients=coefficients, factors=Factors())
    elif eps:
        smooth = _msign_smooth_lean if recompute else _msign_smooth
        y = smooth(M, eps=float(eps), steps=steps, coefficients=coefficients)[0]
    elif len(shape) > 1 and shape[-2] == shape[-1]:
        y = _msign(M, steps=steps, coefficients=coefficients)
    else:
        y = _polar(M, steps=steps, coefficients=coefficients)[0]
    if check:
        _warn_of_rank(M, y, eps)
    return y


def _derivative(M, y, G, steps, coefficients, P=None):
    """The derivative of y = msign(M) in the direction G, which is also its adjoint applied to G."""
    if M.shape[-2] < M.shape[-1]:
        return _derivative(M.mT, y.mT, G.mT, steps, coefficients).mT
    if P is None:
        P = y.mT @ M
    B = y.mT @ G
    if M.shape[-2] == M.shape[-1]:
        return y @ solve_lyapunov(P, B, parity=-1, steps=steps, coefficients=coefficients) * 2
    W, inverse = solve_skew_with_inverse(P, B, steps=steps, coefficients=coefficients)
    return y @ (2 * W - B @ inverse) + G @ inverse


@primitive(
    vjp=lambda g, M, y, steps, coefficients: _derivative(M, y, g, steps, coefficients),
    jvp=lambda t, M, y, steps, coefficients: _derivative(M, y, t, steps, coefficients),
    formula=r"P W + W P = Y^T \bar Y - \bar Y^T Y,\ P = Y^T M:\quad \bar M = Y W",
    source="000, (16) and (17); docs/msign.md",
    notes="full rank: msign is discontinuous elsewhere",
    floats=True,
)
def _msign(xp, M, /, steps=None, coefficients=None):
    """The pure msign of square M (tall and wide ones work too) by Newton-Schulz."""
    check_matrices("msign", M)
    return orthogonalise(xp, M, steps, coefficients)


def _pull_polar(needed, g, M, y, P, steps, coefficients):
    gy, gP = g
    if gP is None:
        return (_derivative(M, y, gy, steps, coefficients, P),)
    gP = symmetric(gP)  # P = Y^T M feels M directly and through Y
    gy = M @ gP if gy is None else gy + M @ gP
    return (_derivative(M, y, gy, steps, coefficients, P) + y @ gP,)


def _push_polar(tangents, M, y, P, steps, coefficients):
    dy = _derivative(M, y, tangents[0], steps, coefficients, P)
    return dy, symmetric(dy.mT @ M + y.mT @ tangents[0])


@primitive(
    vjp=_pull_polar,
    jvp=_push_polar,
    outputs=("y", "P"),
    formula=r"P W + W P = Y^T \bar Y - \bar Y^T Y,\ P = Y^T M:\quad"
    r"\bar M = Y W + (\bar Y - Y Y^T \bar Y) P^{-1}",
    source="000, (16) and (17); docs/msign.md",
    notes="full rank: msign is discontinuous elsewhere",
    floats=True,
)
def _polar(xp, M, /, steps=None, coefficients=None):
    """The polar factors of tall M: msign(M) and P = (M^T M)^{1/2}, which saves the derivative a large product."""
    check_matrices("msign", M)
    y = orthogonalise(xp, M, steps, coefficients)
    P = transpose(y) @ M
    return y, (P + transpose(P)) / 2


# --- smooth msign --------------------------------------------------------------------------------------------------


def _safe(x):
    """x with its zeros replaced by ones."""
    return x + (x == 0)


def _inner(a, b):
    """<a, b> per matrix, as (..., 1, 1): a row times a column, which reads both once."""
    flat = (*a.shape[:-2], 1, a.shape[-2] * a.shape[-1])
    return a.reshape(flat) @ b.reshape(flat).mT


def _scaled(M, y, tail, norm, eps):
    """r, M / c, P / c, c P^{-1} and Y, for c = r ||M||_F in the middle (geometrically) of the bounds of P's eigenvalues.

    These are e = eps ||M||_F and (1 + eps^2)^{1/2} ||M||_F. Without ``y`` it is computed again, as M P^{-1} = M T / e.
    """
    r = sqrt(eps) * sqrt(hypot(1, eps))
    u, q = M / (r * _safe(norm)), tail * (r / eps)
    y = u @ q if y is None else y
    p = y.mT @ u
    p += tail * (eps / r)
    return r, u, p, q, y


def _smooth_inner(p, q, B, m, eps, steps, coefficients):
    """c (W - B P^{-1}) with the W of B. Where the rows converge, c P^{-1} gives the solve its first step."""
    n, raw = q.shape[-1], _raw(q)
    lower = eps / sqrt(1 + n * eps * eps)
    sure = converge(steps, hashable(coefficients), lower, n, m + n, roundoff(raw.dtype))
    known = KnownInverse(raw, sqrt(hypot(1, eps)) / sqrt(eps)) if sure else None
    inner = solve_lyapunov(p, B, parity=-1, steps=steps, coefficients=coefficients, known=known)
    inner *= 2
    inner -= B @ q
    return inner


def _pull_smooth(needed, g, M, y, tail, norm, eps, steps, coefficients):
    gy, g_tail, g_norm = g
    if gy is None and g_tail is None:
        return (g_norm * (M / _safe(norm)),)
    r, u, p, q, y = _scaled(M, y, tail, norm, eps)
    B = None if gy is None else y.mT @ gy
    if g_tail is not None:
        B = tail @ g_tail if B is None else B + tail @ g_tail
    gradient = y @ _smooth_inner(p, q, B, M.shape[-2], eps, steps, coefficients)
    if gy is not None:
        gradient += gy @ q  # at constant e, times c
    gradient -= (r * r * _inner(gradient, u)) * u  # e follows ||M||_F: nothing changes along M
    gradient /= r * _safe(norm)
    return (gradient if g_norm is None else gradient + (r * g_norm) * u,)


def _push_smooth(tangents, M, y, tail, norm, eps, steps, coefficients):
    (t,) = tangents
    r, u, p, q, y = _scaled(M, y, tail, norm, eps)
    along = r * _inner(t, u)
    t = (t - (r * along) * u) / (r * _safe(norm))
    inner = _smooth_inner(p, q, y.mT @ t, M.shape[-2], eps, steps, coefficients)
    return y @ inner + t @ q, tail @ inner, along


SMOOTH: dict[str, Any] = {
    "outputs": ("y", "tail", "norm"),
    "formula": r"P = Y^T M + e\,T,\ T = e P^{-1}:\quad"
    r" \bar M = \Pi(Y (W - B P^{-1}) + \bar Y P^{-1}),\ B = Y^T \bar Y,"
    r"\ \Pi(X) = X - \langle X, M\rangle M / \|M\|_F^2",
    "source": "docs/msign.md, section 4; 000, (16) and (17) with this P",
    "notes": "discontinuous at M = 0, where the value and the gradient are 0 by convention",
    "floats": True,
}


@primitive(vjp=_pull_smooth, jvp=_push_smooth, **SMOOTH)
def _msign_smooth(xp, M, /, eps, steps=None, coefficients=None):
    """The smooth msign of tall M: the blocks (Y, T) of msign([M; e I]), and ||M||_F as (..., 1, 1)."""
    check_matrices("msign", M)
    return orthogonalise_smooth(xp, M, eps, steps, coefficients)


@primitive(
    vjp=lambda needed, g, M, tail, norm, eps, steps, coefficients: _pull_smooth(
        needed, g, M, None, tail, norm, eps, steps, coefficients
    ),
    jvp=lambda tangents, M, tail, norm, eps, steps, coefficients: _push_smooth(
        tangents, M, None, tail, norm, eps, steps, coefficients
    ),
    **SMOOTH,
)
def _msign_smooth_lean(xp, M, /, eps, steps=None, coefficients=None):
    """As ``msign_smooth``, with M and T kept for backward, which computes Y = M T / e: rounding errors of order u / eps."""
    check_matrices("msign", M)
    return orthogonalise_smooth(xp, M, eps, steps, coefficients)


# --- the closed form on the SVD ------------------------------------------------------------------------------------


class Factors:
    """The SVD of one call, which its derivative rule reuses: a constant of the tape that the forward fills in.

    Not outputs of the primitive: singular vectors are arbitrary up to sign and have no derivative where values repeat.
    """

    __slots__ = ("f", "h", "norm", "u", "vt")

    def __repr__(self):
        return "Factors()"


def _svd_derivative(M, y, g, eps, steps, coefficients, factors, push):
    """The formula of ``_derivative`` between singular vectors: only h_i + h_j in denominators, h = (s^2 + e^2)^{1/2}.

    Singular values that count as zero have f = h = 0: they are held at zero, and the block between two of them
    vanishes.
    """
    if isinstance(g, Tensor):  # under create_graph: the next derivative comes from the mcsgn solve
        if not eps:
            return _derivative(M, y, g, steps, coefficients)
        parts = _msign_smooth(M, eps=eps, steps=steps, coefficients=coefficients)
        if push:
            return _push_smooth((g,), M, *parts, eps, steps, coefficients)[0]
        return _pull_smooth((True,), (g, None, None), M, *parts, eps, steps, coefficients)[0]
    if M.size == 0:
        return g * 1
    if factors is None:
        _msign_svd(M, eps=eps, factors=(factors := Factors()))
    u, f, h, vt = factors.u, factors.f, factors.h, factors.vt
    unit = M / _safe(factors.norm)
    if eps and push:
        g = g - _inner(g, unit) * unit
    inverse = (h != 0) / _safe(h)
    right = g @ vt.mT
    B = f[..., :, None] * (u.mT @ right)
    total = h[..., :, None] + h[..., None, :]
    inner = f[..., :, None] * ((B - B.mT) / _safe(total) - B * inverse[..., None, :])
    result = (u @ inner + right * inverse[..., None, :]) @ vt
    return result - _inner(result, unit) * unit if eps and not push else result


@primitive(
    vjp=lambda g, M, y, eps, steps, coefficients, factors: _svd_derivative(
        M, y, g, eps, steps, coefficients, factors, push=False
    ),
    jvp=lambda t, M, y, eps, steps, coefficients, factors: _svd_derivative(
        M, y, t, eps, steps, coefficients, factors, push=True
    ),
    formula=r"M = U S V^T,\ F = S/H,\ B = F U^T \bar Y V:\quad"
    r"\bar M = U\left[F\left(\frac{B - B^T}{h_i + h_j} - B H^{-1}\right)\right]V^T + \bar Y V H^{-1} V^T",
    source="000, (18); docs/msign.md",
    notes="rank-aware: singular values below max(n, m) u s_1 are held at zero",
    floats=True,
)
def _msign_svd(xp, M, /, eps=0.0, steps=None, coefficients=None, factors=None):
    """msign by the SVD of tall M, pure or smooth; ``factors`` receives it."""
    check_matrices("msign", M)
    if M.size == 0:
        return M * 1
    with numpy.errstate(all="ignore"):
        bad = ~xp.isfinite(M).all(axis=(-2, -1), keepdims=True)
        largest = xp.abs(M).max(axis=(-2, -1), keepdims=True)
        scale = xp.where(bad | (largest == 0), 1, largest)  # squares below stay in range
        u, s, vt = xp.linalg.svd(xp.where(bad, 0, M) / scale, full_matrices=False)
        size = xp.sqrt((s * s).sum(axis=-1, keepdims=True))
        if eps:
            h = xp.hypot(s, eps * size)
        else:
            cut = max(M.shape[-2:]) * xp.finfo(M.dtype).eps * s.max(axis=-1, keepdims=True)
            h = xp.where(s > cut, s, 0)
        f = xp.where(h == 0, 0, s / h)
        y = xp.where(bad, xp.nan, (u * f[..., None, :]) @ vt).astype(M.dtype)
        if factors is not None:
            scale = xp.where(bad, xp.nan, scale)[..., 0].astype(M.dtype)
            factors.u, factors.f, factors.vt = u, f.astype(M.dtype), vt
            factors.h, factors.norm = (h * scale).astype(M.dtype), (size * scale)[..., None]
    return y


# --- check=True ----------------------------------------------------------------------------------------------------


def _raw(x):
    return x.data if isinstance(x, Tensor) else x


def _check_finite(M):
    raw = _raw(M)
    xp = BACKENDS[type(raw)].xp
    bad = int(raw.size - xp.isfinite(raw).sum())
    if bad:
        raise ValueError(f"msign: {bad} of the {raw.size} elements of M {raw.shape} are not finite")


def _warn_of_rank(M, y, eps):
    M, y = _raw(M), _raw(y)
    xp = BACKENDS[type(M)].xp
    if eps or not M.size:
        return
    identity = xp.eye(y.shape[-1], dtype=y.dtype)
    gram = transpose(y) @ y - identity
    residual = float(xp.sqrt((gram * gram).sum(axis=(-2, -1))).max())
    if residual > 0.1:
        s = xp.linalg.svd(M, compute_uv=False)
        warnings.warn(
            f"msign: M {M.shape} has a numerically rank-deficient matrix: residual ||Y^T Y - I||_F = {residual:.2g},"
            f" smallest singular value {float(s[..., -1].min()):.2g}, largest {float(s[..., 0].max()):.2g};"
            " use eps > 0, or method='svd' for the factor of its rank",
            RuntimeWarning,
            stacklevel=3,
        )


# --- polar decomposition and nuclear norm --------------------------------------------------------------------------


def polar(M, side="right", *, steps=None, coefficients=None):
    """The polar decomposition of M (..., n, m): (U, H) with U = msign(M), and M = U H ("right") or M = H U ("left").

    H = (M^T M)^{1/2} (..., m, m), or (M M^T)^{1/2} (..., n, n), is symmetric positive semidefinite. Derivatives of
    every order through ``msign``. Raises ValueError for another ``side``. Source: Higham, Functions of Matrices,
    chapter 8.
    """
    if side not in ("right", "left"):
        raise ValueError(f"polar: side={side!r}; expected 'right' (M = U H) or 'left' (M = H U)")
    M = operand(M)
    shape = M.shape
    if len(shape) > 1 and (shape[-2] < shape[-1] if side == "left" else shape[-2] >= shape[-1]):
        U, H = _polar(M if side == "right" else M.mT, steps=steps, coefficients=coefficients)
        return (U if side == "right" else U.mT), H
    U = msign(M, steps=steps, coefficients=coefficients)
    return U, symmetric(U.mT @ M if side == "right" else M @ U.mT)


def _pull_nuclear(needed, g, M, unitary, steps, coefficients):
    g_norm, g_unitary = g
    gradient = None if g_norm is None else g_norm.reshape((*g_norm.shape, 1, 1)) * unitary
    if g_unitary is not None:
        other = _derivative(M, unitary, g_unitary, steps, coefficients)
        gradient = other if gradient is None else gradient + other
    return (gradient,)


def _push_nuclear(tangents, M, unitary, steps, coefficients):
    (t,) = tangents
    return (unitary * t).sum(axis=(-2, -1)), _derivative(M, unitary, t, steps, coefficients)


@primitive(
    vjp=_pull_nuclear,
    jvp=_push_nuclear,
    outputs=("norm", "unitary"),
    formula=r"d\|M\|_* = \langle \mathrm{msign}(M), dM \rangle",
    source="Watson 1992, Characterization of the subdifferential of some matrix norms",
    floats=True,
)
def _nuclear_norm(xp, M, /, steps=None, coefficients=None):
    """The nuclear norm of each matrix, and its gradient msign(M)."""
    check_matrices("nuclear_norm", M)
    unitary = orthogonalise(xp, M, steps, coefficients)
    return (unitary * M).sum(axis=(-2, -1)), unitary


def nuclear_norm(M, *, steps=None, coefficients=None):
    """The sum of the singular values of each matrix of M (..., n, m), shape (...): <msign(M), M>, no SVD.

    Its gradient is msign(M), and its Hessian the derivative of msign. At rank-deficient M msign is one subgradient.
    """
    return _nuclear_norm(M, steps=steps, coefficients=coefficients)[0]


def _nuclear_of_axes(x, axis, keepdims):
    """``norm(x, "nuc", axis)``, in the form of ``reductions.MATRIX_NORMS``."""
    y = nuclear_norm(moveaxis(x, axis, (-2, -1)))
    return expand_reduced(y, x.shape, axis, False) if keepdims else y


MATRIX_NORMS["nuc"] = _nuclear_of_axes


# --- square roots of symmetric positive definite matrices ----------------------------------------------------------


def _root_derivative(G, y, steps, coefficients):
    return solve_lyapunov(y, G, parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=lambda g, y, steps, coefficients: _root_derivative(g, y, steps, coefficients),
    jvp=lambda t, y, steps, coefficients: _root_derivative(t, y, steps, coefficients),
    formula=r"Y = A^{1/2}:\quad Y S + S Y = \mathrm{sym}(\bar Y),\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
)
def sqrtm(xp, A, /, steps=None, coefficients=None):
    """The square root of symmetric positive definite A (..., n, n): L msign(L)^T with A = L L^T.

    A stands for its symmetric part. Raises ValueError where the Cholesky factor does not exist (NaN on a GPU).
    """
    check_matrices("sqrtm", A, square=True)
    L = _cholesky("sqrtm", xp, A)
    y = L @ transpose(orthogonalise(xp, L, steps, coefficients))
    return (y + transpose(y)) / 2


def _cholesky(name, xp, A):
    try:
        return xp.linalg.cholesky((A + transpose(A)) / 2)
    except numpy.linalg.LinAlgError:
        raise ValueError(f"{name}: A {A.shape} is not positive definite: its Cholesky factor does not exist") from None


def _inverse_root_derivative(G, y, steps, coefficients):
    return solve_lyapunov(y, -(y @ (y @ symmetric(G) @ y) @ y), parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=lambda g, y, steps, coefficients: _inverse_root_derivative(g, y, steps, coefficients),
    jvp=lambda t, y, steps, coefficients: _inverse_root_derivative(t, y, steps, coefficients),
    formula=r"Y = A^{-1/2}:\quad Y S + S Y = -Y^2\,\mathrm{sym}(\bar Y)\,Y^2,\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
)
def inv_sqrtm(xp, A, /, steps=None, coefficients=None):
    """The inverse square root of symmetric positive definite A (..., n, n): msign(L) L^{-1} with A = L L^T.

    A stands for its symmetric part. Raises ValueError where the Cholesky factor does not exist (NaN on a GPU).
    """
    check_matrices("inv_sqrtm", A, square=True)
    L = _cholesky("inv_sqrtm", xp, A)
    unitary = orthogonalise(xp, L, steps, coefficients)
    y = transpose(xp.linalg.solve(transpose(L), transpose(unitary)))
    return (y + transpose(y)) / 2
