"""msign of tall M in closed form on its singular vectors, of any rank; docs/msign.md, section 6.

The vectors come from LAPACK's SVD, or from the eigenvectors of the Gram matrix M^T M in float64.

The derivative is the one along matrices of the same rank: singular values that are zero stay zero. Every denominator
is a sum of two singular values. For square M of full rank one term is zero in exact arithmetic. It is left out, because
its rounding errors would be divided by the least singular value.
"""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.driver import largest_elements, power_of_two
from tinygrad_ms.ops.linalg.definite import _solve_by_eigenvalues
from tinygrad_ms.ops.linalg.parts import check_matrices, symmetric
from tinygrad_ms.ops.matrix_sign.smooth import _inner, _safe
from tinygrad_ms.ops.shapes import concat

__all__: list[str] = []


def _recorded(M, y, G):
    """The derivative of y = msign(M) of any rank in the direction G, in ops that can be differentiated in turn.

    P = y^T M. N = I - y^T y projects on the null space of P; adding a multiple of N makes P invertible. On the range:
    P W + W P = y^T G - G^T y, derivative = y W + (G - y y^T G) P^+ + y P^+ (y^T G) N.
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


def _recorded_smooth(M, G, eps, method, jvp):
    """The same for the smooth msign, the upper block of msign([M; e I]). Here e = eps ||M||_F changes with M."""
    squared = _inner(M, M)
    unit = M / _safe(squared)
    if jvp:
        G = G - _inner(G, M) * unit
    lower = (squared + (raw(squared) == 0)) ** 0.5 * (eps * _identity(M))
    lower = lower * (raw(squared) != 0)
    X = concat([M, lower], axis=-2)
    result = _recorded(X, _msign_closed_form(X, method=method), concat([G, lower * 0], axis=-2))[..., : M.shape[-2], :]
    return result if jvp else result - _inner(result, M) * unit


def _identity(x):
    """The raw identity matrix of the last axis of x."""
    x = raw(x)
    return BACKENDS[type(x)].xp.eye(x.shape[-1], dtype=x.dtype)


def _derivative(M, y, g, eps, method, factors, jvp):
    """The derivative along g, by singular vectors. But for the projection along M, it is its own adjoint.

    With E = U^T g V, h = (s^2 + e^2)^{1/2}, f = s / h:
    U [f_i (f_i E_ij - f_j E_ji) / (h_i + h_j) + (1 - f_i^2) E_ij / h_j] V^T + (g V - U E) H^{-1} V^T.
    The smooth "eigh" knows A = U F, not U. Then the terms with H^{-1} are (g V - A A^T g V) H^{-1} V^T.
    ``change`` is a small D with (M^T M + e^2 I)^{1/2} = V (H + D) V^T; the equation is solved to second order in D.
    """
    if not M.size:
        return g * 1
    if factors[0] is None:  # under create_graph
        return _recorded_smooth(M, g, eps, method, jvp) if eps else _recorded(M, y, g)
    u, f, h, vt, change, norm = factors
    unit = M / _safe(norm) if eps else None
    if eps and jvp:
        g = g - _inner(g, unit) * unit
    inverse, outside = ((h != 0) / _safe(h))[..., None, :], M.shape[-2] > M.shape[-1]
    right = g @ vt.mT
    E = u.mT @ right
    B = f[..., :, None] * E
    total = _safe(h[..., :, None] + h[..., None, :])
    inner = (B - B.mT) / total
    if change is not None:
        more = change @ inner
        inner -= (more - more.mT) / total
    if eps and method == "eigh":
        outside = True
    else:
        kept = (eps * norm[..., 0] * inverse[..., 0, :]) ** 2 if eps else (f == 0).astype(f.dtype)  # 1 - f^2
        inner *= f[..., :, None]
        inner += kept[..., :, None] * E * inverse
    result = u @ inner
    if outside:
        right -= u @ E
        right *= inverse
        result += right if change is None else right - (right @ change) * inverse
    result = result @ vt
    return result - _inner(result, unit) * unit if eps and not jvp else result


# --- the factors ---------------------------------------------------------------------------------------------------

LEAST = 1e-4  # the least s_n / s_1 for the Gram matrix, which squares s; D squared stays below rounding errors


def _by_svd(xp, x, eps, unit_roundoff):
    """(U, f, h, V^T, ||x||_F, None for ``change``) of x of any rank."""
    u, s, vt = xp.linalg.svd(x, full_matrices=False)
    size = xp.sqrt((s * s).sum(axis=-1, keepdims=True))
    cut = max(x.shape[-2:]) * unit_roundoff * s.max(axis=-1, keepdims=True)
    h = xp.hypot(s, eps * size) if eps else xp.where(s > cut, s, 0)
    return u, xp.where(h == 0, 0, s / h), h, vt, size, None


def _by_gram(xp, x, eps, unit_roundoff):
    """The same by the eigenvectors V of x^T x, or by the SVD where h_n is small.

    A smooth msign gets U F and 1 for U and f. V has errors of u (s_1 / s_n)^2, which is too much for float64. There
    the Gram matrix of x V shows the error: it is H^2 + E with a small E. Then (H^2 + E)^{1/2} = H + D, with
    D_ij = E_ij / (h_i + h_j) to second order.
    """
    wide = x.astype("float64")
    w, v = xp.linalg.eigh(wide.mT @ wide)
    size = xp.sqrt(abs(w.sum(axis=-1, keepdims=True)))
    shift = (eps * size) ** 2
    squares = w + shift
    small = ~(squares[..., 0] >= LEAST**2 * squares[..., -1]) | (squares[..., -1] == 0)
    u, change = wide @ v, None
    if x.dtype == wide.dtype:
        change = u.mT @ u
        squares = xp.diagonal(change, 0, -2, -1) + shift
    h = xp.sqrt(abs(squares))
    u /= h[..., None, :]
    if change is not None:
        change *= (1 - xp.eye(h.shape[-1])) / (h[..., :, None] + h[..., None, :])
        u -= (u @ change) / h[..., None, :]
    f, vt = xp.ones_like(h), v.mT
    if small.any():  # on a GPU the host waits here
        u[small], f[small], h[small], vt[small], size[small], _ = _by_svd(xp, wide[small], eps, unit_roundoff)
        if change is not None:
            change[small] = 0
        if eps:
            u *= f[..., None, :]
            f[...] = 1
    return u, f, h, vt, size, change


@primitive(
    vjp=lambda g, M, y, eps, method, u, f, h, vt, change, norm: _derivative(
        M, y, g, eps, method, (u, f, h, vt, change, norm), jvp=False
    ),
    jvp=lambda t, M, y, eps, method, u, f, h, vt, change, norm: _derivative(
        M, y, t, eps, method, (u, f, h, vt, change, norm), jvp=True
    ),
    cache=("u", "f", "h", "vt", "change", "norm"),
    formula=r"M = U S V^T,\ F = S/H,\ E = U^T \bar Y V:\quad"
    r"\bar M = U\left[\frac{F (F E - E^T F)}{h_i + h_j} + (1 - F^2) E H^{-1}\right]V^T"
    r" + (I - U U^T) \bar Y V H^{-1} V^T",
    source="Su Jianlin, equations 17 and 18; docs/msign.md",
    notes="rank-aware: singular values below max(n, m) u s_1 are held at zero",
    floats=True,
    flops=dense(21),
)
def _msign_closed_form(xp, M, /, eps=0.0, method="svd"):
    """msign of tall M by singular vectors, pure or smooth. The vectors are no outputs, as they are not unique."""
    check_matrices("msign", M, name="M")
    if M.size == 0:
        return M * 1, (None,) * 6
    with numpy.errstate(all="ignore"):
        largest = largest_elements(M)
        bad, power = ~xp.isfinite(largest), power_of_two(xp, largest)  # by which squares stay in range
        factors = _by_gram if method == "eigh" else _by_svd
        *found, change = factors(xp, xp.where(bad, 0, M) * power, eps, xp.finfo(M.dtype).eps)
        scale = xp.where(bad, xp.nan, 1 / power).astype(M.dtype)
        u, f, h, vt, size = (part.astype(M.dtype, copy=False) for part in found)
        y = u @ (xp.where(bad[..., 0], xp.nan, f)[..., None] * vt)
        h, norm = h * scale[..., 0], size[..., None] * scale
        if change is not None:
            change = change * scale
    return y.astype(M.dtype, copy=False), (u, f, h, vt, change, norm)
