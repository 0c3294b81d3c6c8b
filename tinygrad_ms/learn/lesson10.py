"""The trace trick"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

A = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0], [0.0, 1.0, -2.0]])
B = np.array([[0.5, 1.0, -1.0], [2.0, 0.0, 1.0], [1.5, -0.5, 0.25]])
X = np.array([[0.3, -1.0, 2.0], [1.0, 0.4, -0.6], [-0.2, 0.8, 1.1]])


@exercise((A, X), (B, A), truth=lambda A, X: frame.gradient(lambda X: np.trace(X.T @ A @ X), X))
def quadratic(A, X):
    """The gradient of tr(Xᵀ A X) by `X`, for square matrices."""
    return (A + A.T) @ X


quadratic.wrong("That is so for a symmetric A only.", lambda A, X: 2 * A @ X)
quadratic.wrong("X stands there twice; only one of the two moves here.", lambda A, X: A @ X)
quadratic.wrong(
    "Matrices do not change places. Bring dX to the end once more, and keep the order of the others.",
    lambda A, X: X @ (A + A.T),
)


@exercise((A, B, X), (B, X, A), truth=lambda A, B, X: frame.gradient(lambda X: np.trace(A @ X @ B), X))
def sandwich(A, B, X):
    """The gradient of tr(A X B) by `X`, for square matrices."""
    return A.T @ B.T


sandwich.wrong("df = tr(Gᵀ dX): read once more what this is. It is not G yet.", lambda A, B, X: B @ A)
sandwich.wrong(
    "Before the comparison dX has to stand last: turn the product around, tr(PQ) = tr(QP).", lambda A, B, X: A @ B
)
sandwich.wrong(
    "Both are transposed, but in the wrong order. (PQ)ᵀ = Qᵀ Pᵀ, and which product is it?", lambda A, B, X: B.T @ A.T
)


def softmax(Z):
    return np.exp(Z) / np.exp(Z).sum()


SCORES = np.array([[1.0], [-0.5], [2.0], [0.3]])
COUNTS = np.array([[0.0], [1.0], [2.0], [0.0]])


@exercise(
    (SCORES, COUNTS), (SCORES[::-1], COUNTS + 1),
    truth=lambda Z, Y: frame.gradient(lambda Z: -(Y.T @ np.log(softmax(Z))).item(), Z),
)  # fmt: skip
def counted_softmax(Z, Y):
    """The gradient of -Yᵀ log softmax(Z) by the column `Z`. The column `Y` counts how often each class was
    seen: it adds up to any number, not to 1."""
    p = np.exp(Z - Z.max())
    return Y.sum() * p / p.sum() - Y


counted_softmax.wrong("That is so for labels that add up to 1.", lambda Z, Y: softmax(Z) - Y)
counted_softmax.wrong("The sign is turned around.", lambda Z, Y: Y - Y.sum() * softmax(Z))
counted_softmax.wrong("It is a row. The gradient has the shape of Z.", lambda Z, Y: (Y.sum() * softmax(Z) - Y).T)
