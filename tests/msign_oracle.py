"""The two references for msign and its derivative: an 80-bit SVD by one-sided Jacobi rotations, and the closed form."""

import numpy as np

LONG = np.longdouble


def orthonormal(random, rows, columns):
    """Random orthonormal columns to 80-bit precision: QR in float64, then Newton-Schulz."""
    q = np.linalg.qr(random.standard_normal((rows, columns)))[0].astype(LONG)
    for _ in range(3):
        q = q @ (1.5 * np.eye(columns, dtype=LONG) - 0.5 * (q.T @ q))
    return q


def spectrum(kind, n, kappa, random):
    """Singular values with s_1 / s_n = kappa: "geometric", or "repeated", the same in equal pairs between the ends."""
    if kind == "geometric" or n < 4:
        return kappa ** -np.linspace(0, 1, n)
    if kind == "repeated":
        return np.repeat(kappa ** -np.linspace(0, 1, n // 2 + 1), 2)[1 : n + 1]
    raise ValueError(kind)


def matrix(kind, n, m, kappa, dtype, seed=0):
    """A matrix of the kind, n x m with n <= m, rounded to dtype."""
    random = np.random.default_rng(seed)
    if kind == "gaussian":
        return random.standard_normal((n, m)).astype(dtype)
    s = spectrum(kind, n, kappa, random).astype(LONG)
    return ((orthonormal(random, n, n) * s) @ orthonormal(random, m, n).T).astype(dtype)


def svd(M):
    """U, s, V of n x m (n <= m) in 80-bit floats: one-sided Jacobi on the rows, started from the float64 SVD."""
    M, n = M.astype(LONG), M.shape[0]
    U = np.linalg.svd(M.astype(float))[0].astype(LONG)
    for _ in range(2):
        U = U @ (1.5 * np.eye(n, dtype=LONG) - 0.5 * (U.T @ U))
    A = M.T @ U
    for _ in range(6):
        gram = A.T @ A
        size = np.sqrt(np.diag(gram))
        angles = np.triu(np.abs(gram) / (size[:, None] * size), 1)
        if angles.max(initial=0) < 2e-18:
            break
        for i, j in zip(*np.where(angles > 5e-19)):
            a, b, c = A[:, i] @ A[:, i], A[:, j] @ A[:, j], A[:, i] @ A[:, j]
            if abs(c) <= 3e-19 * np.sqrt(a * b):
                continue
            z = (b - a) / (2 * c)
            tangent = (1 if z >= 0 else -1) / (abs(z) + np.sqrt(1 + z * z))
            cosine = 1 / np.sqrt(1 + tangent * tangent)
            rotation = cosine * np.array([[1, tangent], [-tangent, 1]])
            A[:, [i, j]], U[:, [i, j]] = A[:, [i, j]] @ rotation, U[:, [i, j]] @ rotation
    s = np.sqrt((A * A).sum(0))
    return U, s, A / s


def msign_and_gradient(M, G, e=0):
    """msign of full-rank M (..., any orientation) and the derivative in direction G (its own adjoint), by the SVD.

    With e > 0: the smooth msign M (M^T M + e^2 I)^{-1/2} at constant e. Two-dimensional input.
    """
    if M.shape[0] > M.shape[1]:
        O, g = msign_and_gradient(M.T, G.T, e)
        return O.T, g.T
    U, s, V = svd(M)
    h = np.sqrt(s * s + e * e)
    B = U.T @ G.astype(LONG)
    C = B @ V
    f = s / h
    # divided differences of the odd function f(s) = s / h at (s_i, -s_j) and (s_i, s_j): skew and symmetric part
    plus = (f[:, None] + f) / (s[:, None] + s)
    product = h[:, None] * h * (h[:, None] + h)
    minus = e * e * (s[:, None] + s) / ((s[:, None] * h + s * h[:, None]) * h[:, None] * h) if e else 0 * product
    inner = (plus * (C - C.T) + minus * (C + C.T)) / 2
    gradient = U @ inner @ V.T + U @ ((B - C @ V.T) / h[:, None])
    return (U * f) @ V.T, gradient


def closed_form(U, s, V, G, e=0.0):
    """The derivative of msign along matrices of its rank, from all of U and V, one pair of singular vectors at a time.

    With e > 0: that of the smooth msign at constant e. It is its own adjoint. M may be tall or wide.
    """
    E, (n, m) = U.T @ G @ V, G.shape
    row, column = (np.append(s, np.zeros(k - len(s))) for k in (n, m))
    inner = np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            h_i, h_j = np.hypot(row[i], e), np.hypot(column[j], e)
            f_i, f_j = (row[i] / h_i if h_i else 0), (column[j] / h_j if h_j else 0)
            if f_i:
                inner[i, j] = f_i * (f_i * E[i, j] - (f_j * E[j, i] if f_j else 0)) / (h_i + h_j)
            if h_j:
                inner[i, j] += (1 - f_i * f_i) * E[i, j] / h_j
    return U @ inner @ V.T


def error(value, reference):
    """Relative Frobenius error."""
    return float(np.sqrt(((value - reference) ** 2).sum() / (reference**2).sum()))
