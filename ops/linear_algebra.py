"""Linear equations and determinants: inv, solve, solve_triangular, pinv, det, slogdet, matrix_power, expm.

All take matrices in the last two axes and a batch before them. float16 is refused: LAPACK and cuSOLVER lack
it. What LAPACK cannot do (a singular matrix, no convergence) is a ValueError on the CPU. On a GPU, where
asking would make the host wait, the result holds inf or NaN instead.

Source of most rules: Giles 2008, "Collected matrix derivative results for forward and reverse mode AD".
"""

from contextlib import contextmanager

from numpy import broadcast_shapes

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.matrix_parts import diagonal, embed_diagonal, tril, triu
from tinygrad_ms.ops.shapes import concat, operand

__all__ = ["cofactors", "det", "expm", "inv", "matrix_power", "pinv", "slogdet", "solve", "solve_triangular"]


def matrices(op, x, square=False, name="x"):
    """x, once it is known to hold (square) matrices, of a dtype that LAPACK has."""
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        kind = "square matrices (..., n, n)" if square else "matrices (..., n, m)"
        raise ValueError(f"{op}: {name} has shape {x.shape}; expected {kind}")
    if x.dtype.name in ("float16", "bfloat16"):
        raise TypeError(f"{op}: {name} is {x.dtype}; LAPACK needs float32 or float64, use .astype('float32')")
    return x


DIVERGED = "the iteration of LAPACK did not converge; does x hold inf or NaN?"


@contextmanager
def failing(sentence):
    """Say ``sentence`` where LAPACK gives up (its LinAlgError is a ValueError)."""
    try:
        yield
    except ValueError:
        raise ValueError(sentence) from None


def symmetric(x):
    """(X + X^T) / 2."""
    return (x + x.mT) * 0.5


# --- equations ----------------------------------------------------------------------------------------------


@primitive(
    vjp=lambda g, y: -(y.mT @ g @ y.mT),
    jvp=lambda t, y: -(y @ t @ y),
    formula=r"Y = X^{-1}:\quad dY = -Y\,dX\,Y,\quad \bar X = -Y^T \bar Y Y^T",
    source="Giles 2008, section 2.2.3; 004, section 3",
    floats=True,
    notes="singular x: ValueError on the CPU, inf or NaN on a GPU",
)
def inv(xp, x):
    """The inverse of square matrices (..., n, n). Raises ValueError where one is singular."""
    matrices("inv", x, square=True)
    with failing(f"inv: x, of shape {x.shape}, is singular; use pinv, or add a multiple of the identity"):
        return xp.linalg.inv(x)


def _solve_vjp(needed, g, a, y):
    g_b = _solve(a.mT, g)
    return -(g_b @ y.mT) if needed[0] else None, g_b


def _solve_jvp(tangents, a, y):
    return _solve(a, _change(*tangents, y))


def _change(t_a, t_b, y):
    """dB - dA Y, where either tangent may be absent."""
    if t_a is None:
        return t_b
    return -(t_a @ y) if t_b is None else t_b - t_a @ y


@primitive(
    vjp=_solve_vjp,
    jvp=_solve_jvp,
    formula=r"Y = A^{-1} B:\quad \bar B = A^{-T} \bar Y,\quad \bar A = -\bar B\,Y^T,\quad"
    r" dY = A^{-1} (dB - dA\,Y)",
    source="Giles 2008, section 2.2.4",
    floats=True,
    notes="singular a: ValueError on the CPU, inf or NaN on a GPU",
)
def _solve(xp, a, b):
    """Y with A Y = B, matrices both."""
    return _for_columns(xp, "solve", xp.linalg.solve, a, b)


def solve(a, b):
    """The y with a y = b, for square matrices a (..., n, n) and b a vector (n,) or matrices (..., n, k).

    Batches broadcast. One matrix a is factorised once for all of b. Raises ValueError where a is singular.
    """
    return _of_vectors(_solve, a, b)


def _of_vectors(solver, a, b, **constants):
    """A right-hand side (n,) is a matrix of one column."""
    a, b = operand(a), operand(b)
    if b.ndim != 1:
        return solver(a, b, **constants)
    y = solver(a, b.reshape((b.shape[0], 1)), **constants)
    return y.reshape(y.shape[:-1])


def _for_columns(xp, op, solver, a, b):
    """``solver(a, b)`` on broadcast batches, which CuPy lacks; one matrix meets a batch b as columns."""
    matrices(op, a, square=True, name="a")
    matrices(op, b, name="b")
    if a.shape[-1] != b.shape[-2]:
        rows = f"the numbers of rows, {a.shape[-2]} and {b.shape[-2]}, differ"
        raise ValueError(f"{op}: a has shape {a.shape} and b has shape {b.shape}: {rows}")
    try:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"{op}: the batches of a {a.shape} and b {b.shape} do not broadcast") from None
    with failing(f"{op}: a, of shape {a.shape}, is singular; use pinv(a) @ b, or regularise a"):
        if a.ndim == 2 and b.ndim > 2:
            rows = xp.moveaxis(b, -2, 0)
            return xp.moveaxis(solver(a, rows.reshape((a.shape[0], -1))).reshape(rows.shape), 0, -2)
        if a.shape[:-2] != b.shape[:-2]:
            a, b = (xp.broadcast_to(m, (*batch, *m.shape[-2:])) for m in (a, b))
        return solver(a, b)


