"""The iterations of ``polar`` and ``block_solve`` for devices: the same steps in fewer launches.

Products are calls of BLAS with flags for transposes (``launches/products``), and what lies between them is one kernel:

    msign, four a step:   S = X^T X,   T = S S,   T <- T + 2 p S + (p^2 + q) I,   X <- X T
    mcsgn, six a step:    [Q; R] = [K; A] A,   D = Q +- Q^T and R += p I,   [T; Q] = [R; D] R,
                          N = Q -+ Q^T and T += q I,   [K; A] <- [N; T] A,   K += T K

The blocks of one matrix lie below each other, so that a pair of them is one tall matrix in a batch, too.
"""

from math import sqrt

from tinygrad_ms.launches.products import product
from tinygrad_ms.ops.iterations.driver import Iteration, diagonal, residual
from tinygrad_ms.ops.iterations.kernels import (
    combined,
    completed,
    largest_elements_of,
    relative,
    relative_norms,
    relative_part,
    rescaled,
)
from tinygrad_ms.ops.linalg.parts import per_matrix

__all__: list[str] = []


def normalised(xp, x, out, scale):
    """out <- x / (scale ||x||_F) per matrix, 0 for 0; returns the largest element and the norm relative to it."""
    top = largest_elements_of(xp, x)
    norm = relative_norms(xp, x, top)
    relative(x, per_matrix(top), per_matrix(norm), scale, out)
    return top, norm


# --- msign ----------------------------------------------------------------------------------------------------------


class OrthogonaliseOnDevice(Iteration):
    """As ``polar.Orthogonalise``."""

    arrays = ("X", "back", "S", "T", "top", "relative")
    results = ("X",)

    def __init__(self, xp, workspace, M, start, mcsgn=False, eps=0.0, out=None):
        self.xp, self.mcsgn, self.out = xp, mcsgn, out
        batch, m, n = M.shape
        rows = m + n if eps else m
        self.X, self.back = workspace("X", batch, rows, n), workspace("back", batch, rows, n)
        self.S, self.T = workspace("S", batch, n, n), workspace("T", batch, n, n)
        scale = start * sqrt(1 + n * eps * eps)
        self.top, self.relative = normalised(xp, M, self.X[:, :m], scale)
        if mcsgn == "trace":  # M / (tr M^2)^{1/2}: Su Jianlin, equation 6
            self.X *= per_matrix(1 / (scale * xp.sqrt((self.X * self.X.mT).sum(axis=(1, 2)))))
        self.identity = eps / scale

    @property
    def norm(self):
        return (self.top * self.relative).astype(self.top.dtype)

    def square(self):
        n = self.X.shape[-1]
        X = self.X[:, : -n if self.identity else None]
        product(self.xp, X if self.mcsgn else X.mT, X, out=self.S)
        if self.identity:
            shift(self.S, self.identity**2)

    def update(self, p, q, last=False):
        xp, T, n = self.xp, self.S, self.X.shape[-1]
        if q is None:
            shift(T, p)
        else:
            T = product(xp, self.S, self.S, out=self.T)
            completed(self.S, T, 2 * p, p * p + q, n, T)
        new = self.out if last and self.out is not None else self.back
        if self.identity:
            product(xp, self.X[:, :-n], T, out=new[:, :-n])
            xp.multiply(T, self.identity, out=new[:, -n:])
            self.identity = 0.0
        else:
            product(xp, self.X, T, out=new)
        self.X, self.back = new, self.X

    def residual(self, scale):
        return residual(self.xp, self.S, diagonal(self.S, self.S.shape[-1]), scale, self.norm)

    def rescale(self, factor):
        self.X *= factor
        self.S *= factor * factor


def shift(S, p):
    """S += p I."""
    view = diagonal(S, S.shape[-1])
    view += p


# --- P W + W P = C --------------------------------------------------------------------------------------------------


