"""The matrix sign mcsgn of any spectrum and the equation A X + X B = C that it solves, as primitives.

Every derivative here is another equation of the same kind. So all orders exist, without an eigendecomposition.
"""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_its_card
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.coefficients import hashable
from tinygrad_ms.ops.iterations.driver import into_range, is_tracked
from tinygrad_ms.ops.iterations.newton import newton_mcsgn, newton_sylvester, proven
from tinygrad_ms.ops.iterations.polar import orthogonalise
from tinygrad_ms.ops.linalg.parts import check_matrices, common_batch
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import concat

__all__ = ["mcsgn", "solve_sylvester"]


# --- A X + X B = C -------------------------------------------------------------------------------------------------


def check_right_side(name, A, B, C):
    """Raise ValueError if B and C do not fit A in A X + X B = C."""
    if C.ndim < 2 or C.shape[-2:] != (A.shape[-1], B.shape[-1]):
        raise ValueError(
            f"{name}: C has shape {C.shape}; expected (..., {A.shape[-1]}, {B.shape[-1]}),"
            f" the sizes of A {A.shape} and B {B.shape}"
        )
    for what, x in (("B", B), ("C", C)):
        if x.dtype != A.dtype:
            raise TypeError(f"{name}: {what} has dtype {x.dtype} and A {A.dtype}; convert one with .astype")


def _sylvester_vjp(needed, g, A, B, y, steps, spectrum):
    S = _solve_sylvester(A.mT, B.mT, g, steps=steps, spectrum=spectrum)
    return -times(S, y.mT) if needed[0] else None, -times(y.mT, S) if needed[1] else None, S


def _sylvester_jvp(tangents, A, B, y, steps, spectrum):
    dA, dB, dC = tangents
    terms = [dC, None if dA is None else -(dA @ y), None if dB is None else -(y @ dB)]
    first, *rest = [term for term in terms if term is not None]
    for term in rest:
        first = first + term
    return _solve_sylvester(A, B, first, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_sylvester_vjp,
    jvp=_sylvester_jvp,
    formula=r"A X + X B = C:\quad A^T S + S B^T = \bar X,\quad \bar C = S,\ \bar A = -S X^T,\ \bar B = -X^T S",
    source="Su Jianlin, equations 20 and 21; Higham 2008, section 2.4",
    notes="unique unless an eigenvalue of A and one of B add up to zero: then NaN or large numbers",
    flops=dense(100),
)
def _solve_sylvester(xp, A, B, C, /, steps=None, spectrum="complex"):
    """As ``solve_sylvester``."""
    check_matrices("solve_sylvester", A, square=True, name="A", lapack=False)
    check_matrices("solve_sylvester", B, square=True, name="B", lapack=False)
    check_right_side("solve_sylvester", A, B, C)
    A, B, C = common_batch(xp, A, B, C)
    if _is_real("solve_sylvester", spectrum):
        return _sylvester_by_table(xp, A, B, C, steps)
    return newton_sylvester(xp, A, B, C, steps).reshape(C.shape)


def solve_sylvester(A, B, C, /, steps=None, spectrum="complex"):
    """The X with A X + X B = C: A (..., n, n), B (..., m, m) and C (..., n, m), float32 or float64, batched.

    The spectra of A and B should lie in the right half plane, or both in the left one. Then X is half the corner of
    mcsgn([[A, C], [0, -B]]), by scaled Newton on the blocks. ``spectrum="real"`` promises real eigenvalues of A and B;
    then the quintic table runs instead, by matrix products alone. The signs of A and B, and the residual, show if the
    spectra lie otherwise. Then a dense system of up to 1,024 unknowns is solved, or A and B are shifted. With ``steps``
    on a GPU, where the host would have to wait, the result is NaN instead.
    Raises ValueError for shapes that do not fit, and for larger equations where no shift helps. An equation without a
    unique solution gives NaN or large numbers. The scale of A, B and C does not matter. SciPy's function of this name
    takes no batches.

    >>> A, B, C = np.diag([1.0, 2.0]), np.diag([3.0, 4.0]), np.ones((2, 2))
    >>> X = tg.solve_sylvester(A, B, C)
    >>> bool(np.allclose(A @ X + X @ B, C))
    True
    """
    A, B, C = map(as_operand, (A, B, C))
    s, t = into_range(A, B) if A.shape[:-2] == B.shape[:-2] else None, into_range(C)
    if s is None and t is None:
        return _solve_sylvester(A, B, C, steps=steps, spectrum=spectrum)
    s, t = 1.0 if s is None else s, 1.0 if t is None else t
    return _solve_sylvester(A * s, B * s, C * t, steps=steps, spectrum=spectrum) / t * s


