"""Samples of ops/linalg/decompositions.py. Vectors are compared with LAPACK's: their gauge is part of the value."""

import numpy as np

from tests.samples import Sample, normal
from tests.samples.linalg.solve import each_matrix, regular


def positive_definite(*shape, seed=0):
    x = normal(*shape, seed=seed)
    return x @ np.swapaxes(x, -1, -2) + np.eye(shape[-1])


def with_singular_values(*s, rows, columns):
    """A matrix of the given shape and well-separated singular values."""
    u = np.linalg.qr(normal(rows, rows, seed=1))[0][:, : len(s)]
    v = np.linalg.qr(normal(columns, columns, seed=2))[0][:, : len(s)]
    return u @ np.diag(s) @ v.T


def symmetric(x):
    return (x + np.swapaxes(x, -1, -2)) / 2


def row_by_row(x):
    """Cholesky-Banachiewicz."""
    x, n = symmetric(x), len(x)
    y = np.zeros_like(x)
    for i in range(n):
        for j in range(i + 1):
            rest = x[i, j] - y[i, :j] @ y[j, :j]
            y[i, j] = np.sqrt(rest) if i == j else rest / y[j, j]
    return y


def gram_schmidt(x):
    """QR by Gram-Schmidt, twice; the signs of LAPACK."""
    q = np.zeros_like(x)
    for j in range(x.shape[1]):
        v = x[:, j]
        for _ in range(2):
            v = v - q[:, :j] @ (q[:, :j].T @ v)
        q[:, j] = v / np.linalg.norm(v)
    r = q.T @ x
    signs = np.sign(np.diagonal(np.linalg.qr(x)[1]))
    return q * signs, np.triu(r) * signs[:, None]


def jacobi(x):
    """Eigenvalues and eigenvectors by cyclic Jacobi rotations; the signs of LAPACK."""
    x = symmetric(x)
    a, v = x.copy(), np.eye(len(x))
    for _ in range(30):
        for i in range(len(x)):
            for j in range(i):
                angle = 0.5 * np.arctan2(2 * a[i, j], a[j, j] - a[i, i])
                turn = np.eye(len(x))
                turn[i, i] = turn[j, j] = np.cos(angle)
                turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
                a, v = turn.T @ a @ turn, v @ turn
    order = np.argsort(np.diagonal(a))
    v = v[:, order]
    signs = np.sign((v * np.linalg.eigh(x)[1]).sum(0))
    return np.diagonal(a)[order], v * signs


def svd_by_jacobi(x):
    """From the eigenvectors of X^T X or X X^T, whichever is smaller; the signs of LAPACK."""
    if x.shape[0] < x.shape[1]:
        v, s, uh = svd_by_jacobi(x.T)
        signs = np.sign((np.linalg.svd(x, full_matrices=False)[0] * uh.T).sum(0))
        return uh.T * signs, s, (v * signs).T
    w, v = jacobi(x.T @ x)
    s, v = np.sqrt(w)[::-1], v[:, ::-1]
    signs = np.sign((v * np.linalg.svd(x, full_matrices=False)[2].T).sum(0))
    v = v * signs
    return x @ v / s, s, v.T


def batched(reference, count):
    """A reference with several results, over one batch axis."""

    def over_batch(x):
        results = [reference(m) for m in x]
        return tuple(np.stack([r[k] for r in results]) for k in range(count))

    return over_batch


def gaps(w):
    with np.errstate(divide="ignore"):
        y = 1 / (w[..., None, :] - w[..., :, None])
    return np.where(np.isinf(y), 0, y)


EMPTY = np.zeros((0, 0))
TALL = with_singular_values(3.0, 1.5, 0.7, rows=4, columns=3)
WIDE = with_singular_values(2.5, 1.0, rows=2, columns=4)
SQUARE = with_singular_values(3.0, 1.8, 0.6, rows=3, columns=3)
SPREAD = symmetric(normal(3, 3, seed=4)) + np.diag([0.0, 2.0, 5.0])

SAMPLES = {
    "cholesky": [
        Sample((positive_definite(3, 3),), reference=row_by_row, order=3),
        Sample((positive_definite(2, 2, 2),), reference=each_matrix(row_by_row)),
        Sample((positive_definite(3, 3) + np.triu(normal(3, 3), 1),), reference=row_by_row, note="not symmetric"),
        Sample((EMPTY,), reference=lambda x: x, note="empty"),
    ],
    "qr": [
        Sample((regular(3, 3),), reference=gram_schmidt, order=3),
        Sample((normal(4, 2),), reference=gram_schmidt),
        Sample((normal(2, 3, 2),), reference=batched(gram_schmidt, 2)),
        Sample((np.zeros((3, 0)),), reference=lambda x: (x, EMPTY), note="empty"),
    ],
    "inverse_gaps": [
        Sample((np.array([-1.0, 0.5, 2.0]),), reference=gaps),
        Sample((np.array([[3.0, 1.0], [0.2, -0.4]]),), reference=gaps),
        Sample((np.array([2.0]),), reference=lambda w: np.zeros((1, 1)), note="one"),
        Sample((np.zeros(0),), reference=lambda w: EMPTY, note="empty"),
    ],
    "eigh": [
        Sample((SPREAD,), reference=jacobi, order=3),
        Sample((np.stack([SPREAD, -SPREAD]),), reference=batched(jacobi, 2)),
        Sample((SPREAD + np.triu(normal(3, 3), 1),), reference=jacobi, note="not symmetric"),
        Sample((np.array([[2.0]]),), reference=lambda x: (x[0], np.ones((1, 1))), note="one"),
        Sample((EMPTY,), reference=lambda x: (np.zeros(0), x), note="empty"),
    ],
    "eigvalsh": [
        Sample((SPREAD,), reference=lambda x: jacobi(x)[0], order=3),
        Sample((np.stack([SPREAD, -SPREAD]),), reference=each_matrix(lambda x: jacobi(x)[0])),
        Sample((SPREAD + np.triu(normal(3, 3), 1),), reference=lambda x: jacobi(x)[0], note="not symmetric"),
        Sample((EMPTY,), reference=lambda x: np.zeros(0), note="empty"),
    ],
    "inverse_singular_values": [
        Sample((np.array([3.0, 1.0, 0.5]),), reference=lambda s: 1 / s),
        Sample((np.array([[2.0, 1.0], [1.0, 0.25]]),), reference=lambda s: 1 / s),
        Sample((np.zeros(0),), reference=lambda s: s, note="empty"),
    ],
    "svd": [
        Sample((SQUARE,), reference=svd_by_jacobi),
        Sample((TALL,), reference=svd_by_jacobi),
        Sample((WIDE,), reference=svd_by_jacobi),
        Sample((np.stack([TALL, 2 * TALL[::-1]]),), reference=batched(svd_by_jacobi, 3)),
        Sample((np.zeros((0, 2)),), reference=lambda x: (EMPTY, np.zeros(0), x), note="empty"),
    ],
    "svdvals": [
        Sample((SQUARE,), reference=lambda x: svd_by_jacobi(x)[1], order=3),
        Sample((TALL,), reference=lambda x: svd_by_jacobi(x)[1]),
        Sample((np.stack([WIDE, WIDE[:, ::-1]]),), reference=each_matrix(lambda x: svd_by_jacobi(x)[1])),
        Sample((np.zeros((2, 0)),), reference=lambda x: np.zeros(0), note="empty"),
    ],
}
