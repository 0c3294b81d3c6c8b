"""msign of tall M in closed form on its SVD, of any rank; docs/msign.md, section 6.

The derivative is that along matrices of the same rank: where two singular values are both zero, they stay zero. Only
sums of singular values are denominators. A term that vanishes for square M of full rank is left out, as its
rounding errors would be divided by the least singular value.
"""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, symmetric
from tinygrad_ms.ops.matrix_sign.definite import _solve_by_eigenvalues
from tinygrad_ms.ops.matrix_sign.smooth import _inner, _safe
from tinygrad_ms.ops.shapes import concat

__all__: list[str] = []


def _recorded(M, y, G):
    """The derivative of y = msign(M) of any rank in the direction G, in ops that can be differentiated in turn.

    With P = y^T M and N = I - y^T y, the projector on the null space, which a multiple of N makes invertible:
    P W + W P = (y^T G - G^T y) on the range, derivative = y W + (G - y y^T G) P^+ + y P^+ (y^T G) N.
    """
    n, identity = y.shape[-1], _identity(y)
    rank = (raw(y) ** 2).sum(axis=(-2, -1), keepdims=True)
    deficient = (rank < n - 0.5).astype(identity.dtype)
    P, B = symmetric(y.mT @ M), y.mT @ G
    N = (identity - y.mT @ y) * deficient
    size = abs(raw(P)).max(axis=(-2, -1), keepdims=True)
    size = size + (size == 0)
    whole = P + N * size
    result = y @ _solve_by_eigenvalues(whole, B - B @ N, parity=-1) * 2
    if M.shape[-2] == n and not deficient.any():
        return result
    inverse = _solve_by_eigenvalues(whole, identity * 2) - N / size
    outside = (G - y @ B) @ inverse
    return result + y @ (inverse @ B @ N) + (outside if M.shape[-2] > n else outside * deficient)


def _recorded_smooth(M, G, eps, jvp):
    """The same for the smooth msign, the upper block of that of [M; e I], where e follows ||M||_F."""
    squared = _inner(M, M)
    unit = M / _safe(squared)
    if jvp:
        G = G - _inner(G, M) * unit
    lower = (squared + (raw(squared) == 0)) ** 0.5 * (eps * _identity(M))
    lower = lower * (raw(squared) != 0)
    X = concat([M, lower], axis=-2)
    result = _recorded(X, _msign_svd(X), concat([G, lower * 0], axis=-2))[..., : M.shape[-2], :]
    return result if jvp else result - _inner(result, M) * unit


def _identity(x):
    """The raw identity matrix of the last axis of x."""
    x = raw(x)
    return BACKENDS[type(x)].xp.eye(x.shape[-1], dtype=x.dtype)


def _derivative(M, y, g, eps, factors, jvp):
    """The derivative along g between singular vectors, its own adjoint but for the projection along M.

    With E = U^T g V, h = (s^2 + e^2)^{1/2}, f = s / h:
    U [f_i (f_i E_ij - f_j E_ji) / (h_i + h_j) + (1 - f_i^2) E_ij / h_j] V^T + (g V - U E) H^{-1} V^T.
    """
    if not M.size:
        return g * 1
    if factors[0] is None:  # under create_graph
        return _recorded_smooth(M, g, eps, jvp) if eps else _recorded(M, y, g)
    u, f, h, vt, norm = factors
    unit = M / _safe(norm)
    if eps and jvp:
        g = g - _inner(g, unit) * unit
    inverse = (h != 0) / _safe(h)
    rest = (eps * norm[..., 0] * inverse) ** 2 if eps else (f == 0).astype(f.dtype)  # 1 - f^2
    right = g @ vt.mT
    E = u.mT @ right
    B = f[..., :, None] * E
    total = h[..., :, None] + h[..., None, :]
    inner = f[..., :, None] * ((B - B.mT) / _safe(total)) + rest[..., :, None] * E * inverse[..., None, :]
    result = u @ inner
    if M.shape[-2] > M.shape[-1]:
        result += (right - u @ E) * inverse[..., None, :]
    result = result @ vt
    return result - _inner(result, unit) * unit if eps and not jvp else result


@primitive(
    vjp=lambda g, M, y, eps, u, f, h, vt, norm: _derivative(M, y, g, eps, (u, f, h, vt, norm), jvp=False),
    jvp=lambda t, M, y, eps, u, f, h, vt, norm: _derivative(M, y, t, eps, (u, f, h, vt, norm), jvp=True),
    cache=("u", "f", "h", "vt", "norm"),
    formula=r"M = U S V^T,\ F = S/H,\ E = U^T \bar Y V:\quad"
    r"\bar M = U\left[\frac{F (F E - E^T F)}{h_i + h_j} + (1 - F^2) E H^{-1}\right]V^T"
    r" + (I - U U^T) \bar Y V H^{-1} V^T",
    source="000, (17) and (18); docs/msign.md",
    notes="rank-aware: singular values below max(n, m) u s_1 are held at zero",
    floats=True,
    flops=dense(21),
)
def _msign_svd(xp, M, /, eps=0.0):
    """msign by the SVD of tall M, pure or smooth. The factors are no outputs: they may turn where values repeat."""
    check_matrices("msign", M, name="M")
    if M.size == 0:
        return M * 1, (None,) * 5
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
        scale = xp.where(bad, xp.nan, scale)[..., 0].astype(M.dtype)
        h, norm = (h * scale).astype(M.dtype), (size * scale)[..., None]
    return y, (u, f.astype(M.dtype), h, vt, norm)
