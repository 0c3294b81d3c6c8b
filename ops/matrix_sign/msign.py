"""msign, the orthogonal polar factor; polar and nuclear_norm follow from it. All have derivatives of every order.

The derivative of O = msign(M) is a Sylvester equation (Su Jianlin, equations 13 and 14). For tall M (m x n, m >= n)
with P = O^T M = (M^T M)^{1/2} and a direction or cotangent G, reduced to the small side n:

    P W + W P = O^T G - G^T O,        derivative = O W + (G - O O^T G) P^{-1}

The derivative is its own adjoint, because msign is the gradient of the nuclear norm. So one function serves both
modes. mcsgn solves the equation (``lyapunov``), and the rule of that solve is another such equation. So derivatives of
all orders exist, also at repeated singular values, where rules made of svd or eigh divide by zero.
"""

from numbers import Real

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_its_card
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.coefficients import as_rows, fixed_rows
from tinygrad_ms.ops.iterations.driver import into_range, is_tracked, largest_elements, power_of_two
from tinygrad_ms.ops.iterations.polar import half_in_float32, orthogonalise
from tinygrad_ms.ops.iterations.report import check_finite, check_orthogonal
from tinygrad_ms.ops.linalg.parts import check_matrices, per_matrix, symmetric
from tinygrad_ms.ops.matrix_sign.closed_form import LEAST, _msign_closed_form
from tinygrad_ms.ops.matrix_sign.lyapunov import polar_derivative
from tinygrad_ms.ops.matrix_sign.rules import _msign, chosen_rule
from tinygrad_ms.ops.matrix_sign.smooth import _msign_smooth, _msign_smooth_recomputing
from tinygrad_ms.ops.matrix_sign.step import _newton_schulz_step
from tinygrad_ms.ops.operands import as_operand

__all__ = ["msign", "msign_unrolled", "nuclear_norm", "polar"]

METHODS = ("newton_schulz", "svd", "eigh")


