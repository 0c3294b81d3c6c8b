"""Functions of square matrices: det, slogdet, cofactors, matrix_power, expm.

Sources: Giles 2008, "Collected matrix derivative results for forward and reverse mode AD"; Higham 2008. Where LAPACK
fails, as in ``solve``, the CPU raises ValueError, and a GPU gives inf or NaN.
"""

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, diagonal, embed_diagonal, per_matrix
from tinygrad_ms.ops.linalg.solve import inv, lapack
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import concat
from tinygrad_ms.options import is_int

__all__ = ["cofactors", "det", "expm", "matrix_power", "slogdet"]


# --- determinants -----------------------------------------------------------------------------------------------------


def _oriented_svd(op, xp, x):
    """U, s, V^T and det(U V^T), which is 1 or -1, of square matrices."""
    u, s, vh = lapack(op, xp.linalg.svd, x, square=True, full_matrices=False)
    return u, s, vh, per_matrix(xp.sign(xp.linalg.det(u) * xp.linalg.det(vh)))


@primitive(
    vjp=lambda g, x: cofactors_change(x, g),
    jvp=lambda t, x: cofactors_change(x, t),
    formula=r"Y = \det(X)\,X^{-T}:\quad dY = D^2 \det(X)[dX],\quad \bar X = D^2 \det(X)[\bar Y]",
    source="the gradient of det, whose own derivative is the Hessian of det, a symmetric map",
    floats=True,
    notes="exists for singular x, too, and so does its derivative",
    flops=dense(21),
)
def cofactors(xp, x):
    """The cofactors (..., n, n) of square matrices. They are the gradient of det. For invertible X: det(X) X^-T.

    With X = U S V^T they are det(U V^T) U diag(prod_{j != i} s_j) V^T, whether X is singular or not.
    """
    u, s, vh, sign = _oriented_svd("cofactors", xp, x)
    others = xp.where(xp.eye(x.shape[-1], dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    return (sign * xp.matmul(u * others[..., None, :], vh)).astype(x.dtype)


def _third_derivative(g, x, e):
    """The gradient by X of <G, f(X, E)>, with f = tr(X^-1 E) Y - X^-T E^T Y and Y the cofactors of X."""
    y, w = cofactors(x), inv(x).mT
    inside = per_matrix((w * e).sum(axis=(-2, -1))) * g - e @ w.mT @ g
    return cofactors_change(x, inside) - w @ (e.mT @ (per_matrix((g * y).sum(axis=(-2, -1))) * w - y @ g.mT @ w))


def _third_derivative_along(t, x, e):
    y, w = cofactors(x), inv(x).mT
    change, moved = cofactors_change(x, t), w @ t.mT @ w
    return (
        per_matrix((w * e).sum(axis=(-2, -1))) * change
        - per_matrix((moved * e).sum(axis=(-2, -1))) * y
        - w @ e.mT @ change
        + moved @ e.mT @ y
    )


@primitive(
    vjp=(_third_derivative, lambda g, x: cofactors_change(x, g)),
    jvp=(_third_derivative_along, lambda t, x: cofactors_change(x, t)),
    formula=r"X = U S V^T,\ F = U^T E V,\ P_{ij} = \prod_{l \ne i, j} s_l,\ P_{ii} = 0:\quad"
    r" Y = \det(U V^T)\,U (\mathrm{diag}(P\,\mathrm{diag} F) - P \circ F^T) V^T",
    source="the cofactors of S + E to first order in E; the cofactors of a product are the product of cofactors",
    floats=True,
    notes="exists for singular x, too; its derivative by x needs x invertible: else ValueError on the CPU, inf or NaN"
    " on a GPU",
    flops=dense(25),
)
def cofactors_change(xp, x, e):
    """The change of the cofactors of square x (..., n, n) along e: the Hessian of det, applied to e."""
    u, s, vh, sign = _oriented_svd("cofactors_change", xp, x)
    n = x.shape[-1]
    row, column = xp.arange(n)[:, None], xp.arange(n)
    before = xp.where(column < row, s[..., None, :], 1).prod(axis=-1)
    after = xp.where(column > row, s[..., None, :], 1).prod(axis=-1)
    earlier = xp.concatenate([s[..., :1], s[..., :-1]], axis=-1)  # s_{j - 1}
    between = xp.cumprod(xp.where(column > row + 1, earlier[..., None, :], 1), axis=-1)
    p = xp.where(column > row, before[..., :, None] * between * after[..., None, :], 0)
    p = p + p.mT
    f = xp.matmul(xp.matmul(u.mT, e), vh.mT)
    diagonal_of_f = xp.diagonal(f, 0, -2, -1)[..., None]
    y = xp.where(row == column, xp.matmul(p, diagonal_of_f), -p * f.mT)
    return (sign * xp.matmul(xp.matmul(u, y), vh)).astype(x.dtype)


@primitive(
    vjp=lambda g, x: per_matrix(g) * cofactors(x),
    jvp=lambda t, x: (cofactors(x) * t).sum(axis=(-2, -1)),
    formula=r"\frac{d \det X}{dX} = \det(X)\,X^{-T}",
    source="Giles 2008, section 2.2.5; AIDIY, section 3",
    floats=True,
    notes="the first and second derivatives are right for singular x, too; the third needs x invertible",
    flops=dense(2 / 3),
)
def det(xp, x):
    """The determinants (...) of square matrices (..., n, n)."""
    return xp.linalg.det(check_matrices("det", x, square=True))


def _slogdet_vjp(needed, g, x):
    g_sign, g_log = g
    return (x * 0 if g_log is None else per_matrix(g_log) * inv(x).mT,)


def _slogdet_jvp(tangents, x):
    return None, (inv(x).mT * tangents[0]).sum(axis=(-2, -1))


@primitive(
    vjp=_slogdet_vjp,
    jvp=_slogdet_jvp,
    outputs=("sign", "logabsdet"),
    formula=r"\frac{d \ln |\det X|}{dX} = X^{-T}",
    source="Giles 2008, section 2.2.5",
    floats=True,
    notes="of a singular matrix: (0, -inf), and its gradient is an error; the sign has gradient zero",
    flops=dense(2 / 3),
)
def slogdet(xp, x):
    """Sign (...) and ln |det| (...) of square matrices (..., n, n). This determinant cannot overflow."""
    sign, logarithm = xp.linalg.slogdet(check_matrices("slogdet", x, square=True))
    return sign, logarithm


# --- powers and the exponential ---------------------------------------------------------------------------------------


def matrix_power(x, n: int):
    """x @ x @ ... for square matrices (..., k, k), by repeated squaring. Negative n are powers of the inverse."""
    x = check_matrices("matrix_power", as_operand(x), square=True)
    if not is_int(n):
        raise TypeError(f"matrix_power: n is {n!r}; it must be an integer")
    n = int(n)
    if n < 0:
        return matrix_power(inv(x), -n)
    if n == 0:
        return embed_diagonal(diagonal(x) * 0 + 1, shape=x.shape)
    if n == 1:
        return x
    half = matrix_power(x, n // 2)
    return half @ half @ x if n % 2 else half @ half


def _frechet(x, direction):
    """L(X, E), the change of exp(X) along E: the upper right block of exp([[X, E], [0, X]])."""
    if not x.size:
        return direction
    size = abs(raw(direction)).max(axis=(-2, -1), keepdims=True)
    size = size + (size == 0)  # L is linear in E, so E is scaled: a large E must not cost squarings
    block = concat([concat([x, direction / size], axis=-1), concat([x * 0, x], axis=-1)], axis=-2)
    n = x.shape[-1]
    return expm(block)[..., :n, n:] * size


# The largest 1-norm at which the approximant [13/13] is exact to double precision (Higham 2005, table 2.3),
# and the coefficients of its numerator, c_k = c_{k-1} (14 - k) / (k (27 - k)).
_THETA = 5.371920351148152
_PADE = [1.0]
for _k in range(1, 14):
    _PADE.append(_PADE[-1] * (14 - _k) / (_k * (27 - _k)))


@primitive(
    vjp=lambda g, x: _frechet(x.mT, g),
    jvp=lambda t, x: _frechet(x, t),
    formula=r"Y = e^X:\quad \exp \begin{pmatrix} X & dX \\ 0 & X \end{pmatrix} ="
    r" \begin{pmatrix} Y & dY \\ 0 & Y \end{pmatrix},\quad \bar X = d\exp(X^T)[\bar Y]",
    source="Van Loan 1978; Higham 2008, Functions of Matrices, (3.16); forward: Higham 2005",
    floats=True,
    notes="the host reads the norm of x to choose the number of squarings",
    flops=dense(20),
)
def expm(xp, x):
    """The exponential of square matrices (..., n, n): scaling and squaring, Pade approximant [13/13]."""
    check_matrices("expm", x, square=True)
    if not x.size:
        return x.copy()
    norm = abs(x).sum(axis=-2).max(axis=-1)
    squarings = xp.ceil(xp.log2(xp.where(xp.isfinite(norm), xp.maximum(norm, _THETA), _THETA) / _THETA))
    x = x * per_matrix(xp.exp2(-squarings)).astype(x.dtype)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    one = xp.eye(x.shape[-1], dtype=x.dtype)
    c = _PADE
    odd = x @ (x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one)
    even = x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    y = xp.linalg.solve(even - odd, even + odd)
    for k in range(int(squarings.max())):
        y = xp.where(per_matrix(k < squarings), y @ y, y)
    return y
