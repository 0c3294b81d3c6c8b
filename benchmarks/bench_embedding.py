"""What an embedding costs: gradients added by token beside NumPy's ``add.at``, the step beside PyTorch's.

    python benchmarks/bench_embedding.py [--repeats 31]

float32 tables of n rows of width d, indexed by k random tokens. The contenders take turns in one run; the
figures are medians in milliseconds, the ratios those of the medians. PyTorch, on one thread, may be missing.
"""

import argparse
import importlib.util
import statistics
import time

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.ops.indexing import scatter_add

SIZES = [(84, 32, 2048), (1000, 64, 4096), (10_000, 64, 4096), (50_000, 128, 8192)]


def step(table, tokens, g):
    weight = tg.tensor(table, device="cpu", requires_grad=True)

    def run():
        weight.zero_grad()
        tg.embedding(weight, tokens).backward(g)

    return run


def scatter(table, tokens, g):
    return lambda: scatter_add(g, index=(tokens,), shape=table.shape)


def add_at(table, tokens, g):
    return lambda: np.add.at(np.zeros_like(table), tokens, g)


def pytorch(table, tokens, g):
    import torch

    torch.set_num_threads(1)
    weight, tokens, g = torch.tensor(table, requires_grad=True), torch.tensor(tokens), torch.tensor(g)

    def run():
        weight.grad = None
        torch.nn.functional.embedding(tokens, weight).backward(g)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    repeats = parser.parse_args().repeats
    contenders = {"scatter_add": scatter, "add.at": add_at, "step": step}
    if importlib.util.find_spec("torch"):
        contenders["PyTorch"] = pytorch
    for n, d, k in SIZES:
        random = np.random.default_rng(0)
        table, g = random.random((n, d), np.float32), random.random((k, d), np.float32)
        tokens = random.integers(0, n, k)
        runs = {name: make(table, tokens, g) for name, make in contenders.items()}
        times = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
        median = {name: statistics.median(values) for name, values in times.items()}
        pairs = [("scatter_add", "add.at"), ("step", "PyTorch")]
        print(
            f"n={n:6d} d={d:4d} k={k:5d}:",
            ", ".join(f"{name} {ms:.2f} ms" for name, ms in median.items()),
            *(f"{a}/{b} {median[a] / median[b]:.2f}" for a, b in pairs if b in median),
            sep="  ",
        )


if __name__ == "__main__":
    main()