@half_in_float32
def msign(M, *, eps=0.0, method="newton_schulz", vjp=None, steps=None, coefficients=None, recompute=False, check=False):
    """The orthogonal polar factor U V^T of M = U diag(s) V^T: M (..., n, m), of floats, batched.

    Args:
        eps: 0 gives the pure msign. eps > 0 gives the smooth M (M^T M + e^2 I)^{-1/2} with e = eps ||M||_F per matrix.
            It is differentiable at every M but zero, also at rank-deficient ones, and |gradient| <= |G| / e. It is the
            choice for training.
        method: "newton_schulz" uses matrix products alone; its derivative is the mcsgn Sylvester solve. It is the
            choice on a GPU. "svd" and "eigh" are closed forms by LAPACK. They take any rank, and have derivatives of
            all orders along matrices of that rank. "eigh" decomposes the Gram matrix M^T M in float64 and is the
            fastest on a CPU for single matrices. It takes the SVD of matrices with s_n < 1e-4 s_1, and where
            0 < eps < 1e-4. ``steps`` and ``coefficients`` have no effect on the closed forms.
        vjp: the rule of the derivative. It may differ from the method. None is the first one in this table:

                method            eps = 0                               eps > 0
                "newton_schulz"   "solve" "dense" "svd" "eigh" "unrolled"   "solve" "svd" "eigh" "unrolled"
                "svd"             "svd" "eigh" "solve" "dense"          "svd" "eigh"
                "eigh"            "eigh" "svd" "solve" "dense"          "eigh" "svd"
                each              a function rule(G, M, O)              a function rule(G, M, O)

            "solve": the mcsgn Sylvester solve. "svd", "eigh": the closed forms, made in backward. "dense": the literal
            block of the source (equations 20 to 23) with its eps = 1e-3; errors of about 2e-3 ||M||_F / s_n.
            "unrolled": what autodiff through the steps gives, without keeping them; it needs ``steps``
            or ``coefficients``. All these have every order, and forward mode. A function returns the cotangent of M for
            the cotangent G of O = msign(M), all (..., n, m): raw arrays, or Tensors under ``create_graph``; it has no
            forward mode.
        steps: None adapts to the residual; the host waits for it. k runs exactly k steps, and the host never waits.
            Eight suffice while the least singular value is above 1e-3 ||M||_F, and always with eps >= 1e-3.
        coefficients: the name of a table ("su", "polar_express", "muon", "muon_you", "lact") or rows (a, b, c);
            ``minimax_coefficients`` makes some. The last row is repeated as needed. Without ``steps`` each row runs
            once. "solve" runs the same rows. Where they have not converged, its derivative is off, too (by 28 % after
            the five rows of "muon"). "svd" and "eigh" always give the derivative of the exact msign.
        recompute: with eps > 0, backward keeps one array of the size of M less. It computes the result again by one
            product, with rounding errors of order u / eps, where u is the unit roundoff. The result itself has such
            errors where M is rank-deficient.
        check: look at the values; the host waits for them. Non-finite input raises ValueError. Rank deficiency, and
            steps that have not converged, give a warning that names the matrix.

    Zero gives zero with zero gradient. 1 x 1 gives the sign. The scale of M does not matter. NaN or infinity makes its
    matrix NaN. At a rank-deficient M msign is discontinuous. There "newton_schulz" gives an iterate whose extra
    singular values stay below about 0.1 (for small matrices 0.6 at worst). Its derivative is at most
    c |G| / ||M||_F / sqrt(max(n, m)) with c = 1.4e8 in float32 and 7.2e16 in float64. Adaptive steps notice this and
    give a RuntimeWarning at the caller's line. "svd" and "eigh" give U_r V_r^T and the derivative along matrices of
    rank r.
    float16 and bfloat16 are computed in float32 and rounded once, values and derivatives of every order.
    Raises ValueError for vectors, bad options and pairs that do not fit.
    Source: Su Jianlin; docs/msign.md.

    >>> M = tg.tensor([[3.0, 0.0], [0.0, -2.0]], dtype="float64", requires_grad=True)
    >>> O = tg.msign(M)
    >>> tg.round(O.detach(), 12) + 0.0
    Tensor([[ 1.,  0.],
            [ 0., -1.]], dtype=float64)
    >>> tg.testing.gradcheck(tg.msign, [M])
    True
    """
    if method not in METHODS:
        raise ValueError(f"msign: method={method!r}; expected {' or '.join(map(repr, METHODS))}")
    if not (isinstance(eps, Real) and (eps == 0 or 1e-12 <= float(eps) <= 1e6)):
        raise ValueError(f"msign: eps={eps!r}; expected 0, or a number from 1e-12 to 1e6, relative to ||M||_F")
    if coefficients is not None and not isinstance(coefficients, str):
        coefficients = as_rows(coefficients)
    rule = None if vjp is None else chosen_rule(vjp, method, eps, steps, coefficients, recompute)
    M = as_operand(M)
    shape = M.shape
    if check:
        check_finite(M)
        y = msign(M, eps=eps, method=method, vjp=rule, steps=steps, coefficients=coefficients, recompute=recompute)
        if not eps:
            check_orthogonal(M, y, method, steps, coefficients)
        return y
    if method == "eigh" and 0 < float(eps) < LEAST:
        method = "svd"
    if rule is not None:
        if not callable(rule) and is_tracked(M) and (s := into_range(M)) is not None:
            M = M * s
        return _msign(M, eps=float(eps), method=method, steps=steps, coefficients=coefficients, vjp=rule)
    if len(shape) > 1 and shape[-2] < shape[-1]:  # work on the smaller side
        options = {"eps": eps, "method": method, "steps": steps, "coefficients": coefficients}
        return msign(M.mT, recompute=recompute, **options).mT
    if is_tracked(M) and (s := into_range(M)) is not None:
        M = M * s  # scaling by s leaves the value; the derivative is s times that at s M
    if method != "newton_schulz":
        fixed_rows(steps, coefficients)  # not used, but nonsense is refused
        return _msign_closed_form(M, eps=float(eps), method=method)
    if eps:
        smooth = _msign_smooth_recomputing if recompute else _msign_smooth
        return smooth(M, eps=float(eps), steps=steps, coefficients=coefficients)[0]
    if len(shape) > 1 and shape[-2] == shape[-1]:
        return _msign_square(M, steps=steps, coefficients=coefficients)
    return _msign_tall(M, steps=steps, coefficients=coefficients)[0]


