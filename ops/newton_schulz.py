"""Newton-Schulz iterations on raw arrays: msign, and the mcsgn solve of P W + W P = C.

A step is an odd quintic, x <- a x + b x^3 + c x^5, applied to the singular values of X (msign) or the eigenvalues
of [[A, K], [0, -A]] (mcsgn), by matrix products alone. Completing the square and moving c into the scale of X leaves
two shifts of a diagonal as the only elementwise work of a step of three products:

    a + b s + c s^2 = c (s + b/2c)^2 + (a - b^2/4c),        S = X^T X,  T = (S + p I)^2 + q I,  X <- X T.

Source: 000 (Su Jianlin, the derivative of msign), equations (8), (9), (24). The coefficients are in ``quintics``, the
public ops in ``matrix_functions``.
"""

from copy import copy
from math import prod, sqrt

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.quintics import Plan, hashable, make_plan, rows_to_one


def drive(xp, plan: Plan, iteration) -> None:
    """Run ``plan`` on an iteration: ``gram()`` then ``update(p, q, last)`` for each row.

    Fixed rows run blindly. Adaptive ones read one residual per matrix and step once the first chunk is through: the
    matrices whose residual is below 0.9 polish (all their singular values are above 0.3, none above one by then), the
    others go through the next chunk. Each group goes on by itself: iterating converged float32 matrices further would
    fill them with denormal numbers, which are slow. Polishing takes a residual r to 5/8 r^3: the last step is known
    beforehand.
    """
    if plan.polish is None:
        run(iteration, plan.chunks[0][1], finish=True)
        return
    run(iteration, plan.chunks[0][1])
    finish(xp, plan, iteration, plan.chunks[1:])


def run(iteration, pairs, finish=False):
    for i, (p, q) in enumerate(pairs):
        iteration.gram()
        iteration.update(p, q, last=finish and i + 1 == len(pairs))


def finish(xp, plan, iteration, chunks):
    """Polish what a chunk has brought near one, and give the rest the next of ``chunks``."""
    for polished in range(1, 13):
        iteration.gram()
        residual = iteration.residual(plan.end)  # NaN, as of zero matrices, counts as done
        large = residual > 0.9
        groups = [g for g in (large, ~large & (residual > 0.02), ~(residual > 0.02)) if g.any()]
        if polished == 1 and len(groups) > 1:
            for group in groups:
                index = xp.asarray(numpy.flatnonzero(group))
                part = iteration.take(index)
                finish(xp, plan, part, chunks)
                iteration.put(index, part)
            return
        if polished == 1 and chunks and large.any():
            start, pairs = chunks[0]
            iteration.rescale(plan.end / start)
            run(iteration, pairs)
            finish(xp, plan, iteration, chunks[1:])
            return
        # past the last chunk a large residual means rank deficiency: stop before the noise has grown
        done = not (0.625 * residual**3 > plan.tolerance).any() or polished == (3 if large.any() else 12)
        iteration.update(*plan.polish, last=done)
        if done:
            return


# --- raw arrays ----------------------------------------------------------------------------------------------------


def transpose(x):
    return x.swapaxes(-1, -2)


def diagonal(S, n, first_row=0):
    """A view (batch, n) of the diagonals of the n x n blocks of contiguous S (batch, rows, >= n) from ``first_row``."""
    width = S.shape[-1]
    return S.reshape(S.shape[0], -1)[:, first_row * width : (first_row + n) * width : width + 1]


def squared_norm(xp, x):
    """||x_i||_F^2 of a contiguous batch, as products of a row and a column (one BLAS dot each)."""
    flat = x.reshape(x.shape[0], -1)
    return xp.matmul(flat[:, None, :], flat[:, :, None])[:, 0, 0]


def column(x):
    return x[:, None, None]


def to_range(xp, M, out):
    """out <- M times a power of two per matrix that brings its largest element to [1/2, 1); returns (power, element).

    Squares of the result stay in range.
    """
    largest = xp.maximum(M.max(axis=(1, 2)), -M.min(axis=(1, 2)))
    limit = xp.finfo(M.dtype).maxexp - 4
    power = xp.minimum(xp.maximum(xp.frexp(largest)[1], -limit), limit)
    xp.multiply(M, column(xp.ldexp(xp.ones_like(largest), -power)), out=out)
    return power, largest


