"""msign forward and VJP in float32 against its own matrix products, other ways here, and PyTorch where installed.

    python benchmarks/bench_msign.py [--rounds 15] [--steps 8]

Every round runs all the ways of one shape in turn, each twice, so that a busy machine slows all alike; the best time of each is
printed with its ratio to ours (above 1: ours is faster). "products alone" is the floor: the matrix products of the same
algorithm on preallocated buffers. Fix the threads with OMP_NUM_THREADS.
"""

import argparse
import importlib.util
import time

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.ops.msign_alternatives import msign_dense_vjp, msign_unrolled
from tinygrad_ms.ops.quintics import TABLES

SHAPES = [(128, 32, 32), (128, 128), (256, 256), (512, 512), (128, 512), (64, 512)]


def products(M, steps):
    """A function that runs the products of ``msign`` and its VJP on buffers, and nothing else."""
    tall = M if M.shape[-2] >= M.shape[-1] else M.mT.copy()
    n = tall.shape[-1]
    X, copy, Y = (tall / np.linalg.norm(tall, axis=(-2, -1), keepdims=True) for _ in range(3))
    S, T, A, K, J, Q = (np.broadcast_to(np.eye(n, dtype=M.dtype), (*M.shape[:-2], n, n)) / 2 for _ in range(6))
    square = tall.shape[-2] == n

    def run():
        for _ in range(steps):
            np.matmul(copy.mT, X, out=S)
            np.matmul(S, S, out=T)
            np.matmul(X, T, out=Y)
        for _ in range(2 if square else 1):  # Y^T G, and P = Y^T M
            np.matmul(copy.mT, X, out=S)
        if not square:  # P in the forward
            np.matmul(copy.mT, X, out=S)
        for step in range(steps):
            for left, right in ((A, A), (A, K), (T, T), (T, K), (A, K), (K, T)):
                np.matmul(left, right, out=Q)
            if step + 1 < steps:
                np.matmul(A, T, out=Q)
            if not square:
                np.matmul(J, T, out=Q)
        np.matmul(X, T, out=Y)
        if not square:
            np.matmul(S, J, out=Q)
            np.matmul(X, J, out=Y)

    return run


def ours(M, G, function):
    x, g = tg.tensor(M), tg.tensor(G)
    x.requires_grad = True

    def run():
        x.grad = None
        function(x).backward(g)

    return run


def torch_ways(M, G, steps):
    """PyTorch's automatic derivative through the steps, through its SVD, and of linalg.polar where it exists."""
    import torch

    x, g = torch.from_numpy(M.copy()).requires_grad_(), torch.from_numpy(G)
    rows = TABLES["su"]
    rows = (*rows, *rows[-1:] * steps)[:steps]

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

    def way(function):
        def run():
            x.grad = None
            function(x).backward(g)

        return run

    ways = {"PyTorch autodiff, steps": way(unrolled), "PyTorch svd backward": way(by_svd)}
    if hasattr(torch.linalg, "polar") and M.shape[-2] >= M.shape[-1]:
        ways["PyTorch polar"] = way(lambda x: torch.linalg.polar(x)[0])
    return ways


def best_times(ways, rounds):
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, run in ways.items():
            run()  # untimed: caches fill, and the threads of the way before stop spinning
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main(rounds=15, steps=8, shapes=SHAPES):
    random = np.random.default_rng(0)
    for shape in shapes:
        M, G = (random.standard_normal(shape).astype("float32") for _ in range(2))

        def dense(M=M, G=G):
            tg.msign(M, steps=steps)
            msign_dense_vjp(M, G, steps=steps)

        ways = {
            "msign": ours(M, G, lambda x: tg.msign(x, steps=steps)),
            "products alone": products(M, steps),
            "msign, adaptive": ours(M, G, tg.msign),
            "msign, eps = 1e-3": ours(M, G, lambda x: tg.msign(x, eps=1e-3, steps=steps)),
            "method='svd'": ours(M, G, lambda x: tg.msign(x, method="svd")),
            "our autodiff, steps": ours(M, G, lambda x: msign_unrolled(x, steps=steps)),
            "dense block of 000": dense,
        }
        if importlib.util.find_spec("torch"):
            ways |= torch_ways(M, G, steps)
        best = best_times(ways, rounds)
        print(f"{' x '.join(map(str, shape))}, float32, {steps} steps: forward + VJP")
        for name, seconds in best.items():
            print(f"  {name:26s}{seconds * 1e3:10.2f} ms   x {seconds / best['msign']:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    main(options.rounds, options.steps)
