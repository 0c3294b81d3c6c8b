"""Matrix decompositions: cholesky, qr, eigh, svd, and their values alone, of the last two axes of a batch.

Eigenvectors, singular vectors and Q are fixed only up to their signs (the gauge), which LAPACK chooses. A loss that
does not depend on the gauge has the right gradient. Where eigenvalues or singular values coincide, the vectors are not
unique and have no derivative. Then the CPU raises ValueError. On a GPU the host would have to wait to know it; there
the derivative is NaN. The values alone (``eigvalsh``, ``svdvals``) have a first derivative there, too.

``cholesky``, ``eigh`` and ``eigvalsh`` take the symmetric part (X + X^T) / 2 of any X, and their gradient is that of
this function, a symmetric matrix. NumPy and PyTorch read the lower triangle alone. The two agree only for symmetric X.
If a matrix is stored as one triangle L, pass L + L^T - diag(L).
"""

import math

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, diagonal, embed_diagonal, symmetric, tril, triu
from tinygrad_ms.ops.linalg.solve import lapack, solve_triangular
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import concat

__all__ = ["cholesky", "eigh", "eigvalsh", "qr", "svd", "svdvals"]


def _total(terms):
    """The sum of the terms that are not None; None if all are."""
    terms = [term for term in terms if term is not None]
    return sum(terms[1:], terms[0]) if terms else None


# --- Cholesky -----------------------------------------------------------------------------------------------


def _half(x):
    """Phi(X): the lower triangle with half of the diagonal, so that Phi(X) + Phi(X)^T = X for symmetric X."""
    return (tril(x) + tril(x, k=-1)) * 0.5


def _cholesky_vjp(g, y):
    left = solve_triangular(y.mT, _half(y.mT @ g))
    return symmetric(solve_triangular(y.mT, left.mT))


def _cholesky_jvp(t, y):
    left = solve_triangular(y, symmetric(t), lower=True)
    return y @ _half(solve_triangular(y, left.mT, lower=True))


@primitive(
    vjp=_cholesky_vjp,
    jvp=_cholesky_jvp,
    formula=r"X = L L^T:\quad dL = L\,\Phi(L^{-1} dX L^{-T}),\quad"
    r" \bar X = \mathrm{sym}(L^{-T}\,\Phi(L^T \bar L)\,L^{-1})",
    source="Murray 2016, equations (8) and (10)",
    floats=True,
    notes="of the symmetric part of x; if that is not positive definite: ValueError on the CPU, NaN on a GPU",
    flops=dense(1 / 3),
)
def cholesky(xp, x):
    """The lower triangular L (..., n, n) with L L^T = (X + X^T) / 2, which must be positive definite.

    It reads all of X. NumPy reads the lower triangle; the two differ where X is not symmetric.
    """
    sentence = f"x, of shape {x.shape}, is not positive definite; add a small c I"
    y = lapack("cholesky", lambda x: xp.linalg.cholesky(symmetric(x)), x, square=True, sentence=sentence)
    if on_host(x):
        return y
    # A device does not raise. It leaves an unfinished factor; the squares of its rows are not the diagonal of x.
    pivots, given = diagonal(y), diagonal(x)
    near = abs((y * y).sum(axis=-1) - given) <= 100 * x.shape[-1] * float(xp.finfo(x.dtype).eps) * abs(given)
    return xp.where((near & (pivots > 0)).all(axis=-1)[..., None, None], y, xp.nan)


def on_host(x) -> bool:
    """Whether the host can read values of the raw array x without waiting."""
    return BACKENDS[type(x)].name == "cpu"


# --- QR -----------------------------------------------------------------------------------------------------


def _qr_vjp(needed, g, q, r):
    g_q, g_r = g
    middle = _total([None if g_r is None else r @ triu(g_r).mT, None if g_q is None else -(g_q.mT @ q)])
    mirrored = q @ (tril(middle) + tril(middle, k=-1).mT)
    return (solve_triangular(r, (mirrored if g_q is None else g_q + mirrored).mT).mT,)