def normalise(xp, M, out, scale=1.0, work=None):
    """out <- M / (scale ||M||_F) per matrix and return ||M||_F, without overflow or underflow; 0 stays 0.

    ``work`` holds M in range in between (contiguous; default: out). A matrix with an infinite element has norm NaN.
    """
    work = out if work is None else work
    power, largest = to_range(xp, M, work)
    norm = xp.sqrt(squared_norm(xp, work)) + (largest - largest)
    xp.multiply(work, column(1 / xp.where(norm == 0, 1, norm * scale)), out=out)
    return xp.ldexp(norm, power)


SYMMETRIC_PRODUCT = 1024  # from this size NumPy's X^T X of one array (BLAS syrk) beats the product of two arrays


SLICE_BYTES = 7 * 2**18  # 1.75 MiB: measured best with second-level caches of 1 and 2 MiB


def parts(x, arrays: int):
    """Even slices of the batch whose ``arrays`` of the size of x fit a CPU's cache; one slice on a GPU."""
    count = x.shape[0]
    if not isinstance(x, numpy.ndarray):
        return [slice(0, count)]
    limit = max(1, SLICE_BYTES // (arrays * prod(x.shape[1:]) * x.dtype.itemsize))
    step = -(-count // -(-count // limit))
    return [slice(i, i + step) for i in range(0, count, step)]


class Workspace:
    """Arrays by name that the slices of a batch share; the first slice is the largest.

    With ``pad`` rows whose length is a multiple of 512 bytes lie one or two cache lines further apart, where a CPU
    reads columns about twice as fast: they no longer fall on the same few cache sets. (CuPy's products would copy
    such arrays.)
    """

    def __init__(self, xp, dtype):
        self.xp, self.dtype, self.memory = xp, dtype, {}

    def __call__(self, name, *shape, pad=False):
        if pad and self.xp is numpy and shape[-1] * self.dtype.itemsize % 512 == 0:
            shape = (*shape[:-1], shape[-1] + 16)
        if name not in self.memory:
            self.memory[name] = self.xp.empty(prod(shape), self.dtype)
        return self.memory[name][: prod(shape)].reshape(shape)


def host(x) -> numpy.ndarray:
    return BACKENDS[type(x)].to_host(x)


class Iteration:
    """A batch in progress; ``arrays`` names what has one entry per matrix, ``results`` what a sub-batch returns."""

    arrays: tuple = ()
    results: tuple = ()

    def bind(self):
        """Make the views into the arrays."""

    def take(self, index):
        """The matrices at ``index`` as an iteration of their own."""
        part = copy(self)
        for name in self.arrays:
            if (array := getattr(self, name)) is not None:
                setattr(part, name, array[of_batch(array, index)])
        part.bind()
        return part

    def put(self, index, part):
        for name in self.results:
            if (array := getattr(self, name)) is not None:
                array[of_batch(array, index)] = getattr(part, name)


def of_batch(array, index):
    """The key of the entries ``index`` along the batch, the third axis from the end of matrices."""
    return index if array.ndim == 1 else (..., index, slice(None), slice(None))


class Orthogonalise(Iteration):
    """X <- X T(X^T X) for a batch of tall matrices (msign), or X <- X T(X X) for square ones (``square``: mcsgn).

    With ``eps`` X is [M / ||M||_F; eps I] (smooth msign): the first step spares the products with I. In NumPy S
    and T have a row to spare: so the diagonals of a whole batch lie n + 1 numbers apart, one vector to shift (CuPy's
    products would copy such arrays). ``out``: where the last step may leave X.
    """

    arrays = ("X", "other", "S_rows", "T_rows", "norm")
    results = ("X",)

    def __init__(self, xp, space, M, start, square=False, eps=0.0, out=None):
        self.xp, self.square, self.out = xp, square, out
        batch, m, n = M.shape
        rows = m + n if eps else m
        self.X, self.other = space("X", batch, rows, n), space("other", batch, rows, n)
        height = n + 1 if xp is numpy else n
        self.S_rows, self.T_rows = space("S", batch, height, n), space("T", batch, height, n)
        self.bind()
        scale = start * sqrt(1 + n * eps * eps)
        self.norm = normalise(xp, M, self.X[:, :m], scale)
        self.identity = eps / scale  # what the lower block of X is times I, until the first step is done

    def bind(self):
        n = self.X.shape[-1]
        self.S, self.T = self.S_rows[:, :n], self.T_rows[:, :n]
        self.S_diagonal, self.T_diagonal = diagonal(self.S_rows, n), diagonal(self.T_rows, n)

    def gram(self):
        xp, n = self.xp, self.X.shape[-1]
        X = self.X[:, : -n if self.identity else None]
        if self.square:
            xp.matmul(X, X, out=self.S)
        elif xp is not numpy or n >= SYMMETRIC_PRODUCT:
            xp.matmul(transpose(X), X, out=self.S)
        else:  # in halves: of one array on both sides NumPy makes a symmetric product, slower for small matrices
            half = n // 2
            xp.matmul(transpose(X[..., :half]), X, out=self.S[:, :half])
            xp.matmul(transpose(X[..., half:]), X, out=self.S[:, half:])
        if self.identity:
            self.S_diagonal += self.identity**2

    def update(self, p, q, last=False):
        xp, T = self.xp, self.S
        self.S_diagonal += p
        if q is not None:
            T = self.T
            xp.matmul(self.S, self.S, out=T)
            self.T_diagonal += q
        new = self.out if last and self.out is not None else self.other
        if self.identity:
            n = T.shape[-1]
            xp.matmul(self.X[:, :-n], T, out=new[:, :-n])
            xp.multiply(T, self.identity, out=new[:, -n:])
            self.identity = 0.0
        else:
            xp.matmul(self.X, T, out=new)
        self.X, self.other = new, self.X

    def residual(self, scale):
        return residual(self.xp, self.S, self.S_diagonal, scale, self.norm)

    def rescale(self, factor):
        self.X *= factor
        self.S *= factor * factor


def residual(xp, S, S_diagonal, scale, norm) -> numpy.ndarray:
    """||scale^2 S - I||_F per matrix, on the host; NaN for a zero matrix. S is left as it was."""
    target = 1 / scale**2
    S_diagonal -= target
    r = xp.sqrt(squared_norm(xp, S)) / target * (norm / norm)
    S_diagonal += target
    return host(r).astype(float)


class KnownInverse:
    """P^{-1} as a raw array, for P whose eigenvalues lie in [1 / spread, spread]: a constant of the tape."""

    __slots__ = ("inverse", "spread")

    def __init__(self, inverse, spread):
        self.inverse, self.spread = inverse, spread

    @property
    def top(self):
        """The largest eigenvalue of (P + P^{-1}) / 2, and a little more; the least is one."""
        return 1.01 * (self.spread + 1 / self.spread) / 2

    def __getitem__(self, part):
        return KnownInverse(self.inverse.reshape((-1,) + self.inverse.shape[-2:])[part], self.spread)

    def __repr__(self):
        return f"KnownInverse(spread={self.spread:.3g})"


class LyapunovSolve(Iteration):
    """mcsgn of [[A, K], [0, -A]] by its blocks: 7 products a step, 8 with the inverse of A (the product of the T).

    A = P / ||P||_F is symmetric; the limit of K is twice the solution of A Y + Y A = K. ``parity`` -1: K is skew,
    +1: symmetric; then A K = parity (K A)^T saves two products. 0: any K. Two blocks that meet the same factor are
    one product:

        [Q, R] = [K, A] A      D = Q - A K      R += p I
        [T, Q] = [R, D] R      N = Q + R D      T += q I
        [K, A] = [N, T] A      K += T K         J = J T

    Rounding leaves the iterates slightly off their symmetry: a polishing step maps such errors to zero to first
    order, so only the result is projected. Where P^{-1} is known, Newton's step A <- (A + A^{-1}) / 2 and
    K <- (K + A^{-1} K A^{-1}) / 2 comes first: two products in the place of two or three rows.
    """

    arrays = ("KA", "other", "NTQRD", "J", "J_next", "norm", "power")
    results = ("KA", "J")

    def __init__(self, xp, space, P, C, parity, start, inverse, known=None):
        self.xp, self.parity, self.start = xp, parity, start
        batch, n, dtype = P.shape[0], P.shape[-1], P.dtype
        self.KA, self.other = space("KA", 2, batch, n, n), space("other", 2, batch, n, n)
        self.NTQRD = space("NTQRD", 5, batch, n, n, pad=bool(parity))
        self.J = self.J_next = None
        if inverse:
            self.J, self.J_next = xp.zeros((batch, n, n), dtype), space("J", batch, n, n)
            diagonal(self.J, n)[...] = 1 / start
        self.bind()
        K, A = self.KA
        if known is None:
            xp.add(P, transpose(P), out=self.Q)  # twice the symmetric part
            self.norm = normalise(xp, self.Q, A, start, self.other[1])
        else:
            xp.add(P, known.inverse, out=self.Q)
            xp.add(self.Q, transpose(self.Q), out=self.R)
            self.norm = xp.full((batch,), 4 * known.top, dtype)
            xp.multiply(self.R, 1 / (4 * known.top * start), out=A)
        if parity:  # twice the part of C of this parity
            (xp.add if parity > 0 else xp.subtract)(C, transpose(C), out=self.Q)
        else:
            xp.multiply(C, 2, out=self.Q)
        self.power = to_range(xp, self.Q, K)[0]  # K enters linearly: any scale will do
        if known is not None:
            xp.matmul(known.inverse, K, out=self.Q)
            xp.matmul(self.Q, known.inverse, out=self.D)
            K += self.D

    def bind(self):
        n = self.KA.shape[-1]
        blocks = self.NTQRD
        self.N, self.T, self.Q, self.R, self.D = blocks[..., :n]
        self.NT, self.TQ, self.QR, self.RD = (blocks[i : i + 2] for i in range(4))
        self.T_diagonal, self.R_diagonal = diagonal(blocks[1], n), diagonal(blocks[3], n)

    def times(self, pair, X, out):
        """out <- pair X for two blocks. Of one matrix they make one tall matrix: BLAS has more to share.

        Of a batch NumPy takes them at once; CuPy, which computes pointers for products that broadcast, one by one.
        """
        xp, n = self.xp, X.shape[-1]
        if X.shape[0] == 1:
            tall, out = (blocks.reshape(1, -1, blocks.shape[-1])[..., :n] for blocks in (pair, out))
            xp.matmul(tall, X, out=out)
        elif xp is numpy:
            xp.matmul(pair[..., :n], X, out=out[..., :n])
        else:
            for block, result in zip(pair, out):
                xp.matmul(block, X, out=result)

    def gram(self):
        self.times(self.KA, self.KA[1], out=self.QR)

    def other_side(self, X, K, sign, out):
        """out <- Q + sign X K, where Q = K X. For K of a parity s X K = s Q^T; D in its place has the parity -s."""
        xp, Q = self.xp, self.Q
        if self.parity:
            (xp.add if self.parity < 0 else xp.subtract)(Q, transpose(Q), out=out)
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
            xp.matmul(self.N, A, out=self.other[0])
        else:
            self.times(self.NT, A, out=self.other)
        xp.matmul(self.T, K, out=self.Q)
        self.KA, self.other = self.other, self.KA
        self.KA[0] += self.Q
        if self.J is not None:
            xp.matmul(self.J, self.T, out=self.J_next)
            self.J, self.J_next = self.J_next, self.J

    def residual(self, scale):
        return residual(self.xp, self.R, self.R_diagonal, scale, self.norm)

    def rescale(self, factor):
        self.KA *= factor
        self.R *= factor * factor
        self.Q *= factor * factor
        if self.J is not None:
            self.J *= factor

    def finish(self, end, W, J):
        """Write the solution, and the inverse of P where asked, for the scale ``end`` of the iterates."""
        xp, K = self.xp, self.KA[0]
        inverse_norm = xp.where(self.norm == 0, 0, 1 / self.norm)  # P = 0 gives zero by convention
        if self.parity:
            (xp.add if self.parity > 0 else xp.subtract)(K, transpose(K), out=W)
            W *= column(xp.ldexp(inverse_norm * (end / (4 * self.start)), self.power))
        else:
            xp.multiply(K, column(xp.ldexp(inverse_norm * (end / (2 * self.start)), self.power)), out=W)
        if J is not None:
            xp.multiply(self.J, column(2 * end * inverse_norm), out=J)


def check_matrices(name, x, square=False):
    """Raise the sentence for input that is no batch of matrices, no float32 or float64, or not square."""
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        what = "square matrices (..., n, n)" if square else "matrices (..., n, m)"
        raise ValueError(f"{name}: the argument has shape {x.shape}; expected {what}")
    if x.dtype.name not in ("float32", "float64"):
        raise TypeError(f"{name}: the argument has dtype {x.dtype}; convert it with .astype('float32') first")


def roundoff(dtype) -> float:
    return float(numpy.finfo(dtype.name).eps) / 2


def plan_for(shape, dtype, steps, coefficients):
    n, m = sorted(shape[-2:])
    return make_plan(steps, hashable(coefficients), n, m, roundoff(dtype))


def orthogonalise(xp, M, steps=None, coefficients=None, square=False):
    """msign of M (..., n, m) by Newton-Schulz; ``square``: mcsgn of square matrices with real spectra.

    Works on the smaller side; each matrix is scaled by its own Frobenius norm.
    """
    if M.shape[-2] < M.shape[-1]:
        return transpose(orthogonalise(xp, transpose(M), steps, coefficients))
    plan = plan_for(M.shape, M.dtype, steps, coefficients)
    if M.size == 0:
        return xp.zeros(M.shape, M.dtype)
    tall = M.reshape((-1,) + M.shape[-2:])
    out = xp.empty(tall.shape, M.dtype)
    with numpy.errstate(all="ignore"):  # NaN in, NaN out
        if M.shape[-1] == 1:  # a vector, or a number: its direction needs no iteration
            normalise(xp, tall, out)
            return out.reshape(M.shape)
        space = Workspace(xp, M.dtype)
        for part in parts(tall, 4):
            result = out[part] if plan.end == 1 else None
            iteration = Orthogonalise(xp, space, tall[part], plan.chunks[0][0], square, out=result)
            drive(xp, plan, iteration)
            if result is None:
                xp.multiply(iteration.X, plan.end, out=out[part])
    return out.reshape(M.shape)


def orthogonalise_smooth(xp, M, eps, steps=None, coefficients=None):
    """The blocks Y (..., m, n) and T (..., n, n) of msign([M / ||M||_F; eps I]) for tall M, and ||M||_F (..., 1, 1).

    T = e (M^T M + e^2 I)^{-1/2} with e = eps ||M||_F. Zero gives zeros.
    """
    m, n = M.shape[-2:]
    plan = plan_for((m + n, n), M.dtype, steps, coefficients)
    tall = M.reshape((prod(M.shape[:-2]), m, n))
    make = xp.empty if M.size else xp.zeros
    y, tail, norm = (make((len(tall), *shape), M.dtype) for shape in ((m, n), (n, n), (1, 1)))
    if M.size:
        with numpy.errstate(all="ignore"):
            space = Workspace(xp, M.dtype)
            for part in parts(tall, 6):
                iteration = Orthogonalise(xp, space, tall[part], plan.chunks[0][0], eps=eps)
                drive(xp, plan, iteration)
                size = norm[part] = column(iteration.norm)
                xp.multiply(iteration.X[:, :m], plan.end, out=y[part])
                xp.multiply(iteration.X[:, m:], plan.end * (size != 0), out=tail[part])
    return tuple(x.reshape(M.shape[:-2] + x.shape[1:]) for x in (y, tail, norm))


def solve_symmetric(xp, P, C, parity=0, inverse=False, steps=None, coefficients=None, known=None):
    """The solution W of P W + W P = C for symmetric positive definite P, by mcsgn; with P^{-1} where ``inverse``.

    P and C are (..., n, n) and broadcast no dimensions. P stands for its symmetric part; ``parity`` -1 or +1 takes the
    skew or symmetric part of C. After the fixed steps of a truncated plan, W is that part of the derivative of the
    truncated iteration, so it stays bounded however ill-conditioned P is. ``known``: a ``KnownInverse``, which also
    determines the rows.
    """
    if known is not None:
        steps, coefficients = None, rows_to_one(1 / known.top, 64 * roundoff(P.dtype))
    plan = plan_for(P.shape, P.dtype, steps, coefficients)
    if P.size == 0:
        return (xp.zeros(P.shape, P.dtype),) * 2 if inverse else xp.zeros(P.shape, P.dtype)
    P3, C3 = (x.reshape((-1,) + x.shape[-2:]) for x in (P, C))
    W, J = xp.empty(P3.shape, P.dtype), xp.empty(P3.shape, P.dtype) if inverse else None
    with numpy.errstate(all="ignore"):
        space = Workspace(xp, P.dtype)
        for part in parts(P3, 9):
            start, here = plan.chunks[0][0], known and known[part]
            iteration = LyapunovSolve(xp, space, P3[part], C3[part], parity, start, inverse, here)
            drive(xp, plan, iteration)
            iteration.finish(plan.end, W[part], J[part] if inverse else None)
    return (W.reshape(P.shape), J.reshape(P.shape)) if inverse else W.reshape(P.shape)
