"""The derivatives that ``msign(..., vjp=...)`` chooses from, each for the forwards it fits; docs/msign.md, section 8.

Each is a function of M, y = msign(M) and a direction or cotangent G. It is written in operators, so it can be
differentiated in turn.
"""

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.costs import dense
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.iterations.polar import orthogonalise, orthogonalise_smooth
from tinygrad_ms.ops.linalg.parts import check_matrices
from tinygrad_ms.ops.matrix_sign.closed_form import LEAST, _derivative, _identity, _msign_closed_form
from tinygrad_ms.ops.matrix_sign.lyapunov import polar_derivative
from tinygrad_ms.ops.matrix_sign.smooth import _inner, _safe
from tinygrad_ms.ops.matrix_sign.sylvester import msign_dense_vjp
from tinygrad_ms.ops.shapes import concat

__all__: list[str] = []

RULES = ("solve", "dense", "svd", "eigh", "unrolled")
FIT = {  # (method, whether eps > 0): the rules that fit, the default first
    ("newton_schulz", False): RULES,
    ("newton_schulz", True): ("solve", "svd", "eigh", "unrolled"),
    ("svd", False): ("svd", "eigh", "solve", "dense"),
    ("svd", True): ("svd", "eigh"),
    ("eigh", False): ("eigh", "svd", "solve", "dense"),
    ("eigh", True): ("eigh", "svd"),
}


def chosen_rule(vjp, method, eps, steps, coefficients, recompute):
    """``vjp`` if it asks for another rule than that of the method, else None. Raises ValueError if it does not fit."""
    fit = FIT[method, eps > 0]
    if vjp is None or isinstance(vjp, str) and vjp == fit[0]:
        return None
    if not callable(vjp) and not (isinstance(vjp, str) and vjp in RULES):
        raise ValueError(f"msign: vjp={vjp!r}; expected {', '.join(map(repr, RULES))} or a function rule(G, M, O)")
    if not callable(vjp) and vjp not in fit:
        smooth = " and eps > 0" if eps else ""
        raise ValueError(
            f"msign: vjp={vjp!r} does not fit method={method!r}{smooth}; there it is {' or '.join(map(repr, fit))},"
            " or a function rule(G, M, O)"
        )
    if fixed_rows(steps, coefficients) is None and isinstance(vjp, str) and vjp == "unrolled":
        raise ValueError("msign: vjp='unrolled' is the derivative of a number of steps; pass steps=k, or coefficients")
    if recompute:
        raise ValueError("msign: recompute=True is for the smooth msign with its own rule; leave it out beside vjp=")
    return "svd" if vjp == "eigh" and 0 < eps < LEAST else vjp


def by_rule(M, y, G, eps, method, steps, coefficients, vjp, jvp=False):
    """The derivative of y = msign(M) along G, or with ``jvp=False`` its adjoint applied to G, by the rule ``vjp``."""
    if callable(vjp):
        if jvp:
            raise TypeError(
                "msign: vjp=rule(G, M, O) gives reverse mode alone; for forward mode choose one of the rules by name"
            )
        return fitting(vjp(G, M, y), M)
    if M.shape[-2] < M.shape[-1]:
        return by_rule(M.mT, y.mT, G.mT, eps, method, steps, coefficients, vjp, jvp).mT
    if vjp == "solve":
        return polar_derivative(M, y, G, steps, coefficients)
    if vjp == "dense":
        return msign_dense_vjp(M, G, steps=steps, O=y)
    if vjp == "unrolled":
        return _through_steps(M, G, eps, fixed_rows(steps, coefficients), jvp)
    factors = (None,) * 6
    if not (isinstance(M, Tensor) or isinstance(G, Tensor)):
        factors = _msign_closed_form.primitive.forward(BACKENDS[type(M)].xp, M, eps, vjp)[1]
    return _derivative(M, y, G, eps, vjp, factors, jvp)


def fitting(gradient, M):
    """What a user's rule returned, if it can be the gradient of M."""
    x, like = raw(gradient), raw(M)
    if type(x) is not type(like) or x.shape != like.shape or x.dtype != like.dtype:
        what = f"{x.dtype} of shape {x.shape}" if hasattr(x, "dtype") else type(x).__name__
        raise ValueError(
            f"msign: vjp= returned {what} ({type(x).__name__}) for M {like.dtype} of shape {like.shape}"
            f" ({type(like).__name__}); expected an array like M"
        )
    return gradient


def _through_steps(M, G, eps, rows, jvp):
    """The derivative of the rows X <- X (a I + b S + c S S), S = X^T X, run from M / ||M||_F, for tall M.

    The iteration applies an odd function to the singular values of X, so its Jacobian is symmetric. Autodiff would walk
    back through the steps. A tangent that goes forward through them once more gives the same, and no step is kept.
    """
    squared, identity = _inner(M, M), _identity(M)
    size = _safe(squared) ** 0.5
    unit = M / size
    if jvp:
        G = G - _inner(G, unit) * unit
    scale = (1 + M.shape[-1] * eps**2) ** -0.5
    X, D = unit * scale, G * scale
    if eps:  # the lower block e I does not change
        lower = 0 * M[..., : M.shape[-1], :] + eps * scale * identity
        X, D = concat([X, lower], axis=-2), concat([D, 0 * lower], axis=-2)
    for a, b, c in rows:
        S, dS = times(X.mT, X), times(X.mT, D)
        dS = dS + dS.mT
        dT = S @ dS
        dT = c * (dT + dT.mT) + b * dS
        T = c * (S @ S) + b * S + a * identity
        X, D = X @ T, D @ T + X @ dT
    D = D[..., : M.shape[-2], :] / size * (raw(squared) != 0)
    return D if jvp else D - _inner(D, unit) * unit


@primitive(
    vjp=lambda g, M, y, eps, method, steps, coefficients, vjp: by_rule(
        M, y, g, eps, method, steps, coefficients, vjp
    ),
    jvp=lambda t, M, y, eps, method, steps, coefficients, vjp: by_rule(
        M, y, t, eps, method, steps, coefficients, vjp, jvp=True
    ),
    formula=r"\bar M = \mathrm{rule}(\bar Y, M, Y)",
    source="Su Jianlin, equations 13, 14 and 20 to 23; docs/msign.md",
    notes="the rule is the one that the call names, right or wrong",
    floats=True,
    flops=dense(60),
)  # fmt: skip
def _msign(xp, M, /, eps=0.0, method="newton_schulz", steps=None, coefficients=None, vjp="solve"):
    """As ``msign`` with ``vjp=``: the value of ``method``, the derivative of another rule."""
    check_matrices("msign", M, name="M", lapack=False)
    if M.shape[-2] < M.shape[-1]:
        return _msign.primitive.forward(xp, M.mT, eps, method, steps, coefficients, vjp).mT
    if method != "newton_schulz":
        return _msign_closed_form.primitive.forward(xp, M, eps, method)[0]
    if eps:
        return orthogonalise_smooth(xp, M, eps, steps, coefficients)[0]
    return orthogonalise(xp, M, steps, coefficients, warn=True)
