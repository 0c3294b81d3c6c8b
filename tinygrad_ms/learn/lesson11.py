"""Three layouts for one derivative"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

A = np.array([[1.0, 2.0, 0.5], [-1.0, 0.5, 3.0]])
S = np.array([[2.0, 0.5, 0.0], [1.0, 3.0, -1.0], [0.0, 0.5, 1.5]])


@exercise((A, 2), (A.T, 2), truth=lambda A, n: frame.jacobian(lambda X: A @ X, np.zeros((A.shape[1], n))))
def product_numerator(A, n):
    """The Jacobian of A X by X in numerator layout. X has `n` columns. Elements are counted along the rows of a
    matrix, as NumPy's `ravel` does."""
    return np.kron(A, np.eye(n))


product_numerator.wrong("That is A: so it would be for a single column.", lambda A, n: A)
product_numerator.wrong(
    "That is the denominator layout. In numerator layout a row belongs to an element of the result.",
    lambda A, n: np.kron(A.T, np.eye(n)),
)
product_numerator.wrong(
    "That counts elements down the columns. Along the rows, the factors of the Kronecker product change places.",
    lambda A, n: np.kron(np.eye(n), A),
)


@exercise(S, S.T + np.eye(3), truth=lambda X: frame.jacobian(np.linalg.inv, X).T)
def inverse_denominator(X):
    """The Jacobian of the inverse of `X` in denominator layout (a row for each element of X)."""
    inverse = np.linalg.inv(X)
    return np.kron(-inverse.T, inverse)


inverse_denominator.wrong("That is the numerator layout.", lambda X: np.kron(-np.linalg.inv(X), np.linalg.inv(X).T))
inverse_denominator.wrong(
    "The sign is wrong. What is the derivative of 1/x?", lambda X: np.kron(np.linalg.inv(X).T, np.linalg.inv(X))
)
inverse_denominator.wrong(
    "Both factors are the same matrix. In d(X⁻¹) = -X⁻¹ dX X⁻¹ they stand on two sides of dX: one enters transposed.",
    lambda X: np.kron(-np.linalg.inv(X), np.linalg.inv(X)),
)


def permutation(m, n):
    return np.eye(m * n)[np.arange(m * n).reshape(m, n).T.ravel()]


@exercise(
    (2, 3), (4, 2), truth=lambda m, n: frame.jacobian(np.transpose, np.arange(m * n, dtype=float).reshape(m, n)).round()
)
def transpose_numerator(m, n):
    """The Jacobian of Xᵀ by X in numerator layout, for X of shape (m, n): a square matrix of zeros and ones."""
    return np.eye(m * n)[np.arange(m * n).reshape(m, n).T.ravel()]


transpose_numerator.wrong(
    "That is the identity: the Jacobian of X itself. Where does element (1, 0) of X go?", lambda m, n: np.eye(m * n)
)
transpose_numerator.wrong(
    "Rows and columns have changed places: a row belongs to an element of the result.", lambda m, n: permutation(m, n).T
)
transpose_numerator.wrong(
    "The elements are read backwards. Transposing does not do that.", lambda m, n: np.eye(m * n)[::-1]
)
