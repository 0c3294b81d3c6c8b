"""What an embedding costs: gradients added by token beside NumPy's ``add.at``, the step beside PyTorch's.

    python benchmarks/bench_embedding.py [--repeats 31] [--json FILE]

float32 tables of n rows of width d, indexed by k random tokens. The contenders take turns in one run; the
figures are medians in milliseconds, the ratios medians of the ratios of each round. PyTorch runs on one thread, and may
be missing.
"""

import argparse
import importlib.util

import numpy as np
from measure import milliseconds, ratio, turns, write

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
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    contenders, results = {"scatter_add": scatter, "add.at": add_at, "step": step}, {}
    if importlib.util.find_spec("torch"):
        contenders["PyTorch"] = pytorch
    for n, d, k in SIZES:
        random = np.random.default_rng(0)
        table, g = random.random((n, d), np.float32), random.random((k, d), np.float32)
        tokens = random.integers(0, n, k)
        times = turns({name: make(table, tokens, g) for name, make in contenders.items()}, options.repeats)
        pairs = [pair for pair in (("scatter_add", "add.at"), ("step", "PyTorch")) if pair[1] in times]
        ratios = {f"{a} / {b}": ratio(times, a, b) for a, b in pairs}
        results[f"n={n} d={d} k={k}"] = {"ms": milliseconds(times), **ratios}
        print(
            f"n={n:6d} d={d:4d} k={k:5d}:",
            ", ".join(f"{name} {ms:.2f} ms" for name, ms in milliseconds(times).items()),
            *(f"{name} {value:.2f}" for name, value in ratios.items()),
            sep="  ",
        )
    write(options.json, results)


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