def _sylvester_by_table(xp, A, B, C, steps):
    """The corner of the dense block matrix, by the quintics."""
    n, m = C.shape[-2:]
    X = xp.zeros((*C.shape[:-2], n + m, n + m), C.dtype)
    X[..., :n, :n], X[..., n:, n:] = A, -B
    size = (xp.abs(X).max(axis=(-2, -1)) if X.size else xp.ones(X.shape[:-2], X.dtype))[..., None, None]
    largest = (xp.abs(C).max(axis=(-2, -1)) if C.size else xp.ones(C.shape[:-2], C.dtype))[..., None, None]
    ratio = size / xp.where(largest == 0, 1, largest)  # the corner is linear in C, so C may have any scale
    X[..., :n, n:] = C * ratio
    S = orthogonalise(xp, X, steps, mcsgn=True)
    X = S[..., :n, n:] / xp.where(ratio == 0, 1, 2 * ratio)
    if not C.size:
        return X
    matrices = (A, B, C, S[..., :n, :n], -S[..., n:, n:], X)
    a, b, c, sign_a, sign_b, x = [xp.ascontiguousarray(m).reshape((-1,) + m.shape[-2:]) for m in matrices]
    with numpy.errstate(all="ignore"):
        return proven(xp, a, b, c, sign_a, sign_b, x, steps).reshape(C.shape)


def _is_real(name, spectrum):
    if spectrum not in ("real", "complex"):
        raise ValueError(f"{name}: spectrum={spectrum!r}; expected 'real' or 'complex'")
    return spectrum == "real"


# --- the matrix sign -----------------------------------------------------------------------------------------------


def _mcsgn_vjp(g, x, y, steps, spectrum):
    N = (x @ y).mT
    Y = _solve_sylvester(N, N, g, steps=steps, spectrum=spectrum)
    return Y - y.mT @ Y @ y.mT


def _mcsgn_jvp(t, x, y, steps, spectrum):
    N = x @ y
    return _solve_sylvester(N, N, t - y @ t @ y, steps=steps, spectrum=spectrum)


@primitive(
    vjp=_mcsgn_vjp,
    jvp=_mcsgn_jvp,
    formula=r"S = \mathrm{mcsgn}(A),\ N = A S:\quad N\,dS + dS\,N = dA - S\,dA\,S",
    source="Su Jianlin, equation 3; Higham 2008, theorem 5.3 and equation (5.7)",
    notes="no eigenvalue on the imaginary axis",
    floats=True,
    flops=dense(60),
)
def _mcsgn(xp, x, /, steps=None, spectrum="complex", normalise="norm", coefficients=None):
    """As ``mcsgn``."""
    check_matrices("mcsgn", x, square=True, lapack=False)
    if not _is_real("mcsgn", spectrum):
        return newton_mcsgn(xp, x, steps)
    S = orthogonalise(xp, x, steps, coefficients, mcsgn=normalise)
    if steps is not None or coefficients is not None or not S.size:
        return S
    with numpy.errstate(all="ignore"):  # a sign is its own inverse, except at x = 0
        off = abs(S @ S - xp.eye(S.shape[-1], dtype=S.dtype)).max(axis=(-2, -1), keepdims=True)
        return xp.where((off < 0.5) | (x == 0).all(axis=(-2, -1), keepdims=True), S, xp.nan).astype(S.dtype)