class LyapunovSolveOnDevice(Iteration):
    """As ``block_solve.LyapunovSolve``."""

    arrays = ("KA", "back", "blocks", "J", "J_next", "size", "relative", "top")
    results = ("KA", "J")

    def __init__(self, xp, workspace, P, C, parity, start, with_inverse, inverse=None):
        self.xp, self.parity, self.start = xp, parity, start
        batch, n, dtype = P.shape[0], P.shape[-1], P.dtype
        self.KA, self.back = workspace("KA", batch, 2 * n, n), workspace("back", batch, 2 * n, n)
        self.blocks = workspace("blocks", batch, 5 * n, n)
        self.J = self.J_next = None
        if with_inverse:
            self.J, self.J_next = xp.zeros((batch, n, n), dtype), workspace("J", batch, n, n)
            shift(self.J, 1 / start)
        self.bind()
        K, A, Q, D = self.KA[:, :n], self.KA[:, n:], self.Q, self.D
        if inverse is None:
            xp.add(P, P.mT, out=Q)  # twice the symmetric part
            self.size, self.relative = normalised(xp, Q, A, start)
        else:
            whole = xp.add(P, inverse.matrix)
            self.size, self.relative = xp.ones(batch, dtype), xp.full(batch, 4 * inverse.top, "float64")
            relative_part(whole, whole.mT, self.size.reshape(-1, 1, 1) * (4 * inverse.top * start), 1.0, A)
        self.top = largest_elements_of(xp, C)
        # twice the part of C of this parity; K enters linearly: any scale will do
        relative_part(C, C.mT if parity else C, per_matrix(self.top), parity or 1, K)
        if inverse is not None:
            product(xp, inverse.matrix, K, out=Q)
            product(xp, Q, inverse.matrix, out=D)
            K += D

    def bind(self):
        n = self.blocks.shape[-1]
        self.N, self.T, self.Q, self.R, self.D = (self.blocks[:, i * n : (i + 1) * n] for i in range(5))
        self.NT, self.TQ, self.QR, self.RD = (self.blocks[:, i * n : (i + 2) * n] for i in range(4))

    def square(self):
        product(self.xp, self.KA, self.KA[:, self.KA.shape[-1] :], out=self.QR)

    def other_side(self, X, K, sign, shifted, p, out):
        """out <- Q + sign X K, where Q = K X, and shifted += p I. For K of a parity s X K = s Q^T, and D has -s."""
        if self.parity:
            other, sign = self.Q.mT, -self.parity
        else:
            other = product(self.xp, X, K, out=out)
        combined(self.Q, other, shifted, sign, p, self.Q.shape[-1], out, shifted)

    def update(self, p, q, last=False):
        xp, n = self.xp, self.blocks.shape[-1]
        K, A, new = self.KA[:, :n], self.KA[:, n:], self.back[:, :n]
        self.other_side(A, K, -1, self.R, p, self.D)
        if q is None:
            self.N[...], self.T[...] = self.D, self.R
        else:
            product(xp, self.RD, self.R, out=self.TQ)
            self.other_side(self.R, self.D, 1, self.T, q, self.N)
        if last:
            product(xp, self.N, A, out=new)
        else:
            product(xp, self.NT, A, out=self.back)
        product(xp, self.T, K, out=new, beta=1.0)
        self.KA, self.back = self.back, self.KA
        if self.J is not None:
            product(xp, self.J, self.T, out=self.J_next)
            self.J, self.J_next = self.J_next, self.J

    def residual(self, scale):
        R = self.xp.ascontiguousarray(self.R)
        return residual(self.xp, R, diagonal(R, R.shape[-1]), scale, (self.size * self.relative).astype(R.dtype))

    def rescale(self, factor):
        self.KA *= factor
        self.QR *= factor * factor
        if self.J is not None:
            self.J *= factor

    def write(self, end, W, J):
        """Write the solution, and the inverse of P where asked, for the scale ``end`` of the iterates."""
        K = self.KA[:, : self.KA.shape[-1]]
        top, size, norm = map(per_matrix, (self.top, self.size, self.relative))
        other = K.mT if self.parity else K
        rescaled(K, other, self.parity or 1, top, size, norm, end / (4 * self.start), W)
        if J is not None:
            rescaled(self.J, self.J, 1.0, size * 0 + 1, size, norm, end, J)
