"""Times msign and its VJP in float32, beside its own matrix products, other methods here, and PyTorch if installed.

    python benchmarks/bench_msign.py [--repeats 31] [--steps 8] [--json FILE]

All methods take turns in one run of a shape. The figures are medians in milliseconds. After each comes the median ratio
to ours; above 1 ours is faster. "products alone" are the matrix products of the same algorithm on preallocated buffers;
no implementation can be faster. "dense block" is our forward with the derivative of the source, mcsgn of one
(n + m) x (n + m) matrix: on our kernel, and with the iteration as the source writes it. With this BLAS, the ratio of
"dense, products alone" to "products alone" bounds the advantage of our blocks. Fix the threads with OMP_NUM_THREADS.
"""

import argparse
import importlib.util

import numpy as np
from measure import blas, milliseconds, ratio, turns, write

import tinygrad_ms as tg
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.matrix_sign.msign import msign_unrolled
from tinygrad_ms.ops.matrix_sign.sylvester import msign_dense_vjp

SHAPES = [(128, 32, 32), (128, 128), (256, 256), (512, 512), (128, 512), (64, 512)]


def products(M, steps):
    """A function that runs only the products of ``msign`` and its VJP, on buffers."""
    tall = M if M.shape[-2] >= M.shape[-1] else M.mT.copy()
    tall = tall.reshape((-1, *tall.shape[-2:])) / np.linalg.norm(tall, axis=(-2, -1), keepdims=True)
    batch, rows, n = tall.shape
    X, other, Y = tall, tall.copy(), tall.copy()
    matrix = np.eye(n, dtype=M.dtype) / 2
    S, T, J, Q = (np.broadcast_to(matrix, (batch, n, n)).copy() for _ in range(4))
    one = batch == 1  # two blocks are one tall factor, as in the solve
    pair, out = (np.broadcast_to(matrix, (2, batch, n, n)).copy() for _ in range(2))
    pair, out = (x.reshape((1, 2 * n, n)) if one else x for x in (pair, out))
    square = rows == n

    def run():
        for _ in range(steps):
            np.matmul(other.mT, X, out=S)
            np.matmul(S, S, out=T)
            np.matmul(X, T, out=Y)
        for _ in range(2):  # Y^T G, and P = Y^T M
            np.matmul(other.mT, X, out=S)
        for step in range(steps):
            np.matmul(pair, T, out=out)
            np.matmul(pair, T, out=out)
            if step + 1 < steps:
                np.matmul(pair, T, out=out)
            else:
                np.matmul(S, T, out=Q)
            np.matmul(S, T, out=Q)
            if not square:
                np.matmul(J, T, out=Q)
        np.matmul(X, T, out=Y)
        if not square:
            np.matmul(S, J, out=Q)
            np.matmul(X, J, out=Y)

    return run


def dense_products(M, steps):
    """As ``products``, but for our forward with the dense block of the source."""
    tall = M if M.shape[-2] >= M.shape[-1] else M.mT.copy()
    n, size = tall.shape[-1], sum(M.shape[-2:])
    X, other, Y = (tall / np.linalg.norm(tall, axis=(-2, -1), keepdims=True) for _ in range(3))
    S, T = (np.broadcast_to(np.eye(n, dtype=M.dtype) / 2, (*M.shape[:-2], n, n)).copy() for _ in range(2))
    A, B, C = (np.broadcast_to(np.eye(size, dtype=M.dtype) / 2, (*M.shape[:-2], size, size)).copy() for _ in range(3))

    def run():
        for _ in range(steps):
            np.matmul(other.mT, X, out=S)
            np.matmul(S, S, out=T)
            np.matmul(X, T, out=Y)
        for _ in range(3 * steps):
            np.matmul(A, B, out=C)

    return run


def dense_as_written(M, G, O, steps, eps=1e-3):
    """``msign_dense_vjp`` with the iteration of Su Jianlin, equation 6: X <- a X + (b S + c S S) X with S = X X."""
    n, m = M.shape[-2:]
    M = M / np.linalg.norm(M, axis=(-2, -1), keepdims=True)
    X = np.zeros((*M.shape[:-2], n + m, n + m), M.dtype)
    X[..., :n, :n] = M @ O.mT + eps * np.eye(n, dtype=M.dtype)
    X[..., n:, n:] = -(O.mT @ M) - eps * np.eye(m, dtype=M.dtype)
    X[..., :n, n:] = -G
    X /= np.linalg.norm(X, axis=(-2, -1), keepdims=True)
    for a, b, c in fixed_rows(steps, "su"):
        S = X @ X
        X = a * X + (b * S + c * S @ S) @ X
    X = X[..., :n, n:] / -2
    return X - O @ X.mT @ O


