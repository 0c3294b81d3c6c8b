"""Other ways to differentiate msign, for comparison and teaching: through the iteration, and by the dense block of 000.

``msign`` is what to use. Relative errors of gradients against 80-bit arithmetic, float64 Gaussian M of 16 x 16 and 16
x 64 (``examples/msign_derivative.py`` prints them anew): through 8 steps, rounding error like msign's own while the
steps converge, for 25 times the memory; the dense block with eps = 1e-3 errs by about 2e-2 and 0.2, for 3.5 and 40
times the work.
"""

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.newton_schulz import check_matrices, orthogonalise, transpose
from tinygrad_ms.ops.quintics import fixed_rows

__all__ = ["msign_dense_vjp", "msign_unrolled"]


def msign_unrolled(M, *, steps=8, coefficients="su"):
    """msign(M) (..., n, m) as ``steps`` recorded Newton-Schulz steps: its derivative is that of the truncated
    iteration.

    Every step keeps its matrices for backward, steps (2 n^2 + n m) numbers where ``msign`` keeps n m; wrap the call in
    ``checkpoint`` to keep M alone and compute the steps twice. Not for M = 0, or scales whose squares leave the range.
    Source: 000 (8).
    """
    if M.shape[-2] > M.shape[-1]:
        return msign_unrolled(M.mT, steps=steps, coefficients=coefficients).mT
    X = M / (M * M).sum(axis=(-2, -1), keepdims=True) ** 0.5
    for a, b, c in fixed_rows(steps, coefficients):
        S = X @ X.mT
        X = a * X + (b * S + c * (S @ S)) @ X
    return X


def msign_dense_vjp(M, G, *, eps=1e-3, steps=8):
    """The gradient of <G, msign(M)> as the source computes it: mcsgn of one dense (n + m) x (n + m) matrix.

    With O = msign(M), A = M O^T, B = O^T M: X is half the corner of -mcsgn([[A + eps I, -G], [0, -B - eps I]]), and the
    gradient X - O X^T O. M and G are raw arrays (..., n, m); M is scaled by its norm before the absolute ``eps`` is
    added, else a small M loses its gradient. The error is of the order of eps ||M||_F / s_n for square M; for
    rectangular M tens of percent, since one of A, B is singular. Source: 000, the last two equations.
    """
    if isinstance(M, Tensor) or isinstance(G, Tensor):
        raise TypeError("msign_dense_vjp: M and G are raw arrays here; pass tensor.data")
    check_matrices("msign_dense_vjp", M)
    xp = BACKENDS[type(M)].xp
    n, m = M.shape[-2:]
    norm = xp.sqrt((M * M).sum(axis=(-2, -1), keepdims=True))
    M = M / norm
    O = orthogonalise(xp, M, steps, "su")
    block = xp.zeros((*M.shape[:-2], n + m, n + m), M.dtype)
    block[..., :n, :n] = M @ transpose(O) + eps * xp.eye(n, dtype=M.dtype)
    block[..., n:, n:] = -(transpose(O) @ M) - eps * xp.eye(m, dtype=M.dtype)
    block[..., :n, n:] = -G
    with numpy.errstate(all="ignore"):
        X = orthogonalise(xp, block, steps, "su", square=True)[..., :n, n:] / -2
        return (X - O @ transpose(X) @ O) / norm
