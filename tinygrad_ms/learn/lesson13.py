"""Your own operation, and second derivatives"""

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise


def root(x):
    """The y with y + y³ = x, by halving."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if middle + middle**3 < x else (low, middle)
    return low


@exercise((1.0, root(3.0)), (-2.0, root(0.4)), (0.5, root(-5.0)),
          truth=lambda g, y: g * frame.gradient(root, y + y**3))  # fmt: skip
def solver_rule(g, y):
    """A solver finds the y with y + y³ = x. `g` arrives at its result `y`; what does the rule send to x?
    Differentiate the equation, not the solver."""
    return g / (1 + 3 * y**2)


solver_rule.wrong("That is dx/dy. Asked for is dy/dx.", lambda g, y: g * (1 + 3 * y**2))
solver_rule.wrong("What arrives, g, is left out.", lambda g, y: 1 / (1 + 3 * y**2))
solver_rule.wrong("The equation has two terms with y; one of them is missing.", lambda g, y: g / (3 * y**2))


def hilly(v):
    """v0³ + v0 v1² + 5 v1²"""
    return v[0] ** 3 + v[0] * v[1] ** 2 + 5 * v[1] ** 2


def mixed(v):
    """v0 v1 v2 + v2² + v0² + 2 v1²"""
    return v[0] * v[1] * v[2] + v[2] ** 2 + v[0] ** 2 + 2 * v[1] ** 2


def steepest(f, x):
    return frame.jacobian(f, x, h=1e-2).ravel()


def curvature(f, x):
    return frame.jacobian(lambda x: steepest(f, x), x, h=1e-2)


AT = ((hilly, np.array([1.0, 2.0])), (mixed, np.array([0.5, -1.0, 2.0])))


@exercise(
    (*AT[0], np.array([1.0, -1.0])), (*AT[1], np.array([0.3, 1.0, -2.0])), truth=lambda f, x, v: curvature(f, x) @ v
)
def hessian_times(f, x, v):
    """The Hessian of `f` at `x` times the vector `v`, as a vector. `f` takes a tensor or an array. (With
    `tg.grad` it needs no table; a table is right, too.)"""
    return tg.grad(lambda x: (tg.grad(f)(x) * v).sum())(x)


hessian_times.wrong("That is the gradient times v: only one derivative.", lambda f, x, v: tg.grad(f)(x) * v)
hessian_times.wrong(
    "That is the number vᵀ H v. Asked for is the vector H v.", lambda f, x, v: v @ tg.hvp(f, x, v).numpy()
)
hessian_times.wrong(
    "It uses the diagonal alone. Each pair of variables has a second derivative.",
    lambda f, x, v: np.diag(tg.hessian(f, x).numpy()) * v,
)


@exercise(*AT, truth=lambda f, x: x - np.linalg.inv(curvature(f, x)) @ steepest(f, x))
def newton_step(f, x):
    """One step of Newton's method for the bottom of `f`, from `x` on. Return the new point."""
    return x - np.linalg.solve(tg.hessian(f, x).numpy(), tg.grad(f)(x).numpy())


newton_step.wrong(
    "It goes the wrong way.", lambda f, x: x + np.linalg.solve(tg.hessian(f, x).numpy(), tg.grad(f)(x).numpy())
)
newton_step.wrong(
    "It multiplies by the Hessian. The step solves H step = gradient.",
    lambda f, x: x - tg.hessian(f, x).numpy() @ tg.grad(f)(x).numpy(),
)
newton_step.wrong(
    "That is a step of gradient descent; the curvature is not used.", lambda f, x: x - tg.grad(f)(x).numpy()
)
