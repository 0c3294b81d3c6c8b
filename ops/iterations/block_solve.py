"""Newton-Schulz on [[A, K], [0, -A]]: the equation P W + W P = C, for symmetric positive definite P, on raw arrays.

Source: Su Jianlin, The derivative of msign, equations (6) and (21); docs/msign.md, section 2.
"""

from typing import Any

import numpy

from tinygrad_ms.ops.fused.calls import lyapunov
from tinygrad_ms.ops.iterations.coefficients import roundoff, rows_to_one, schedule_for
from tinygrad_ms.ops.iterations.driver import (
    Iteration,
    Workspace,
    cache_slices,
    diagonal,
    is_numpy,
    iterate,
    normalise,
    residual,
    scale_by_power_of_two,
)
from tinygrad_ms.ops.iterations.kernels import for_device
from tinygrad_ms.ops.iterations.on_device import LyapunovSolveOnDevice
from tinygrad_ms.ops.linalg.parts import per_matrix


class InverseOf:
    """P^{-1} as a raw array, a constant of the tape. The eigenvalues of P lie in [1 / spread, spread]."""

    __slots__ = ("matrix", "spread")

    def __init__(self, matrix, spread):
        self.matrix, self.spread = matrix, spread

    @property
    def top(self):
        """A bound, a little above the largest eigenvalue of (P + P^{-1}) / 2. The least eigenvalue is one."""
        return 1.01 * (self.spread + 1 / self.spread) / 2

    def __getitem__(self, part):
        return InverseOf(self.matrix.reshape((-1,) + self.matrix.shape[-2:])[part], self.spread)

    def __repr__(self):
        return f"InverseOf(spread={self.spread:.3g})"


class LyapunovSolve(Iteration):
    """mcsgn of [[A, K], [0, -A]] by its blocks: 7 products a step, 8 with the inverse of A (the product of the T).

    A = P / ||P||_F is symmetric; the limit of K is twice the solution of A Y + Y A = K. ``parity`` -1: K is skew,
    +1: symmetric; then A K = parity (K A)^T saves two products. 0: any K. Two blocks that meet the same factor are
    one product:

        [Q, R] = [K, A] A      D = Q - A K      R += p I
        [T, Q] = [R, D] R      N = Q + R D      T += q I
        [K, A] = [N, T] A      K += T K         J = J T

    Rounding makes the iterates slightly unsymmetric. A polishing step removes such errors up to second order, so the
    symmetry is restored once, at the end. Where P^{-1} is known, Newton's step A <- (A + A^{-1}) / 2 and
    K <- (K + A^{-1} K A^{-1}) / 2 comes first. It takes two products, and saves two or three rows.
    """

    arrays = ("KA", "back", "NTQRD", "J", "J_next", "norm", "power")
    results = ("KA", "J")

    def __init__(self, xp, workspace, P, C, parity, start, with_inverse, inverse=None):
        self.xp, self.parity, self.start = xp, parity, start
        batch, n, dtype = P.shape[0], P.shape[-1], P.dtype
        self.KA, self.back = workspace("KA", 2, batch, n, n), workspace("back", 2, batch, n, n)
        self.NTQRD = workspace("NTQRD", 5, batch, n, n, pad=bool(parity))
        self.J = self.J_next = None
        if with_inverse:
            self.J, self.J_next = xp.zeros((batch, n, n), dtype), workspace("J", batch, n, n)
            diagonal(self.J, n)[...] = 1 / start
        self.bind()
        K, A = self.KA
        if inverse is None:
            xp.add(P, P.mT, out=self.Q)  # twice the symmetric part
            self.norm = normalise(xp, self.Q, A, start, self.back[1])
        else:
            xp.add(P, inverse.matrix, out=self.Q)
            xp.add(self.Q, self.Q.mT, out=self.R)
            self.norm = xp.full((batch,), 4 * inverse.top, dtype)
            xp.multiply(self.R, 1 / (4 * inverse.top * start), out=A)
        if parity:  # twice the part of C of this parity
            (xp.add if parity > 0 else xp.subtract)(C, C.mT, out=self.Q)
        else:
            xp.multiply(C, 2, out=self.Q)
        self.power = scale_by_power_of_two(xp, self.Q, K)[0]  # the solution is linear in K, so K may have any scale
        if inverse is not None:
            xp.matmul(inverse.matrix, K, out=self.Q)
            xp.matmul(self.Q, inverse.matrix, out=self.D)
            K += self.D

    def bind(self):
        n = self.KA.shape[-1]
        blocks = self.NTQRD
        self.N, self.T, self.Q, self.R, self.D = blocks[..., :n]
        self.NT, self.TQ, self.QR, self.RD = (blocks[i : i + 2] for i in range(4))
        self.T_diagonal, self.R_diagonal = diagonal(blocks[1], n), diagonal(blocks[3], n)

    def times(self, pair, X, out):
        """out <- pair X for a pair of blocks. For a single matrix the pair is one tall matrix: one product, not two.

        For a batch NumPy multiplies both blocks in one call. CuPy gets two calls, because it computes pointers for
        products that broadcast.
        """
        xp, n = self.xp, X.shape[-1]
        if X.shape[0] == 1:
            tall, out = (blocks.reshape(1, -1, blocks.shape[-1])[..., :n] for blocks in (pair, out))
            xp.matmul(tall, X, out=out)
        elif is_numpy(xp):
            xp.matmul(pair[..., :n], X, out=out[..., :n])
        else:
            for block, result in zip(pair, out):
                xp.matmul(block, X, out=result)

    def square(self):
        self.times(self.KA, self.KA[1], out=self.QR)

    def other_side(self, X, K, sign, out):
        """out <- Q + sign X K, where Q = K X. If K has the parity s, then X K = s Q^T. D has the parity -s."""
        xp, Q = self.xp, self.Q
        if self.parity:
            (xp.add if self.parity < 0 else xp.subtract)(Q, Q.mT, out=out)
        else:
            xp.matmul(X, K, out=out)
            (xp.add if sign > 0 else xp.subtract)(Q, out, out=out)

    def update(self, p, q, last=False):
        xp = self.xp
        K, A = self.KA
        self.other_side(A, K, -1, out=self.D)
        self.R_diagonal += p
        if q is None:
            xp.copyto(self.N, self.D)
            xp.copyto(self.T, self.R)
        else:
            self.times(self.RD, self.R, out=self.TQ)
            self.other_side(self.R, self.D, 1, out=self.N)
            self.T_diagonal += q
        if last:
            xp.matmul(self.N, A, out=self.back[0])
        else:
            self.times(self.NT, A, out=self.back)
        xp.matmul(self.T, K, out=self.Q)
        self.KA, self.back = self.back, self.KA
        self.KA[0] += self.Q
        if self.J is not None:
            xp.matmul(self.J, self.T, out=self.J_next)
            self.J, self.J_next = self.J_next, self.J

    def run(self, pairs, last=False):
        K, A = self.KA
        if not last or self.J is not None or lyapunov(K, A, self.back[0], pairs, self.parity) is None:
            return super().run(pairs, last)
        self.KA, self.back = self.back, self.KA

    def residual(self, scale):
        return residual(self.xp, self.R, self.R_diagonal, scale, self.norm)

    def rescale(self, factor):
        self.KA *= factor
        self.R *= factor * factor
        self.Q *= factor * factor
        if self.J is not None:
            self.J *= factor

    def write(self, end, W, J):
        """Write the solution, and the inverse of P if it is wanted, from iterates of the scale ``end``."""
        xp, K = self.xp, self.KA[0]
        inverse_norm = xp.where(self.norm == 0, 0, 1 / self.norm)  # P = 0 gives zero by convention
        if self.parity:
            (xp.add if self.parity > 0 else xp.subtract)(K, K.mT, out=W)
            W *= per_matrix(xp.ldexp(inverse_norm * (end / (4 * self.start)), self.power))
        else:
            xp.multiply(K, per_matrix(xp.ldexp(inverse_norm * (end / (2 * self.start)), self.power)), out=W)
        if J is not None:
            xp.multiply(self.J, per_matrix(2 * end * inverse_norm), out=J)


