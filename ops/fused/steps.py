"""The steps of optimizers on vectors, in place and in one pass. They round like the formulas in NumPy."""

from math import sqrt

from tinygrad_ms.ops.fused.kernels import each

__all__: list[str] = []


@each(dtypes="fd", wide=False, exact=True, into=(0,))
def scaled(g, /, factor):
    """g times factor, as in ``clip_grad_norm``."""
    return g * factor


@each(dtypes="fd", wide=False, exact=True, into=(0,))
def sgd(p, g, /, lr, decay):
    """p - lr (g + decay p)."""
    g = g + p * decay if decay != 0.0 else g
    return p - g * lr


@each(dtypes="fd", wide=False, exact=True, into=(0, 2))
def sgd_momentum(p, g, m, /, lr, momentum, share, decay, nesterov):
    """m <- momentum m + share g, and p - lr m, or with Nesterov's momentum p - lr (g + momentum m)."""
    g = g + p * decay if decay != 0.0 else g
    m = m * momentum + (g * share if share != 1.0 else g)
    step = g + m * momentum if nesterov != 0.0 else m
    return p - step * lr, m


@each(dtypes="fd", wide=False, exact=True, into=(0, 2, 3))
def adam(p, g, m, v, /, b1, c1, b2, c2, eps, rate, decay, shrink):
    """The step of Adam. ``decay`` is added to the gradient, and p shrinks first."""
    p = p * shrink
    g = g + p * decay if decay != 0.0 else g
    m = m * b1 + g * c1
    v = v * b2 + g * g * c2
    return p - m / (sqrt(v) + eps) * rate, m, v