# --- by Newton-Schulz ----------------------------------------------------------------------------------------------


@primitive(
    vjp=lambda g, M, y, steps, coefficients: polar_derivative(M, y, g, steps, coefficients),
    jvp=lambda t, M, y, steps, coefficients: polar_derivative(M, y, t, steps, coefficients),
    formula=r"P W + W P = Y^T \bar Y - \bar Y^T Y,\ P = Y^T M:\quad \bar M = Y W",
    source="Su Jianlin, equations 13 and 14; docs/msign.md",
    notes="full rank: msign is discontinuous elsewhere",
    floats=True,
    flops=dense(60),
)
def _msign_square(xp, M, /, steps=None, coefficients=None):
    """The pure msign of square M by Newton-Schulz. It takes other shapes, too, but ``msign_tall`` is faster there."""
    check_matrices("msign", M, name="M", lapack=False)
    return orthogonalise(xp, M, steps, coefficients, warn=True)


def _tall_vjp(needed, g, M, y, P, steps, coefficients):
    gy, gP = g
    if gP is None:
        return (polar_derivative(M, y, gy, steps, coefficients, P),)
    gP = symmetric(gP)  # P = Y^T M depends on M directly and through Y
    gy = M @ gP if gy is None else gy + M @ gP
    return (polar_derivative(M, y, gy, steps, coefficients, P) + y @ gP,)


def _tall_jvp(tangents, M, y, P, steps, coefficients):
    dy = polar_derivative(M, y, tangents[0], steps, coefficients, P)
    return dy, symmetric(times(dy.mT, M) + times(y.mT, tangents[0]))


@primitive(
    vjp=_tall_vjp,
    jvp=_tall_jvp,
    outputs=("y", "P"),
    formula=r"P W + W P = Y^T \bar Y - \bar Y^T Y,\ P = Y^T M:\quad"
    r"\bar M = Y W + (\bar Y - Y Y^T \bar Y) P^{-1}",
    source="Su Jianlin, equations 13 and 14; docs/msign.md",
    notes="full rank: msign is discontinuous elsewhere",
    floats=True,
    flops=dense(60),
)
def _msign_tall(xp, M, /, steps=None, coefficients=None):
    """The polar factors of tall M: msign(M) and P = (M^T M)^{1/2}. P saves the derivative a large product."""
    check_matrices("msign", M, name="M", lapack=False)
    y = orthogonalise(xp, M, steps, coefficients, warn=True)
    P = times(y.mT, M)
    return y, (P + P.mT) / 2


# --- polar decomposition and nuclear norm --------------------------------------------------------------------------


@half_in_float32
def polar(M, side="right", *, steps=None, coefficients=None):
    """The polar decomposition of M (..., n, m): (U, H) with U = msign(M), and M = U H ("right") or M = H U ("left").

    H = (M^T M)^{1/2} (..., m, m), or (M M^T)^{1/2} (..., n, n), is symmetric positive semidefinite. Derivatives of
    every order through ``msign``. Raises ValueError for another ``side``. Source: Higham, Functions of Matrices,
    chapter 8.
    """
    if side not in ("right", "left"):
        raise ValueError(f"polar: side={side!r}; expected 'right' (M = U H) or 'left' (M = H U)")
    M = as_operand(M)
    if side == "left" and len(M.shape) > 1:
        U, H = polar(M.mT, steps=steps, coefficients=coefficients)
        return U.mT, H
    s = into_range(M)
    M = M if s is None else M * s
    if len(M.shape) > 1 and M.shape[-2] >= M.shape[-1]:
        U, H = _msign_tall(M, steps=steps, coefficients=coefficients)
    else:
        U = msign(M, steps=steps, coefficients=coefficients)
        H = symmetric(U.mT @ M)
    return U, H if s is None else H / s


