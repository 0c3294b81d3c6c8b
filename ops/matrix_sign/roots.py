"""Square roots of symmetric positive definite matrices; their derivatives are equations A X + X A = C."""

from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.driver import into_range
from tinygrad_ms.ops.iterations.polar import orthogonalise
from tinygrad_ms.ops.linalg.decompositions import cholesky
from tinygrad_ms.ops.linalg.parts import check_matrices, symmetric
from tinygrad_ms.ops.linalg.solve import failing
from tinygrad_ms.ops.matrix_sign.definite import fits, unless_symmetric
from tinygrad_ms.ops.matrix_sign.lyapunov import _solve_lyapunov
from tinygrad_ms.ops.operands import as_operand

__all__ = ["inv_sqrtm", "sqrtm"]


def _root_derivative(G, y, steps, coefficients):
    """S with y S + S y = sym(G): its own adjoint, so the rule of both modes."""
    return _solve_lyapunov(y, G, parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=_root_derivative,
    jvp=_root_derivative,
    formula=r"Y = A^{1/2}:\quad Y S + S Y = \mathrm{sym}(\bar Y),\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
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


def _inverse_root_derivative(G, y, steps, coefficients):
    """S with y S + S y = -y^2 sym(G) y^2: its own adjoint, so the rule of both modes."""
    return _solve_lyapunov(y, -(y @ (y @ symmetric(G) @ y) @ y), parity=1, steps=steps, coefficients=coefficients)


@primitive(
    vjp=_inverse_root_derivative,
    jvp=_inverse_root_derivative,
    formula=r"Y = A^{-1/2}:\quad Y S + S Y = -Y^2\,\mathrm{sym}(\bar Y)\,Y^2,\quad \bar A = S",
    source="Higham 2008, section 6.1; 000",
    notes="A stands for its symmetric part, which must be positive definite",
    floats=True,
    flops=dense(60),
)
def _inv_sqrtm(xp, A, /, steps=None, coefficients=None):
    """As ``inv_sqrtm``."""
    check_matrices("inv_sqrtm", A, square=True, name="A", lapack=False)
    L = _cholesky("inv_sqrtm", xp, A)
    unitary = orthogonalise(xp, L, steps, coefficients)
    y = xp.linalg.solve(L.mT, unitary.mT).mT
    return (y + y.mT) / 2


def inv_sqrtm(A, /, steps=None, coefficients=None):
    """The inverse square root of symmetric positive definite A (..., n, n): msign(L) L^{-1} with A = L L^T.

    A stands for its symmetric part. Raises ValueError where that is not positive definite, and for an A that is not
    symmetric to 1e-4 of its largest element (NaN on a GPU). The scale of A does not matter.
    """
    return _of_root("inv_sqrtm", _inv_sqrtm, A, 0.5, steps=steps, coefficients=coefficients)
