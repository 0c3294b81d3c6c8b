"""Tests whether matrices are symmetric and positive definite; A X + X A = C for symmetric A that are not definite."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.linalg.decompositions import cholesky, on_host
from tinygrad_ms.ops.linalg.parts import common_batch, symmetric

__all__: list[str] = []

ASYMMETRY = 1e-4  # times the largest element: smaller differences are rounding errors, or those of difference quotients


def fits(x) -> bool:
    """Whether the raw array x holds square matrices of a dtype that LAPACK has."""
    return x.ndim > 1 and x.shape[-1] == x.shape[-2] and x.size > 0 and x.dtype.name in ("float32", "float64")


def unless_symmetric(op, x, hint):
    """Raise ValueError with ``hint`` unless the raw matrices are symmetric to 1e-4 of their largest element.

    On a GPU the host would have to wait. There it returns an array to add to the result, with NaN for such matrices.
    """
    xp = BACKENDS[type(x)].xp
    with numpy.errstate(all="ignore"):
        off, largest = (abs(y).max(axis=(-2, -1), keepdims=True) for y in (x - x.mT, x))
        bad = off > ASYMMETRY * largest
    if not on_host(x):
        return xp.where(bad, xp.nan, 0).astype(x.dtype)
    if bad.any():
        raise ValueError(
            f"{op}: A {x.shape} is not symmetric: an element differs from its mirror image by"
            f" {float((off / largest)[bad].max()):.2g} of the largest one; symmetrise it, (A + A.mT) / 2, if that is"
            f" what you want; {hint}"
        )
    return None


def positive_definite(xp, x):
    """Whether the symmetric part of each raw matrix is positive definite, (..., 1, 1). On a CPU: of all together."""
    if on_host(x):
        try:
            xp.linalg.cholesky(x / 2 + x.mT / 2)
        except numpy.linalg.LinAlgError:
            return xp.zeros((1, 1), bool)
        return xp.ones((1, 1), bool)
    return xp.isfinite(cholesky.primitive.forward(xp, x)).all(axis=(-2, -1), keepdims=True)


# --- A X + X A = C by the eigenvalues of A --------------------------------------------------------------------------


def _spectral_vjp(needed, g, A, y, parity):
    S = _solve_by_eigenvalues(A, g, parity=parity)
    return -symmetric(S @ y.mT + y.mT @ S) if needed[0] else None, S


def _spectral_jvp(tangents, A, y, parity):
    dA, C = tangents
    if dA is not None:
        dA = symmetric(dA)
        change = dA @ y + y @ dA
        C = -change if C is None else C - change
    return _solve_by_eigenvalues(A, C, parity=parity)


@primitive(
    vjp=_spectral_vjp,
    jvp=_spectral_jvp,
    formula=r"A X + X A = C:\quad A S + S A = \bar X,\quad \bar C = S,\quad \bar A = -\mathrm{sym}(S X^T + X^T S)",
    source="Su Jianlin, equations 20 and 21; the solution: Higham 2008, section 2.4, of symmetric A = V W V^T",
    notes="A stands for its symmetric part; where two eigenvalues add up to zero the result is inf or NaN, but at A = 0"
    " it is 0 by convention",
    flops=dense(30),
)
def _solve_by_eigenvalues(xp, A, C, /, parity=0):
    """The X with A X + X A = C for symmetric A (..., n, n) of any signature: V [V^T C V / (w_i + w_j)] V^T.

    ``parity`` -1 or +1 takes the skew or the symmetric part of C.
    """
    A, C = common_batch(xp, A, C)
    if not C.size:
        return C.copy()
    with numpy.errstate(all="ignore"):
        A = A / 2 + A.mT / 2
        bad = ~xp.isfinite(A).all(axis=(-2, -1), keepdims=True)
        w, v = xp.linalg.eigh(xp.where(bad, 0, A))
        total = w[..., :, None] + w[..., None, :]
        largest = abs(w).max(axis=-1)[..., None, None]
        total = xp.where(abs(total) <= A.shape[-1] * float(xp.finfo(A.dtype).eps) * largest, 0, total)
        inside = v.mT @ C @ v
        if parity:  # parity is taken here, not of C: a small w_i would divide rounding errors on the diagonal
            inside = (inside + parity * inside.mT) / 2
        inside = xp.where(largest == 0, 0, inside / total)
        X = v @ inside @ v.mT
        return xp.where(bad, xp.nan, (X + parity * X.mT) / 2 if parity else X).astype(C.dtype)
