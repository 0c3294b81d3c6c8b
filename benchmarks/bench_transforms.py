"""What the transforms cost: jvp over the forward, hvp over the gradient, and time and memory of checkpoint.

    python benchmarks/bench_transforms.py [--repeats 31] [--json FILE]

jvp and hvp: cross-entropy of an MLP 784-128-10 with 64 samples, with respect to the parameters, along random
tangents. checkpoint: the loss of an MLP of 50 layers of width 64 with 1,024 samples, and its gradient, with
checkpoints around seven groups of layers, about the root of 50. The variants take turns in one run; a ratio
is the median over the repeats of the ratio in one repeat. Memory is all that forward and backward allocate at
their peak beyond parameters and data (tracemalloc, in a run of its own): activations, gradients, and what an
op needs while it runs. On a shared machine OMP_NUM_THREADS=1 keeps the threads of BLAS from waiting for each
other.
"""

import argparse
import tracemalloc

import numpy as np
from measure import milliseconds, ratio, turns, write

import tinygrad_ms as tg
from tinygrad_ms import nn


def like(parameters, random):
    return {name: tg.tensor(random.standard_normal(p.shape).astype("float32")) for name, p in parameters.items()}


def derivatives(repeats, batch=64):
    random = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10))
    x = tg.tensor(random.standard_normal((batch, 784)).astype("float32"))
    labels = tg.tensor(random.integers(0, 10, batch))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    tangents = like(parameters, random)

    def loss(p):
        return tg.cross_entropy(nn.functional_call(model, p, x), labels)

    gradient = tg.grad(loss)
    times = turns(
        {
            "forward": lambda: loss(parameters),
            "jvp": lambda: tg.jvp(loss, (parameters,), (tangents,)),
            "gradient": lambda: gradient(parameters),
            "hvp": lambda: tg.hvp(loss, parameters, tangents),
        },
        repeats,
    )
    figures = {f"{name}, ms": median for name, median in milliseconds(times).items()}
    return figures | {
        "jvp / forward": ratio(times, "jvp", "forward"),
        "hvp / gradient": ratio(times, "hvp", "gradient"),
    }


def peak(run):
    """Bytes that ``run`` holds at its peak beyond what was there before."""
    run()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run()
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return most


def recomputation(repeats, layers=50, width=64, batch=1024, groups=7):
    x = tg.tensor(np.random.default_rng(0).standard_normal((batch, width)).astype("float32"))
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)]
    parts = [nn.Sequential(*blocks[i * layers // groups : (i + 1) * layers // groups]) for i in range(groups)]
    parameters = [p for part in parts for p in part.parameters()]

    def loss(wrap):
        y = x
        for part in parts:
            y = wrap(part)(y)
        return (y * y).mean()

    def step(wrap):
        loss(wrap).backward()
        for p in parameters:
            p.grad = None

    def plain():
        step(lambda part: part)

    def checkpointed():
        step(tg.checkpoint)

    times = turns({"plain": plain, "checkpointed": checkpointed}, repeats)
    figures = {f"{name}, ms": median for name, median in milliseconds(times).items()}
    figures["time with / without checkpoint"] = ratio(times, "checkpointed", "plain")
    for name, run in (("plain", plain), ("checkpointed", checkpointed)):
        figures[f"{name}, MB"] = peak(run) / 1e6
    figures["memory without / with checkpoint"] = figures["plain, MB"] / figures["checkpointed, MB"]
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    tg.manual_seed(0)
    results = {
        "MLP 784-128-10, 64 samples": derivatives(options.repeats),
        "MLP of 50 layers, 1,024 samples": recomputation(options.repeats),
    }
    for title, figures in results.items():
        print(title)
        for name, value in figures.items():
            print(f"  {name:34} {value:8.2f}")
    write(options.json, results)


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