def _triangular_vjp(needed, g, a, y, lower, unit_diagonal):
    g_b = _solve_triangular(a.mT, g, lower=not lower, unit_diagonal=unit_diagonal)
    return -_triangle(g_b @ y.mT, lower, unit_diagonal) if needed[0] else None, g_b


def _triangular_jvp(tangents, a, y, lower, unit_diagonal):
    t_a, t_b = tangents
    t_a = t_a if t_a is None else _triangle(t_a, lower, unit_diagonal)
    return _solve_triangular(a, _change(t_a, t_b, y), lower=lower, unit_diagonal=unit_diagonal)


def _triangle(x, lower, unit_diagonal):
    """The entries of a that count."""
    return tril(x, k=-int(unit_diagonal)) if lower else triu(x, k=int(unit_diagonal))


@primitive(
    vjp=_triangular_vjp,
    jvp=_triangular_jvp,
    formula=r"Y = A^{-1} B:\quad \bar B = A^{-T} \bar Y,\quad \bar A = -\mathrm{tri}(\bar B\,Y^T)",
    source="Giles 2008, section 2.2.4, restricted to the triangle",
    floats=True,
    notes="the other triangle is not read; zero on the diagonal: ValueError on the CPU, inf or NaN on a GPU",
)
def _solve_triangular(xp, a, b, /, lower, unit_diagonal):
    """Y with A Y = B, where only the upper (or ``lower``) triangle of A is read."""

    def substitute(a, b):
        if lower:  # reversing rows and columns makes it an upper one
            return _back_substitute(xp, a[..., ::-1, ::-1], b[..., ::-1, :], unit_diagonal)[..., ::-1, :]
        return _back_substitute(xp, a, b, unit_diagonal)

    return _for_columns(xp, "solve_triangular", substitute, a, b)


def solve_triangular(a, b, lower=False, unit_diagonal=False):
    """The y with a y = b, for triangular a (..., n, n) and b a vector (n,) or matrices (..., n, k).

    Only the upper (or ``lower``) triangle of a is read; with ``unit_diagonal`` its diagonal is taken as ones.
    Batches broadcast. Raises ValueError for a zero on the diagonal.
    """
    return _of_vectors(_solve_triangular, a, b, lower=bool(lower), unit_diagonal=bool(unit_diagonal))


def _back_substitute(xp, a, b, unit_diagonal, block=64):
    """Upper triangular solve by halves, so that most of the work is matrix products.

    A small triangle goes to the general solver: its LU factorisation meets zeros below the diagonal, so it
    exchanges no rows, and what remains is back substitution.
    """
    n = a.shape[-1]
    if n <= block:
        a = xp.triu(a, 1) + xp.eye(n, dtype=a.dtype) if unit_diagonal else xp.triu(a)
        return xp.linalg.solve(a, b)
    k = n // 2
    below = _back_substitute(xp, a[..., k:, k:], b[..., k:, :], unit_diagonal)
    above = _back_substitute(xp, a[..., :k, :k], b[..., :k, :] - a[..., :k, k:] @ below, unit_diagonal)
    return xp.concatenate([above, below], axis=-2)


def _pinv_vjp(g, x, y):
    left = g.mT - x @ (y @ g.mT)  # (I - X Y) G^T
    right = g.mT - g.mT @ y @ x  # G^T (I - Y X)
    return left @ y @ y.mT + y.mT @ y @ right - y.mT @ g @ y.mT


def _pinv_jvp(t, x, y):
    left = t.mT - t.mT @ x @ y  # T^T (I - X Y)
    right = t.mT - y @ (x @ t.mT)  # (I - Y X) T^T
    return y @ y.mT @ left + right @ y.mT @ y - y @ t @ y


