"""Samples of ops/linalg/solve.py, least_squares.py and functions.py: matrices far from singular, batches."""

import numpy as np
import scipy.linalg

from tests.samples import Sample, normal


def regular(*shape, seed=0):
    """Square matrices with singular values near 1 ... 3."""
    return normal(*shape, seed=seed) * 0.3 + 2 * np.eye(shape[-1])


def by_minors(x):
    """The cofactors from their definition: signed determinants of the minors."""
    n = x.shape[-1]
    y = np.empty_like(x)
    for index in np.ndindex(x.shape):
        batch, i, j = index[:-2], index[-2], index[-1]
        minor = np.delete(np.delete(x[batch], i, 0), j, 1)
        y[index] = (-1) ** (i + j) * leibniz(minor)
    return y if n else np.ones_like(x)


def leibniz(x):
    """The determinant by expansion along the first row."""
    if not len(x):
        return 1.0
    return sum((-1) ** j * x[0, j] * leibniz(np.delete(x[1:], j, 1)) for j in range(len(x)))


def each_matrix(function):
    """A reference for one matrix, over a batch."""

    def reference(x, **kwargs):
        values = [np.asarray(function(m, **kwargs)) for m in x.reshape((-1, *x.shape[-2:]))]
        shape = values[0].shape if values else np.asarray(function(np.eye(*x.shape[-2:]), **kwargs)).shape
        return np.reshape(values, (*x.shape[:-2], *shape))

    return reference


def by_minors_of_minors(x, e):
    """The sum of (d cofactor_ij / d x_kl) e_kl: signed determinants with two rows and two columns left out."""
    n, y = len(x), np.zeros_like(x)
    for i, j, k, l in np.ndindex(n, n, n, n):
        if i != k and j != l:
            minor = np.delete(np.delete(x, (i, k), 0), (j, l), 1)
            y[i, j] += (-1) ** (i + j + k + l + (k > i) + (l > j)) * leibniz(minor) * e[k, l]
    return y


def each_pair(function):
    return lambda x, e: np.stack([function(*pair) for pair in zip(x, e)])


def adjugate_inverse(x):
    return by_minors(x).T / leibniz(x)


