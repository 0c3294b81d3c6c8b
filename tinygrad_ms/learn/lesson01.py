"""A slope by differences"""

import numpy as np

from tinygrad_ms.learn.frame import exercise, gradient


def square(x):
    """x²"""
    return x * x


def cube(x):
    """x³"""
    return x * x * x


def fourth(x):
    """x⁴"""
    return x * x * x * x


QUOTIENTS = {square: lambda x, h: 2 * x, cube: lambda x, h: 3 * x**2 + h**2, fourth: lambda x, h: 4 * x * (x**2 + h**2)}


@exercise((square, 3.0, 0.5), (cube, 2.0, 0.1), (fourth, -1.5, 0.2), truth=lambda f, x, h: QUOTIENTS[f](x, h))
def slope(f, x, h):
    """The slope of `f` at `x` by differences: take a step `h` to either side."""
    return (f(x + h) - f(x - h)) / (2 * h)


slope.wrong(
    "It looks to one side only. Such a slope has an error of the size of h; a step to either side has one of h².",
    lambda f, x, h: (f(x + h) - f(x)) / h,
)
slope.wrong(
    "It divides by one step. How far apart are the two points at which f is taken?",
    lambda f, x, h: (f(x + h) - f(x - h)) / h,
)
slope.wrong(
    "Python divides first and multiplies then: a / 2 * h is (a / 2) · h. A pair of brackets is missing.",
    lambda f, x, h: (f(x + h) - f(x - h)) / 2 * h,
)

PAIRS = ((np.sin, np.cos, np.exp, np.exp, 0.8), (np.exp, np.exp, np.cosh, np.sinh, -0.4))


@exercise(*PAIRS, truth=lambda u, du, v, dv, x: gradient(lambda x: u(x) * v(x), x))
def product_slope(u, du, v, dv, x):
    """The slope of the product u(x) · v(x) at `x`, by the rule. `du` and `dv` are the derivatives of `u` and
    `v`: all four are functions."""
    return du(x) * v(x) + u(x) * dv(x)


product_slope.wrong(
    "The derivative of a product is not the product of the derivatives. How does it change if only u moves?",
    lambda u, du, v, dv, x: du(x) * dv(x),
)
product_slope.wrong("Only u moves here. The product changes when v moves, too.", lambda u, du, v, dv, x: du(x) * v(x))
product_slope.wrong(
    "The two parts are subtracted. A minus belongs to the rule of the quotient.",
    lambda u, du, v, dv, x: du(x) * v(x) - u(x) * dv(x),
)


@exercise(*PAIRS, truth=lambda u, du, v, dv, x: gradient(lambda x: u(x) / v(x), x))
def quotient_slope(u, du, v, dv, x):
    """The slope of the quotient u(x) / v(x) at `x`, by the rule."""
    return (du(x) * v(x) - u(x) * dv(x)) / v(x) ** 2


quotient_slope.wrong(
    "The sign is turned around: which of the two terms has the minus? Think of v = 1, where the slope is that of u.",
    lambda u, du, v, dv, x: (u(x) * dv(x) - du(x) * v(x)) / v(x) ** 2,
)
quotient_slope.wrong(
    "The denominator is v; in the rule v stands there more than once.",
    lambda u, du, v, dv, x: (du(x) * v(x) - u(x) * dv(x)) / v(x),
)
quotient_slope.wrong(
    "The derivative of a quotient is not the quotient of the derivatives.", lambda u, du, v, dv, x: du(x) / dv(x)
)
