"""Square roots of symmetric positive definite matrices; their derivatives are equations A X + X A = C."""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.iterations.driver import into_range
from tinygrad_ms.ops.iterations.polar import orthogonalise
from tinygrad_ms.ops.linalg.decompositions import cholesky, on_host
from tinygrad_ms.ops.linalg.definite import _solve_by_eigenvalues, fits, unless_symmetric
from tinygrad_ms.ops.linalg.parts import check_matrices, symmetric
from tinygrad_ms.ops.linalg.solve import failing
from tinygrad_ms.ops.matrix_sign.lyapunov import _solve_lyapunov
from tinygrad_ms.ops.operands import as_operand

__all__ = ["inv_sqrtm", "sqrtm"]


def _root_derivative(G, y, steps, coefficients):
    """S with y S + S y = sym(G). The map from G to S is its own adjoint, so it is the rule of both modes."""
    return _solve_lyapunov(y, G, parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=_root_derivative,
    jvp=_root_derivative,
    formula=r"Y = A^{1/2}:\quad Y S + S Y = \mathrm{sym}(\bar Y),\quad \bar A = S",
    source="Higham 2008, section 6.1; Su Jianlin",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
    flops=dense(60),
)
def _sqrtm(xp, A, /, steps=None, coefficients=None):
    """As ``sqrtm``."""
    check_matrices("sqrtm", A, square=True, name="A", lapack=False)
    L = _cholesky("sqrtm", xp, A)
    y = L @ orthogonalise(xp, L, steps, coefficients).mT
    return (y + y.mT) / 2


def _cholesky(name, xp, A):
    if not A.size:
        return A
    with failing(f"{name}: A {A.shape} is not positive definite: its Cholesky factor does not exist"):
        return cholesky.primitive.forward(xp, A)


def sqrtm(A, /, steps=None, coefficients=None):
    """The square root of symmetric positive definite A (..., n, n), float32 or float64: L msign(L)^T with A = L L^T.

    A stands for its symmetric part. Raises ValueError where that is not positive definite, and for an A that is not
    symmetric to 1e-4 of its largest element (NaN on a GPU). The scale of A does not matter.
    """
    return _of_root("sqrtm", _sqrtm, A, -0.5, steps=steps, coefficients=coefficients)


def _of_root(name, function, A, power, **options):
    """``function`` of A brought into range, times the scale to this power."""
    A = as_operand(A)
    hint = "the root of any A is the upper right block of mcsgn([[0, A], [I, 0]])"
    spoiled = unless_symmetric(name, raw(A), hint) if fits(raw(A)) else None
    s = into_range(A, step=2)
    y = function(A, **options) if s is None else function(A * s, **options) * s**power
    return y if spoiled is None else y + spoiled


def _inverse_root_derivative(G, A, y, steps, coefficients, pseudo):
    """S with y S + S y = -y^2 sym(G) y^2: the rule of both modes. The pseudo-inverse adds the part outside the range.

    The derivative is the one along matrices of the same rank. N = I - y A y projects on the null space. A multiple of N
    makes y invertible there, and S gets the terms y^3 sym(G) N + N sym(G) y^3.
    """
    G = symmetric(G)
    H = y @ G @ y
    if not pseudo:
        return _solve_lyapunov(y, -(y @ H @ y), parity=1, steps=steps, coefficients=coefficients)
    x = raw(y)
    xp = BACKENDS[type(x)].xp
    N = xp.eye(x.shape[-1], dtype=x.dtype) - y @ symmetric(A) @ y
    size = abs(x).max(axis=(-2, -1), keepdims=True)
    S = _solve_by_eigenvalues(y + N * (size + (size == 0)), -(y @ H @ y), parity=1)
    outside = y @ y @ y @ G @ N
    return S + outside + outside.mT


@primitive(
    vjp=_inverse_root_derivative,
    jvp=_inverse_root_derivative,
    formula=r"Y = A^{-1/2}:\quad Y S + S Y = -Y^2\,\mathrm{sym}(\bar Y)\,Y^2,\quad \bar A = S",
    source="Higham 2008, section 6.1; Su Jianlin, equation 2",
    notes="A stands for its symmetric part, which must be positive definite, with pseudo=True semidefinite",
    floats=True,
    flops=dense(60),
)
def _inv_sqrtm(xp, A, /, steps=None, coefficients=None, pseudo=False):
    """As ``inv_sqrtm``."""
    check_matrices("inv_sqrtm", A, square=True, name="A", lapack=False)
    if pseudo:
        return _pseudo_root(xp, A)
    L = _cholesky("inv_sqrtm", xp, A)
    unitary = orthogonalise(xp, L, steps, coefficients)
    y = xp.linalg.solve(L.mT, unitary.mT).mT
    return (y + y.mT) / 2


def _pseudo_root(xp, A):
    """V w^{-1/2} V^T for raw A = V w V^T. Eigenvalues that are zero up to rounding errors are left out."""
    if not A.size:
        return A * 1
    with numpy.errstate(all="ignore"):
        bad = ~xp.isfinite(A).all(axis=(-2, -1), keepdims=True)
        w, v = xp.linalg.eigh(xp.where(bad, 0, A / 2 + A.mT / 2))
        cut = A.shape[-1] * float(xp.finfo(A.dtype).eps) * abs(w).max(axis=-1, keepdims=True)
        negative = (w < -cut).any(axis=-1)
        if on_host(A) and negative.any():
            raise ValueError(
                f"inv_sqrtm: A {A.shape} has the eigenvalue {float(w.min()):.3g}: with pseudo=True it may be singular,"
                " but not negative"
            )
        f = xp.where(w > cut, 1 / xp.sqrt(w), 0)
        y = (v * f[..., None, :]) @ v.mT
        return xp.where(bad | negative[..., None, None], xp.nan, y).astype(A.dtype)


def inv_sqrtm(A, /, steps=None, coefficients=None, *, pseudo=False):
    """The inverse square root of symmetric positive definite A (..., n, n): msign(L) L^{-1} with A = L L^T.

    A stands for its symmetric part. Raises ValueError where that is not positive definite, and for an A that is not
    symmetric to 1e-4 of its largest element (NaN on a GPU). The scale of A does not matter.
    ``pseudo=True`` takes the pseudo-inverse, so that A may be singular. Then msign(M) = (M M^T)^{-1/2} M for
    every M (Su Jianlin, equation 2). It is computed from eigenvalues; those below n u times the largest one count as
    zero. The derivatives, of all orders, are those along matrices of the same rank.
    """
    if not isinstance(pseudo, (bool, numpy.bool_)):
        raise TypeError(f"inv_sqrtm: pseudo={pseudo!r}; expected True or False")
    if pseudo:
        fixed_rows(steps, coefficients)  # unused here, but checked
    return _of_root("inv_sqrtm", _inv_sqrtm, A, 0.5, steps=steps, coefficients=coefficients, pseudo=bool(pseudo))