def _qr_jvp(tangents, q, r):
    change = solve_triangular(r.mT, tangents[0].mT, lower=True).mT  # dX R^{-1}
    inside = q.mT @ change
    upper = triu(inside) + tril(inside, k=-1).mT
    return change - q @ upper, upper @ r


@primitive(
    vjp=_qr_vjp,
    jvp=_qr_jvp,
    outputs=("q", "r"),
    formula=r"\bar X = (\bar Q + Q\,\mathrm{copyltu}(R \bar R^T - \bar Q^T Q))\,R^{-T}",
    source="Walter and Lehmann 2013, section 3; Seeger et al. 2017, section 4.2",
    floats=True,
    notes="n >= m; needs full column rank: else ValueError on the CPU, inf or NaN on a GPU",
    flops=dense(10 / 3),
)
def _qr(xp, x):
    """Q with orthonormal columns and upper triangular R, of X = Q R (..., n, m), n >= m."""
    return tuple(xp.linalg.qr(check_matrices("qr", x)))


def qr(x):
    """The reduced decomposition X = Q R of (..., n, m): orthonormal Q (..., n, k), upper R (..., k, m).

    k = min(n, m). LAPACK chooses the signs. A wide X has the Q of its first n columns. The derivative needs these
    columns (for a tall X all columns) to be independent.
    """
    x = as_operand(x)
    n, m = check_matrices("qr", x).shape[-2:]
    if n >= m:
        return _qr(x)
    q, r = _qr(x[..., :n])
    return q, concat([r, q.mT @ x[..., n:]], axis=-1)


# --- eigenvalues --------------------------------------------------------------------------------------------


@primitive(
    vjp=lambda g, y: _of_gaps(g * y * y),
    jvp=lambda t, y: (as_row(t) - as_column(t)) * -(y * y),
    formula=r"F_{ij} = \frac{1}{w_j - w_i}\ (i \ne j):\quad dF_{ij} = -F_{ij}^2 (dw_j - dw_i)",
    source="Giles 2008, section 3.1",
    notes="coinciding values: ValueError on the CPU, NaN on a GPU",
)
def inverse_gaps(xp, w):
    """1 / (w_j - w_i) for all pairs of values (..., n), and 0 on the diagonal, for derivatives of eigenvectors.

    Values count as equal if they differ by less than the rounding errors of the decomposition, n eps max |w|.
    """
    n = w.shape[-1]
    diagonal = xp.eye(n, dtype=bool)
    gaps = as_row(w) - as_column(w)
    if not w.size:
        return gaps
    scale = n * float(xp.finfo(w.dtype).eps) * abs(w).max(axis=-1)[..., None, None]
    equal = (abs(gaps) <= scale) & ~diagonal
    if on_host(w) and equal.any():
        raise ValueError(
            "inverse_gaps: two eigenvalues or singular values coincide, so their vectors have no derivative;"
            " use the values alone (eigvalsh, svdvals), or separate them by a small perturbation"
        )
    return xp.where(diagonal, 0, xp.where(equal, xp.nan, 1 / (gaps + diagonal)))


def as_row(w):
    return w.reshape((*w.shape[:-1], 1, w.shape[-1]))


def as_column(w):
    return w.reshape((*w.shape, 1))


def _of_gaps(g):
    """The cotangent of w, from that of the gaps w_j - w_i."""
    return g.sum(axis=-1) - g.sum(axis=-2)


def _eigh_vjp(needed, g, w, v):
    g_w, g_v = g
    inside = _total([
        None if g_w is None else embed_diagonal(g_w, shape=v.shape),
        None if g_v is None else inverse_gaps(w) * (v.mT @ g_v),
    ])  # fmt: skip
    return (symmetric(v @ inside @ v.mT),)


def _eigh_jvp(tangents, w, v):
    inside = v.mT @ symmetric(tangents[0]) @ v
    return diagonal(inside), v @ (inverse_gaps(w) * inside)