def mcsgn(x, /, steps=None, spectrum=None, *, normalise="norm", coefficients=None):
    """The matrix sign x (x^2)^{-1/2} of square x (..., n, n): eigenvalues become the signs of their real parts.

    ``spectrum="complex"``, the default, runs scaled Newton. ``spectrum="real"`` promises real eigenvalues and runs the
    quintics of ``coefficients`` ("su", or as in ``msign``), by matrix products alone; complex eigenvalues make it NaN.
    The quintics start from x / ||x||_F. With ``normalise="trace"``, which promises a real spectrum, too, they start
    from x / (tr x^2)^{1/2}, as in Su Jianlin, equation 6. ``steps=k`` runs exactly k steps; the host never waits.
    mcsgn is not ``msign``; the two agree for symmetric matrices. Raises ValueError unless x is square. An eigenvalue on
    the imaginary axis has no sign. The result is NaN there, also where rounding decides the sign; with ``steps`` it is
    arbitrary.

    >>> tg.mcsgn(np.array([[2.0, 1.0], [0.0, -3.0]])).round(12) + 0.0
    array([[ 1. ,  0.4],
           [ 0. , -1. ]])
    """
    if normalise not in ("norm", "trace"):
        raise ValueError(f"mcsgn: normalise={normalise!r}; expected 'norm' (x / ||x||_F) or 'trace' (x / (tr x^2)^.5)")
    if spectrum is None:
        spectrum = "real" if normalise == "trace" else "complex"
    if not _is_real("mcsgn", spectrum) and (normalise == "trace" or coefficients is not None):
        raise ValueError("mcsgn: normalise= and coefficients= are of the quintics; pass spectrum='real' with them")
    x = as_operand(x)
    s = into_range(x) if is_tracked(x) else None
    options = {"steps": steps, "spectrum": spectrum, "normalise": normalise, "coefficients": hashable(coefficients)}
    return _mcsgn(x if s is None else x * s, **options)


@on_its_card
def msign_dense_vjp(M, G, *, eps=1e-3, steps=8, O=None):
    """The gradient of <G, msign(M)> as the source computes it, by mcsgn of one dense (n + m) x (n + m) matrix.

    With O = msign(M), A = M O^T, B = O^T M: X is half the corner of -mcsgn([[A + eps I, -G], [0, -B - eps I]]), and the
    gradient X - O X^T O. M and G have shape (..., n, m). M is divided by its norm before the absolute ``eps`` is
    added; else a small M would lose its gradient. G is divided by its norm, too; the corner is linear in it. ``O`` is
    computed if it is not given. The error is about 2 eps ||M||_F / s_n after eight to ten steps. ``steps=None`` adapts.
    ``msign(M, vjp="dense")`` has this rule. Here M and G are raw arrays, or Tensors beside a Tensor O.
    Source: Su Jianlin, equations 20 to 23 and 13.
    """
    if O is None:
        if isinstance(M, Tensor) or isinstance(G, Tensor):
            raise TypeError("msign_dense_vjp: M and G are raw arrays here; pass tensor.data, or O=msign(M) as well")
        check_matrices("msign_dense_vjp", M, name="M", lapack=False)
        O = orthogonalise(BACKENDS[type(M)].xp, M, steps, "su")
    xp = BACKENDS[type(raw(M))].xp
    n, m = M.shape[-2:]
    with numpy.errstate(all="ignore"):
        squared = (M * M).sum(axis=(-2, -1), keepdims=True)
        norm = (squared + (raw(squared) == 0)) ** 0.5
        size = xp.sqrt((raw(G) ** 2).sum(axis=(-2, -1), keepdims=True))
        size = size + (size == 0)
        unit = M / norm
        A, B = (x + eps * xp.eye(x.shape[-1], dtype=x.dtype) for x in (unit @ O.mT, O.mT @ unit))
        block = concat([concat([A, G / -size], axis=-1), concat([0 * unit.mT, -B], axis=-1)], axis=-2)
        X = _mcsgn(block, steps=steps, spectrum="real")[..., :n, n:] * (size / -2)
        return (X - O @ X.mT @ O) / norm * (raw(squared) != 0)