def _nuclear_vjp(needed, g, M, unitary, steps, coefficients):
    g_norm, g_unitary = g
    gradient = None if g_norm is None else per_matrix(g_norm) * unitary
    if g_unitary is not None:
        other = polar_derivative(M, unitary, g_unitary, steps, coefficients)
        gradient = other if gradient is None else gradient + other
    return (gradient,)


def _nuclear_jvp(tangents, M, unitary, steps, coefficients):
    (t,) = tangents
    return (unitary * t).sum(axis=(-2, -1)), polar_derivative(M, unitary, t, steps, coefficients)


@primitive(
    vjp=_nuclear_vjp,
    jvp=_nuclear_jvp,
    outputs=("norm", "unitary"),
    formula=r"d\|M\|_* = \langle \mathrm{msign}(M), dM \rangle",
    source="Watson 1992, Characterization of the subdifferential of some matrix norms",
    floats=True,
    flops=dense(60),
)
def _nuclear_norm(xp, M, /, steps=None, coefficients=None):
    """The nuclear norm of each matrix, and its gradient msign(M)."""
    check_matrices("nuclear_norm", M, name="M", lapack=False)
    unitary = orthogonalise(xp, M, steps, coefficients)
    return (unitary * M).sum(axis=(-2, -1)), unitary


@half_in_float32
def nuclear_norm(M, *, steps=None, coefficients=None):
    """The sum of the singular values of each matrix of M (..., n, m), shape (...), as <msign(M), M>, without an SVD.

    Its gradient is msign(M), and its Hessian the derivative of msign. At rank-deficient M msign is one subgradient.
    """
    M = as_operand(M)
    if (s := into_range(M)) is not None:
        norm = _nuclear_norm(M * s, steps=steps, coefficients=coefficients)[0]
        return norm / s.reshape(norm.shape)
    return _nuclear_norm(M, steps=steps, coefficients=coefficients)[0]


@on_its_card
@half_in_float32
def msign_unrolled(M, *, steps=8, coefficients="su", guard=0.0):
    """msign(M) (..., n, m) as ``steps`` recorded Newton-Schulz steps, with the derivative of the truncated iteration.

    It is for comparison and teaching; programs use ``msign``. Where the steps converge, the gradient has rounding
    errors like those of ``msign``. Every step keeps its matrices for backward, steps (2 n^2 + n m) numbers in all, or
    steps n m where a compiled kernel makes two of them again. ``msign`` keeps n m, which is 25 or 8 times less for a
    square M. Inside ``checkpoint`` this function keeps M alone and computes the steps twice. The scale of M does not
    matter; zero gives zero with zero gradient. ``guard`` is added to ||M||_F, as public code does (1e-7).
    ``msign(..., vjp="unrolled")`` has this derivative without keeping the steps.
    Source: Su Jianlin, equation 5.
    """
    if not (isinstance(guard, Real) and float(guard) >= 0):
        raise ValueError(f"msign_unrolled: guard={guard!r}; expected a number of at least 0, beside ||M||_F")
    M = check_matrices("msign_unrolled", as_operand(M), name="M", lapack=False)
    if M.shape[-2] < M.shape[-1]:
        return msign_unrolled(M.mT, steps=steps, coefficients=coefficients, guard=guard).mT
    if M.size:
        largest = largest_elements(raw(M))
        zero = largest == 0
        power = power_of_two(BACKENDS[type(largest)].xp, largest)
        M = M * (power * ~zero)
        M = M / (((M * M).sum(axis=(-2, -1), keepdims=True) + zero) ** 0.5 + guard * power)
    X = M
    for a, b, c in fixed_rows(steps, coefficients):
        X = _newton_schulz_step(X, a=a, b=b, c=c)
    return X