@primitive(
    vjp=_eigh_vjp,
    jvp=_eigh_jvp,
    outputs=("w", "v"),
    formula=r"X = V \mathrm{diag}(w) V^T:\quad dw = \mathrm{diag}(V^T dX V),\quad"
    r" dV = V (F \circ V^T dX V),\quad \bar X = V (\mathrm{diag}(\bar w) + F \circ V^T \bar V) V^T",
    source="Giles 2008, section 3.1",
    floats=True,
    notes="of the symmetric part of x; where eigenvalues coincide, the derivative of v is a ValueError on the"
    " CPU, NaN on a GPU",
    flops=dense(9),
)
def eigh(xp, x):
    """Eigenvalues w (..., n), ascending, and eigenvectors, the columns of v (..., n, n), of (X + X^T) / 2.

    It reads all of X. NumPy reads the lower triangle; the two differ where X is not symmetric.
    """
    return tuple(lapack("eigh", lambda x: xp.linalg.eigh(symmetric(x)), x, square=True))


def _eigvalsh_vjp(g, x):
    v = eigh(x)[1]
    return symmetric((v * as_row(g)) @ v.mT)


def _eigvalsh_jvp(t, x):
    v = eigh(x)[1]
    return (v * (symmetric(t) @ v)).sum(axis=-2)


@primitive(
    vjp=_eigvalsh_vjp,
    jvp=_eigvalsh_jvp,
    formula=r"\bar X = V \mathrm{diag}(\bar w) V^T",
    source="Giles 2008, section 3.1",
    floats=True,
    notes="of the symmetric part of x; where eigenvalues coincide, the gradient is right for symmetric"
    " functions of them, and the second derivative is an error as that of eigh",
    flops=dense(4 / 3),
)
def eigvalsh(xp, x):
    """Eigenvalues (..., n), ascending, of (X + X^T) / 2. Only the gradient computes eigenvectors."""
    return lapack("eigvalsh", lambda x: xp.linalg.eigvalsh(symmetric(x)), x, square=True)


# --- singular values ----------------------------------------------------------------------------------------


@primitive(
    vjp=lambda g, y: -g * y * y,
    jvp=lambda t, y: -t * y * y,
    formula=r"\frac{d}{ds} \frac{1}{s} = -\frac{1}{s^2}",
    source="ai-edu, equation 3",
    notes="a value that is zero to rounding: ValueError on the CPU, NaN on a GPU",
)
def inverse_singular_values(xp, s):
    """1 / s for singular values (..., k): for derivatives of the singular vectors of a rectangular matrix."""
    if not s.size:
        return s.copy()
    zero = s <= s.shape[-1] * float(xp.finfo(s.dtype).eps) * s.max(axis=-1, keepdims=True)
    if on_host(s) and zero.any():
        raise ValueError(
            "inverse_singular_values: a singular value is zero, so the singular vectors of a rectangular"
            " matrix have no derivative; use the values alone (svdvals)"
        )
    return xp.where(zero, xp.nan, 1 / (s + zero))


def _pair_factors(s):
    """s_j / (s_j^2 - s_i^2) and s_i / (s_j^2 - s_i^2), zero on the diagonal; no square leaves the range."""
    sums, gaps = as_row(s) + as_column(s), inverse_gaps(s)
    sums = sums + embed_diagonal((s == 0).astype(s.dtype), shape=sums.shape)
    return gaps * (as_row(s) / sums), gaps * (as_column(s) / sums)


def _without_null_space(g, vectors, k):
    """A cotangent and its output without the vectors after the first k. Raises if these have a cotangent."""
    if g is not None and vectors.shape[-1] > k:
        used = (raw(g)[..., k:] != 0).any(axis=(-2, -1), keepdims=True)
        g = g[..., :k]
        if not on_host(used):
            g = where(used, math.nan, g)
        elif used.any():
            raise ValueError(
                "svd: a gradient reaches the vectors of the null space, which full_matrices=True adds; they can turn"
                " freely and have no derivative: use the first min(n, m) of u and vh, or full_matrices=False"
            )
    return g, vectors[..., :k]


