"""The chain rule by hand"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise


@exercise(0.9, 1.2, 0.5, truth=lambda x: frame.gradient(lambda x: np.log(np.sin(x**3) ** 2), x))
def log_sin_slope(x):
    """The slope of y = ln(sin(x³)²) at `x`, as the product of four derivatives."""
    return 1 / np.sin(x**3) ** 2 * 2 * np.sin(x**3) * np.cos(x**3) * 3 * x**2


log_sin_slope.wrong(
    "The innermost link of the chain, x³, has a derivative, too.",
    lambda x: 1 / np.sin(x**3) ** 2 * 2 * np.sin(x**3) * np.cos(x**3),
)
log_sin_slope.wrong(
    "The derivative of ln is taken at the wrong place: its argument is the square, not the sine.",
    lambda x: 1 / np.sin(x**3) * 2 * np.sin(x**3) * np.cos(x**3) * 3 * x**2,
)
log_sin_slope.wrong(
    "The sign is turned around: check the derivative of the sine.",
    lambda x: -1 / np.sin(x**3) ** 2 * 2 * np.sin(x**3) * np.cos(x**3) * 3 * x**2,
)


@exercise(0.5, -1.0, 2.0, truth=lambda x: frame.gradient(lambda x: np.sin(x + x**2), x))
def total(x):
    """The slope of y = sin(x + x²) at `x`. Two paths lead from x to the sum."""
    return np.cos(x + x**2) * (1 + 2 * x)


total.wrong("The path through x² is missing: paths that meet are added.", lambda x: np.cos(x + x**2))
total.wrong("The direct path of x is missing: paths that meet are added.", lambda x: np.cos(x + x**2) * 2 * x)
total.wrong("The derivative of the sine is missing: along a path the derivatives multiply.", lambda x: 1 + 2 * x)

VECTORS = ((np.array([2.0, 3.0, 4.0]), np.array([0.5, -1.0, 5.0])), (np.array([1.0, -2.0]), np.array([3.0, 0.5])))


@exercise(
    *VECTORS,
    truth=lambda w, x: (
        frame.jacobian(lambda u: u.sum(), w * x), frame.jacobian(lambda w: w * x, w),
        frame.jacobian(lambda w: (w * x).sum(), w),
    ),
)  # fmt: skip
def dot_factors(w, x):
    """y = sum(w ⊗ x) in two lines, u = w ⊗ x and y = sum(u). Return three matrices: the Jacobian of y by u,
    that of u by `w`, and their product. For n elements their shapes are (1, n), (n, n) and (1, n)."""
    ones, diagonal = np.ones((1, len(w))), np.diag(x)
    return ones, diagonal, ones @ diagonal


dot_factors.wrong(
    "The Jacobian by w holds w itself. If one element of w moves, by how much does its product with x change?",
    lambda w, x: (np.ones((1, len(w))), np.diag(w), w[None]),
)
dot_factors.wrong(
    "The three are transposed: here a row belongs to a result, a column to a variable.",
    lambda w, x: (np.ones((len(w), 1)), np.diag(x), x[:, None]),
)
dot_factors.wrong(
    "The Jacobian of u by w is full. Does the first product contain the second weight?",
    lambda w, x: (np.ones((1, len(w))), np.outer(x, np.ones(len(w))), np.full((1, len(w)), x.sum())),
)