def solve_symmetric(xp, P, C, parity=0, with_inverse=False, steps=None, coefficients=None, inverse=None):
    """The solution W of P W + W P = C for symmetric positive definite P, by mcsgn, and P^{-1} if ``with_inverse``.

    P and C have the same shape (..., n, n). P stands for its symmetric part. ``parity`` -1 or +1 takes the skew or the
    symmetric part of C. If a fixed number of steps ends before convergence, W is that part of the derivative of the
    truncated iteration. So it stays bounded however ill-conditioned P is. ``inverse``: P^{-1} where it is known (an
    ``InverseOf``); it also determines the rows.
    """
    if inverse is not None:
        steps, coefficients = None, rows_to_one(1 / inverse.top, 64 * roundoff(P.dtype))
    schedule = schedule_for(P.shape, P.dtype, steps, coefficients)
    if P.size == 0:
        return (xp.zeros(P.shape, P.dtype),) * 2 if with_inverse else xp.zeros(P.shape, P.dtype)
    P3, C3 = (x.reshape((-1,) + x.shape[-2:]) for x in (P, C))
    J: Any
    W, J = xp.empty(P3.shape, P.dtype), xp.empty(P3.shape, P.dtype) if with_inverse else None
    with numpy.errstate(all="ignore"):
        workspace, kind = Workspace(xp, P.dtype), LyapunovSolveOnDevice if for_device(P) else LyapunovSolve
        for part in cache_slices(P3, 9):
            start, here = schedule.chunks[0][0], inverse and inverse[part]
            iteration = kind(xp, workspace, P3[part], C3[part], parity, start, with_inverse, here)
            iterate(xp, schedule, iteration)
            iteration.write(schedule.end, W[part], J[part] if with_inverse else None)
    return (W.reshape(P.shape), J.reshape(P.shape)) if with_inverse else W.reshape(P.shape)