def _svd_vjp(needed, g, u, s, vh):
    g_u, g_s, g_vh = g
    n, k, m = u.shape[-2], s.shape[-1], vh.shape[-1]
    g_u, u = _without_null_space(g_u, u, k)
    g_v, v = _without_null_space(None if g_vh is None else g_vh.mT, vh.mT, k)
    vh = v.mT
    by_column, by_row = (None, None) if g_u is None and g_v is None else _pair_factors(s)
    inside = [None if g_s is None else embed_diagonal(g_s, shape=(*s.shape, k))]
    outside = []
    if g_u is not None:
        inside.append(by_column * (u.mT @ g_u - g_u.mT @ u))
        if n > k:
            scaled = g_u * as_row(inverse_singular_values(s))
            outside.append((scaled - u @ (u.mT @ scaled)) @ vh)
    if g_v is not None:
        inside.append(by_row * (vh @ g_v - g_v.mT @ v))
        if m > k:
            scaled = g_v * as_row(inverse_singular_values(s))
            outside.append(u @ (scaled - v @ (vh @ scaled)).mT)
    return (_total([u @ _total(inside) @ vh, *outside]),)


def _svd_jvp(tangents, u, s, vh):
    (t,) = tangents
    n, k, m = u.shape[-2], s.shape[-1], vh.shape[-1]
    null_u, null_v = u[..., k:], vh.mT[..., k:]
    u, v = u[..., :k], vh.mT[..., :k]
    vh = v.mT
    inside = u.mT @ t @ v
    by_column, by_row = _pair_factors(s)
    t_u = u @ (by_column * inside + by_row * inside.mT)
    t_v = v @ (by_row * inside + by_column * inside.mT)
    if n > k:
        tv = t @ v * as_row(inverse_singular_values(s))
        t_u = t_u + tv - u @ (u.mT @ tv)
    if m > k:
        tu = t.mT @ u * as_row(inverse_singular_values(s))
        t_v = t_v + tu - v @ (vh @ tu)
    t_u, t_v = concat([t_u, null_u * math.nan], axis=-1), concat([t_v, null_v * math.nan], axis=-1)
    return t_u, diagonal(inside), t_v.mT


@primitive(
    vjp=_svd_vjp,
    jvp=_svd_jvp,
    outputs=("u", "s", "vh"),
    formula=r"X = U S V^T,\ dP = U^T dX V:\quad dS = \mathrm{diag}(dP),\quad"
    r" dU = U (F \circ (dP\,S + S\,dP^T)) + (I - U U^T)\,dX\,V S^{-1},\quad F_{ij} = \frac{1}{s_j^2 - s_i^2}",
    source="Giles 2008, section 3.2; Townsend 2016, equations (17)-(19)",
    floats=True,
    notes="derivatives of u and vh need distinct singular values, of a rectangular x also nonzero ones:"
    " else ValueError on the CPU, NaN on a GPU; the same for what full_matrices adds, with NaN as its tangents",
    flops=dense(21),
)
def svd(xp, x, full_matrices=False):
    """The reduced decomposition X = U diag(s) Vh of (..., n, m): u (..., n, k), s (..., k), vh (..., k, m).

    k = min(n, m), and s is descending. u_i and v_i are fixed up to a common sign. full_matrices: u (..., n, n) and
    vh (..., m, m); after the first k come vectors of the null space, which have no derivative.

    >>> u, s, vh = tg.svd(np.array([[0.0, 2.0], [1.0, 0.0]]))
    >>> s.tolist()
    [2.0, 1.0]
    """
    return tuple(lapack("svd", xp.linalg.svd, x, full_matrices=bool(full_matrices)))


def _svdvals_vjp(g, x):
    u, _, vh = svd(x)
    return (u * as_row(g)) @ vh


def _svdvals_jvp(t, x):
    u, _, vh = svd(x)
    return (u * (t @ vh.mT)).sum(axis=-2)


@primitive(
    vjp=_svdvals_vjp,
    jvp=_svdvals_jvp,
    formula=r"\bar X = U \mathrm{diag}(\bar s) V^T",
    source="Giles 2008, section 3.2",
    floats=True,
    notes="where values coincide, the gradient is right for symmetric functions of them, and at zero it is a"
    " subgradient; the second derivative there is an error as that of svd",
    flops=dense(8 / 3),
)
def svdvals(xp, x):
    """Singular values (..., k), descending, of (..., n, m). Only the gradient computes the vectors."""
    return lapack("svdvals", xp.linalg.svd, x, compute_uv=False)