def gauss(a, b):
    """Gaussian elimination on broadcast batches of systems."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, batch + a.shape[-2:]).copy(), np.broadcast_to(b, batch + b.shape[-2:]).copy()
    n = a.shape[-1]
    for i in range(n):
        for j in range(n):
            if j != i:
                factor = a[..., j, i] / a[..., i, i]
                a[..., j, :] -= factor[..., None] * a[..., i, :]
                b[..., j, :] -= factor[..., None] * b[..., i, :]
    return b / np.diagonal(a, 0, -2, -1)[..., None]


def by_normal_equations(a, b):
    """The least squares of more equations, the shortest solution of fewer."""
    t = np.swapaxes(a, -1, -2)
    return gauss(t @ a, t @ b) if a.shape[-2] >= a.shape[-1] else t @ gauss(a @ t, b)


def triangular_reference(a, b, lower, unit_diagonal):
    a = np.tril(a) if lower else np.triu(a)
    if unit_diagonal:
        a = a * (1 - np.eye(a.shape[-1])) + np.eye(a.shape[-1])
    return gauss(a, b)


def triangular_samples():
    samples = [
        Sample((regular(3, 3), normal(3, 2)), {"lower": lower, "unit_diagonal": unit}, reference=triangular_reference)
        for lower in (False, True)
        for unit in (False, True)
    ]
    options = {"lower": True, "unit_diagonal": False}
    return samples + [
        Sample((regular(2, 3, 3), normal(3, 1)), options, reference=triangular_reference, note="broadcast"),
        Sample((regular(3, 3), normal(2, 3, 2)), options, reference=triangular_reference, note="a batch of columns"),
        Sample((regular(70, 70), normal(70, 2)), options, reference=triangular_reference, order=1, note="blocks"),
        Sample((np.zeros((0, 0)), np.zeros((0, 2))), options, reference=lambda a, b, **_: b, note="empty"),
    ]


def series(x):
    """The exponential by its Taylor series, far along."""
    y = term = np.eye(len(x))
    for k in range(1, 60):
        term = term @ x / k
        y = y + term
    return y


SAMPLES = {
    "inv": [
        Sample((regular(3, 3),), reference=adjugate_inverse, order=3),
        Sample((regular(2, 2, 2),), reference=each_matrix(adjugate_inverse)),
        Sample((np.array([[4.0]]),), reference=lambda x: 1 / x),
        Sample((np.zeros((0, 0)),), reference=lambda x: x, note="empty"),
        Sample((np.zeros((0, 2, 2)),), reference=lambda x: x, note="an empty batch"),
    ],
    "solve": [
        Sample((regular(3, 3), normal(3, 2)), reference=gauss, order=3),
        Sample((regular(2, 3, 3), normal(2, 3, 2)), reference=gauss),
        Sample((regular(3, 3), normal(2, 3, 2)), reference=gauss, note="one matrix for a batch of columns"),
        Sample((regular(2, 3, 3), normal(3, 1)), reference=gauss, note="one right-hand side for a batch"),
        Sample((regular(2, 1, 2, 2), normal(3, 2, 1)), reference=gauss, note="batches broadcast"),
        Sample((np.zeros((0, 0)), np.zeros((0, 2))), reference=lambda a, b: b, note="empty"),
    ],
    "solve_triangular": triangular_samples(),
    "pinv": [
        Sample((normal(4, 2),), reference=scipy.linalg.pinv),
        Sample((normal(2, 3),), reference=scipy.linalg.pinv),
        Sample((regular(2, 2, 2),), reference=each_matrix(scipy.linalg.pinv)),
        Sample((np.zeros((0, 3)),), reference=lambda x: np.zeros((3, 0)), note="empty"),
    ],
    "lstsq": [
        Sample((normal(4, 2), normal(4, 3, seed=1)), reference=by_normal_equations),
        Sample((normal(2, 4), normal(2, 3, seed=1)), reference=by_normal_equations, note="fewer equations"),
        Sample((regular(3, 3), normal(3, 2)), reference=gauss),
        Sample((normal(2, 3, 2), normal(3, 2, seed=1)), reference=by_normal_equations, note="batches broadcast"),
        Sample((normal(3, 2), normal(2, 3, 2, seed=1)), reference=by_normal_equations, note="a batch of columns"),
        Sample((np.zeros((0, 2)), np.zeros((0, 3))), reference=lambda a, b: np.zeros((2, 3)), note="empty"),
        Sample((np.zeros((2, 0)), np.ones((2, 3))), reference=lambda a, b: np.zeros((0, 3)), note="no unknowns"),
    ],
    "cofactors": [
        Sample((regular(3, 3),), reference=by_minors),
        Sample((regular(2, 3, 3, seed=3),), reference=by_minors),
        Sample((np.array([[3.0]]),), reference=np.ones_like, note="one"),
        Sample((np.zeros((0, 0)),), reference=lambda x: x, note="empty"),
    ],
    "cofactors_change": [
        Sample((regular(3, 3), normal(3, 3, seed=1)), reference=by_minors_of_minors),
        Sample((regular(2, 3, 3, seed=3), normal(2, 3, 3, seed=4)), reference=each_pair(by_minors_of_minors)),
        Sample((normal(4, 4, seed=2), normal(4, 4, seed=5)), reference=by_minors_of_minors),
        Sample((np.array([[3.0]]), np.array([[2.0]])), reference=lambda x, e: 0 * x, note="one"),
        Sample((np.zeros((0, 0)), np.zeros((0, 0))), reference=lambda x, e: x, note="empty"),
    ],
    "det": [
        Sample((regular(3, 3),), reference=leibniz, order=3),
        Sample((normal(2, 2, 2, seed=3),), reference=each_matrix(leibniz)),
        Sample((np.zeros((0, 0)),), reference=leibniz, note="empty"),
    ],
    "slogdet": [
        Sample((regular(3, 3),), reference=lambda x: (np.sign(leibniz(x)), np.log(abs(leibniz(x))))),
        Sample((-regular(2, 3, 3),), reference=lambda x: (-np.ones(2), np.log(-each_matrix(leibniz)(x)))),
        Sample((np.zeros((0, 0)),), reference=lambda x: (np.ones(()), np.zeros(())), note="empty"),
    ],
    "expm": [
        Sample((normal(3, 3) * 0.5,), reference=series, order=3),
        Sample((normal(2, 2, 2),), reference=each_matrix(series)),
        Sample((8 * normal(3, 3),), reference=series, note="squarings", tolerance=1e-5),
        Sample((np.zeros((2, 2)),), reference=series, note="zero"),
        Sample((np.array([[0.0, 1.0], [0.0, 0.0]]),), reference=series, note="nilpotent"),
        Sample((np.zeros((0, 0)),), reference=lambda x: x, note="empty"),
    ],
}
for _sample in SAMPLES["expm"]:
    _sample.sync = "the host reads the norm to choose the number of squarings"