def ours(M, G, function):
    x, g = tg.tensor(M), tg.tensor(G)
    x.requires_grad = True

    def run():
        x.grad = None
        function(x).backward(g)

    return run


def torch_ways(M, G, steps):
    """PyTorch's automatic derivatives: through the steps, through its SVD, and of linalg.polar if it exists.

    The fastest method in PyTorch is written by hand: the closed form on its SVD. It keeps U, S and V for backward.
    """
    import torch

    x, g = torch.from_numpy(M.copy()).requires_grad_(), torch.from_numpy(G)
    rows = fixed_rows(steps, "su")

    def unrolled(x):
        wide = x if x.shape[-2] <= x.shape[-1] else x.mT
        X = wide / wide.norm(dim=(-2, -1), keepdim=True)
        for a, b, c in rows:
            S = X @ X.mT
            X = a * X + (b * S + c * (S @ S)) @ X
        return X if wide is x else X.mT

    def by_svd(x):
        u, _, vt = torch.linalg.svd(x, full_matrices=False)
        return u @ vt

    class ClosedForm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            u, s, vt = torch.linalg.svd(x, full_matrices=False)
            ctx.save_for_backward(u, s, vt)
            return u @ vt

        @staticmethod
        def backward(ctx, g):
            u, s, vt = ctx.saved_tensors
            right = g @ vt.mT
            E = u.mT @ right
            result = u @ ((E - E.mT) / (s[..., :, None] + s[..., None, :]))
            if u.shape[-2] > u.shape[-1]:
                result = result + (right - u @ E) / s[..., None, :]
            return result @ vt

    def closed_form(x):
        return ClosedForm.apply(x) if x.shape[-2] >= x.shape[-1] else ClosedForm.apply(x.mT).mT

    def way(function):
        def run():
            x.grad = None
            function(x).backward(g)
            return x.grad

        return run

    ways = {
        "PyTorch autodiff, steps": way(unrolled),
        "PyTorch svd backward": way(by_svd),
        "PyTorch svd, closed form": way(closed_form),
    }
    if hasattr(torch.linalg, "polar") and M.shape[-2] >= M.shape[-1]:
        ways["PyTorch polar"] = way(lambda x: torch.linalg.polar(x)[0])
    return ways


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    steps, results = options.steps, {}
    print(f"NumPy {np.__version__}, {blas()}")
    for shape in SHAPES:
        random = np.random.default_rng(0)
        M, G = (random.standard_normal(shape).astype("float32") for _ in range(2))

        def dense(M=M, G=G):
            tg.msign(M, steps=steps)
            msign_dense_vjp(M, G, steps=steps)

        def dense_plain(M=M, G=G):
            dense_as_written(M, G, tg.msign(M, steps=steps), steps)

        ways = {
            "msign": ours(M, G, lambda x: tg.msign(x, steps=steps)),
            "products alone": products(M, steps),
            "msign, adaptive": ours(M, G, tg.msign),
            "msign, eps = 1e-3": ours(M, G, lambda x: tg.msign(x, eps=1e-3, steps=steps)),
            "method='svd'": ours(M, G, lambda x: tg.msign(x, method="svd")),
            "method='eigh'": ours(M, G, lambda x: tg.msign(x, method="eigh")),
            "our autodiff, steps": ours(M, G, lambda x: msign_unrolled(x, steps=steps)),
            "dense block, our kernel": dense,
            "dense block, as written": dense_plain,
            "dense, products alone": dense_products(M, steps),
        }
        if importlib.util.find_spec("torch"):
            ways |= torch_ways(M, G, steps)
        times = turns(ways, options.repeats, rest=0.03)
        title = f"{' x '.join(map(str, shape))}, float32, {steps} steps: forward + VJP"
        print(title)
        results[title] = {}
        for name, ms in milliseconds(times).items():
            results[title][name] = {"ms": ms, "over ours": ratio(times, name, "msign")}
            print(f"  {name:26s}{ms:10.2f} ms   x {results[title][name]['over ours']:.2f}")
        if "PyTorch svd, closed form" in ways:
            best = ratio(times, "method='eigh'", "PyTorch svd, closed form")
            results[title]["method='eigh'"]["over PyTorch svd, closed form"] = best
            print(f"  method='eigh' takes {best:.2f} of the time of PyTorch's SVD with the closed form")
    write(options.json, results)


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
