"""The peak: msign"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

M = np.array([[1.0, 0.5, -0.3], [0.2, -0.8, 0.4], [0.6, 0.1, 0.9]])
C = np.array([[0.3, -1.0, 0.5], [1.2, 0.4, -0.6], [0.0, 0.7, 1.0]])


def by_eigenvectors(M):
    """(M Mᵀ)^(-1/2) M."""
    values, vectors = np.linalg.eigh(M @ M.T)
    return vectors @ np.diag(values**-0.5) @ vectors.T @ M


@exercise(M, M.T @ C, truth=by_eigenvectors)
def matrix_sign(M):
    """msign(M) = U Vᵀ of a square matrix of full rank, by `np.linalg.svd`."""
    U, _, Vt = np.linalg.svd(M)
    return U @ Vt


def parts(M):
    U, s, Vt = np.linalg.svd(M)
    return U, s, Vt


matrix_sign.wrong(
    "NumPy's third result is Vᵀ already; it is turned around a second time.", lambda M: parts(M)[0] @ parts(M)[2].T
)
matrix_sign.wrong(
    "The singular values are still in it: that is M again.", lambda M: parts(M)[0] * parts(M)[1] @ parts(M)[2]
)
matrix_sign.wrong("That is the sign of each element. The sign of a matrix sets its singular values to 1.", np.sign)


def on_singular_values(M, steps):
    U, s, Vt = np.linalg.svd(M)
    s = s / np.sqrt((s**2).sum())
    for _ in range(steps):
        s = 1.5 * s - 0.5 * s**3
    return (U * s) @ Vt


def iterate(X, steps, square):
    for _ in range(steps):
        X = 1.5 * X - 0.5 * X @ square(X)
    return X


@exercise((M, 1), (M, 4), (M.T @ C, 2), truth=on_singular_values)
def newton_schulz(M, steps):
    """msign by products alone: start at M divided by its Frobenius norm, then so many `steps` X ← 1.5 X - 0.5 X
    Xᵀ X."""
    X = M / np.linalg.norm(M)
    for _ in range(steps):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


newton_schulz.wrong(
    "The start is M itself; it has to be divided by its norm.", lambda M, n: iterate(M, n, lambda X: X.T @ X)
)
newton_schulz.wrong(
    "The norm is the largest singular value. Asked for is that of Frobenius.",
    lambda M, n: iterate(M / np.linalg.norm(M, 2), n, lambda X: X.T @ X),
)
newton_schulz.wrong(
    "The transpose is missing: this iteration works on eigenvalues and leads to mcsgn.",
    lambda M, n: iterate(M / np.linalg.norm(M), n, lambda X: X @ X),
)


def solved(M, C):
    """X with X Oᵀ M + M Oᵀ X = C, and O."""
    U, s, Vt = np.linalg.svd(M)
    return U @ ((U.T @ C @ Vt.T) / (s[:, None] + s)) @ Vt, U @ Vt


@exercise((M, C), (C, M), truth=lambda M, C: frame.gradient(lambda M: (C * by_eigenvectors(M)).sum(), M))
def msign_gradient(M, C):
    """`C` arrives at O = msign(M) of a square matrix of full rank. Return the gradient of M: solve X Oᵀ M + M
    Oᵀ X = C by the singular vectors of M, then G = X - O Xᵀ O."""
    U, s, Vt = np.linalg.svd(M)
    O, X = U @ Vt, U @ ((U.T @ C @ Vt.T) / (s[:, None] + s)) @ Vt
    return X - O @ X.T @ O


msign_gradient.wrong(
    "That is X, half of the way: its second part is still to be subtracted.", lambda M, C: solved(M, C)[0]
)
msign_gradient.wrong(
    "The second part is added.", lambda M, C: solved(M, C)[0] + solved(M, C)[1] @ solved(M, C)[0].T @ solved(M, C)[1]
)
msign_gradient.wrong(
    "X has lost its transpose between the two O.",
    lambda M, C: solved(M, C)[0] - solved(M, C)[1] @ solved(M, C)[0] @ solved(M, C)[1],
)
