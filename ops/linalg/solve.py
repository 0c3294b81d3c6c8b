"""Linear equations: inv, solve, solve_triangular.

All take matrices in the last two axes and a batch before them. float16 is refused, because LAPACK and cuSOLVER lack it.
Where LAPACK fails (a singular matrix, no convergence), the CPU raises ValueError. On a GPU the host would have to wait
to know it; there the result holds inf or NaN.

Source of most rules: Giles 2008, "Collected matrix derivative results for forward and reverse mode AD".
"""

from contextlib import contextmanager

from numpy import broadcast_shapes
from numpy.linalg import LinAlgError

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.parts import check_matrices, tril, triu
from tinygrad_ms.ops.operands import as_operand

__all__ = ["inv", "solve", "solve_triangular"]


DIVERGED = "the iteration of LAPACK did not converge; does x hold inf or NaN?"


@contextmanager
def failing(sentence):
    """Raise ``sentence`` if LAPACK gives up. Other errors pass: they do not say that a matrix is singular.

    A LinAlgError is a ValueError, and an outer ``failing`` puts its own sentence in its place.
    """
    try:
        yield
    except LinAlgError:
        raise LinAlgError(sentence) from None


def lapack(op, function, x, *, square=False, sentence=DIVERGED, **options):
    """function(x, **options) for the matrices x, in the name of ``op``; ``sentence``: what it means to give up."""
    check_matrices(op, x, square=square)
    with failing(f"{op}: {sentence}"):
        return function(x, **options)


@primitive(
    vjp=lambda g, y: -(y.mT @ g @ y.mT),
    jvp=lambda t, y: -(y @ t @ y),
    formula=r"Y = X^{-1}:\quad dY = -Y\,dX\,Y,\quad \bar X = -Y^T \bar Y Y^T",
    source="Giles 2008, section 2.2.3; AIDIY, section 3",
    floats=True,
    notes="singular x: ValueError on the CPU, inf or NaN on a GPU",
    flops=dense(2),
)
def inv(xp, x):
    """The inverse of square matrices (..., n, n). Raises ValueError where one is singular."""
    sentence = f"x, of shape {x.shape}, is singular; use pinv, or add a multiple of the identity"
    return lapack("inv", xp.linalg.inv, x, square=True, sentence=sentence)


def _solve_vjp(needed, g, a, y):
    g_b = _solve(a.mT, g)
    return -(g_b @ y.mT) if needed[0] else None, g_b


def _solve_jvp(tangents, a, y):
    return _solve(a, change(tangents[0], tangents[1], y))


def change(t_a, t_b, y):
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
    flops=dense(2 / 3),
)
def _solve(xp, a, b):
    """Y with A Y = B, for matrices A and B."""
    return _for_columns(xp, "solve", xp.linalg.solve, a, b)


def solve(a, b):
    """The y with a y = b, for square matrices a (..., n, n) and b a vector (n,) or matrices (..., n, k).

    Batches broadcast. One matrix a is factorised once for all of b. Raises ValueError where a is singular.

    >>> tg.solve([[2.0, 0.0], [0.0, 4.0]], [2.0, 2.0])
    Tensor([1. , 0.5], dtype=float32)
    """
    return of_vectors(_solve, a, b)


def of_vectors(solver, a, b, **constants):
    """A right-hand side (n,) as a matrix of one column."""
    a, b = as_operand(a), as_operand(b)
    if b.ndim != 1:
        return solver(a, b, **constants)
    y = solver(a, b.reshape((b.shape[0], 1)), **constants)
    return y.reshape(y.shape[:-1])


def check_equations(op, a, b, square=True):
    """The common batch of the matrices of a y = b. Raises ValueError if their shapes do not fit."""
    check_matrices(op, a, square=square, name="a")
    check_matrices(op, b, name="b")
    if a.shape[-2] != b.shape[-2]:
        rows = f"the numbers of rows, {a.shape[-2]} and {b.shape[-2]}, differ"
        raise ValueError(f"{op}: a has shape {a.shape} and b has shape {b.shape}: {rows}")
    try:
        return broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"{op}: the batches of a {a.shape} and b {b.shape} do not broadcast") from None


def _for_columns(xp, op, solver, a, b):
    """``solver(a, b)`` on broadcast batches, which CuPy lacks. For one matrix a, a batch b becomes columns."""
    batch = check_equations(op, a, b)
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
    return _solve_triangular(a, change(t_a, t_b, y), lower=lower, unit_diagonal=unit_diagonal)


def _triangle(x, lower, unit_diagonal):
    """The entries of a that are read."""
    return tril(x, k=-int(unit_diagonal)) if lower else triu(x, k=int(unit_diagonal))


@primitive(
    vjp=_triangular_vjp,
    jvp=_triangular_jvp,
    formula=r"Y = A^{-1} B:\quad \bar B = A^{-T} \bar Y,\quad \bar A = -\mathrm{tri}(\bar B\,Y^T)",
    source="Giles 2008, section 2.2.4, restricted to the triangle",
    floats=True,
    notes="the other triangle is not read; zero on the diagonal: ValueError on the CPU, inf or NaN on a GPU",
    flops=dense(1),
)
def _solve_triangular(xp, a, b, /, lower, unit_diagonal):
    """Y with A Y = B, where only the upper (or ``lower``) triangle of A is read."""

    def substitute(a, b):
        if lower:  # with rows and columns reversed it is an upper one
            return _back_substitute(xp, a[..., ::-1, ::-1], b[..., ::-1, :], unit_diagonal)[..., ::-1, :]
        return _back_substitute(xp, a, b, unit_diagonal)

    return _for_columns(xp, "solve_triangular", substitute, a, b)


def solve_triangular(a, b, lower=False, unit_diagonal=False):
    """The y with a y = b, for triangular a (..., n, n) and b a vector (n,) or matrices (..., n, k).

    Only the upper (or ``lower``) triangle of a is read. With ``unit_diagonal`` the diagonal counts as ones.
    Batches broadcast. Raises ValueError for a zero on the diagonal.
    """
    return of_vectors(_solve_triangular, a, b, lower=bool(lower), unit_diagonal=bool(unit_diagonal))


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