@primitive(
    vjp=_pinv_vjp,
    jvp=_pinv_jvp,
    formula=r"Y = X^+:\quad dY = -Y\,dX\,Y + Y Y^T dX^T (I - X Y) + (I - Y X)\,dX^T Y^T Y",
    source="Golub and Pereyra 1973, equation (4.12)",
    floats=True,
    notes="differentiable where the rank does not change; singular values up to rtol max(s) count as zero",
)
def pinv(xp, x, rtol=None):
    """The Moore-Penrose inverse (..., m, n) of (..., n, m). rtol: by default max(n, m) machine epsilons."""
    matrices("pinv", x)
    if not x.size:
        return xp.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), dtype=x.dtype)
    with failing(f"pinv: {DIVERGED}"):
        u, s, vh = xp.linalg.svd(x, full_matrices=False)
    if rtol is None:
        rtol = max(x.shape[-2:]) * float(xp.finfo(x.dtype).eps)
    kept = s > rtol * s.max(axis=-1, keepdims=True)
    inverse = kept / xp.where(kept, s, 1)
    return xp.matmul(vh.mT * inverse[..., None, :], u.mT).astype(x.dtype)


# --- determinants -------------------------------------------------------------------------------------------


def _last_two(g):
    """Room for a matrix behind every number."""
    return g.reshape((*g.shape, 1, 1))


def _cofactors_vjp(g, x, y):
    inverse = inv(x).mT
    return _last_two((g * y).sum(axis=(-2, -1))) * inverse - y @ g.mT @ inverse


def _cofactors_jvp(t, x, y):
    inverse = inv(x).mT
    return _last_two((t * inverse).sum(axis=(-2, -1))) * y - inverse @ t.mT @ y


@primitive(
    vjp=_cofactors_vjp,
    jvp=_cofactors_jvp,
    formula=r"Y = \det(X)\,X^{-T}:\quad dY = \mathrm{tr}(X^{-1} dX)\,Y - X^{-T} dX^T Y",
    source="Giles 2008, sections 2.2.3 and 2.2.5",
    floats=True,
    notes="the value exists for singular x, too; its derivative needs x invertible",
)
def cofactors(xp, x):
    """The cofactors (..., n, n) of square matrices: the gradient of det; det(X) X^-T where X is invertible.

    With X = U S V^T they are det(U V^T) U diag(prod_{j != i} s_j) V^T, whether X is singular or not.
    """
    matrices("cofactors", x, square=True)
    with failing(f"cofactors: {DIVERGED}"):
        u, s, vh = xp.linalg.svd(x, full_matrices=False)
    others = xp.where(xp.eye(x.shape[-1], dtype=bool), 1, s[..., None, :]).prod(axis=-1)
    sign = xp.sign(xp.linalg.det(u) * xp.linalg.det(vh))
    return (_last_two(sign) * xp.matmul(u * others[..., None, :], vh)).astype(x.dtype)


@primitive(
    vjp=lambda g, x: _last_two(g) * cofactors(x),
    jvp=lambda t, x: (cofactors(x) * t).sum(axis=(-2, -1)),
    formula=r"\frac{d \det X}{dX} = \det(X)\,X^{-T}",
    source="Giles 2008, section 2.2.5; 004, section 3",
    floats=True,
    notes="the first derivative is exact for singular x (its cofactors); the second needs x invertible",
)
def det(xp, x):
    """The determinants (...) of square matrices (..., n, n)."""
    return xp.linalg.det(matrices("det", x, square=True))


def _slogdet_vjp(needed, g, x):
    g_sign, g_log = g
    return (x * 0 if g_log is None else _last_two(g_log) * inv(x).mT,)


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
)
def slogdet(xp, x):
    """Sign (...) and ln |det| (...) of square matrices (..., n, n): a determinant that cannot overflow."""
    sign, logarithm = xp.linalg.slogdet(matrices("slogdet", x, square=True))
    return sign, logarithm


# --- functions of a matrix ----------------------------------------------------------------------------------


def matrix_power(x, n: int):
    """x @ x @ ... of square matrices (..., k, k), by repeated squaring; for negative n, of their inverse."""
    x = matrices("matrix_power", operand(x), square=True)
    if not isinstance(n, int):
        raise TypeError(f"matrix_power: n is {n!r}; it must be an integer")
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
    raw = direction.data if isinstance(direction, Tensor) else direction
    size = abs(raw).max(axis=(-2, -1), keepdims=True)
    size = size + (size == 0)  # L is linear in E: a large E must not cost squarings
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
)
def expm(xp, x):
    """The exponential of square matrices (..., n, n): scaling and squaring, Pade approximant [13/13]."""
    matrices("expm", x, square=True)
    if not x.size:
        return x.copy()
    norm = abs(x).sum(axis=-2).max(axis=-1)
    squarings = xp.ceil(xp.log2(xp.where(xp.isfinite(norm), xp.maximum(norm, _THETA), _THETA) / _THETA))
    x = x * _last_two(xp.exp2(-squarings)).astype(x.dtype)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    one = xp.eye(x.shape[-1], dtype=x.dtype)
    c = _PADE
    odd = x @ (x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one)
    even = x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    y = xp.linalg.solve(even - odd, even + odd)
    for k in range(int(squarings.max())):
        y = xp.where(_last_two(k < squarings), y @ y, y)
    return y


Tensor.inv = inv
Tensor.det = det
