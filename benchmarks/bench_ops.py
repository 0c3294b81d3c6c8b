"""What one tiny op costs, forward and backward, beside PyTorch eager where it is installed; and that time is linear.

    python benchmarks/bench_ops.py [--repeats 31] [--json FILE]

A chain of 2,000 ops, alternately ``x * c`` and ``x + c``, on two float64 numbers; c is a Python number or a tensor.
The frameworks take turns in one run; the figures are medians over the repeats, the ratio the median of pairwise ratios.
"""

import argparse
import statistics
import time

import numpy as np
from measure import write

import tinygrad_ms as tg


def chain(x, c, n):
    y = x
    for _ in range(n // 2):
        y = y * c
        y = y + c
    return y


def run_ours(c, n):
    x = tg.tensor(np.ones(2), device="cpu", requires_grad=True)
    seed = np.ones(2)
    start = time.perf_counter()
    y = chain(x, c, n)
    middle = time.perf_counter()
    y.backward(seed)
    return middle - start, time.perf_counter() - middle


def torch_runner():
    try:
        import torch
    except ImportError:
        return None, None
    torch.set_num_threads(1)

    def run(c, n):
        x = torch.ones(2, dtype=torch.float64, requires_grad=True)
        seed = torch.ones(2, dtype=torch.float64)
        start = time.perf_counter()
        y = chain(x, c, n)
        middle = time.perf_counter()
        y.backward(seed)
        return middle - start, time.perf_counter() - middle

    return run, torch


def compare(repeats, n=2000):
    run_torch, torch = torch_runner()
    results = {}
    for kind in ("number", "tensor"):
        c = 1.0001 if kind == "number" else tg.tensor(np.full(2, 1.0001), device="cpu")
        ours, theirs = [], []
        for _ in range(repeats + 2):  # the first two warm up
            ours.append(run_ours(c, n))
            if torch:
                tc = 1.0001 if kind == "number" else torch.full((2,), 1.0001, dtype=torch.float64)
                theirs.append(run_torch(tc, n))
        ours, theirs = ours[2:], theirs[2:]
        row = {"tinygrad_ms": [1e6 * statistics.median(column) / n for column in zip(*ours)]}
        if torch:
            row["torch"] = [1e6 * statistics.median(column) / n for column in zip(*theirs)]
            row["ratio"] = statistics.median(sum(a) / sum(b) for a, b in zip(ours, theirs))
        results[kind] = row
    return results


def linearity(repeats=5):
    def total(n):
        return sum(run_ours(1.0, n))

    return statistics.median(total(100_000) / total(10_000) for _ in range(repeats))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    ratio = linearity()  # before PyTorch is imported: its many objects make the garbage collector's work uneven
    results = compare(options.repeats)
    print("microseconds per op (forward + backward), 2-element float64 chain of 2,000 ops")
    for kind, row in results.items():
        line = f"  c a {kind}: tinygrad_ms {row['tinygrad_ms'][0]:.2f} + {row['tinygrad_ms'][1]:.2f}"
        if "torch" in row:
            line += f", PyTorch {row['torch'][0]:.2f} + {row['torch'][1]:.2f}, ratio {row['ratio']:.2f}"
        print(line)
    if "torch" not in results["number"]:
        print("  (PyTorch is not installed: pip install torch)")
    results["time of 100,000 ops over 10,000"] = ratio
    print(f"time of 100,000 ops over that of 10,000: {ratio:.1f}")
    write(options.json, results)


if __name__ == "__main__":
    main()
