"""The cost of data-parallel training: buckets against one all-reduce, the wrapper alone, and a model of many ranks.

    OPENBLAS_NUM_THREADS=1 mpiexec -n 2 python benchmarks/bench_distributed.py [--repeats 31] [--json FILE]
    OPENBLAS_NUM_THREADS=1 python benchmarks/bench_distributed.py            # one rank: the cost of DataParallel itself

A step is forward, backward and the mean of the gradients of an MLP, with batch 256 on each rank. The variants take
turns, with a barrier before each turn. A ratio is the median over the repeats. The time of a turn is that of rank 0.
"one all-reduce" joins the gradients in one vector after backward, averages it in one collective, and copies it back.
With more than one rank, a table follows. It is a prediction from the measured step, by the cost model below. Nobody has
measured it.
"""

import argparse
from math import log2

import numpy as np
from measure import milliseconds, ratio, turns, write

import tinygrad_ms as tg
from tinygrad_ms import distributed, nn

SIZES = {"0.67 million": (784, 512, 512, 10), "10 million": (784, 2048, 2048, 2048, 10)}
NETWORKS = {  # latency in seconds, bytes per second
    "between nodes, 25 GB/s": (3e-6, 25e9),
    "Ethernet, 1.2 GB/s": (3e-5, 1.2e9),
}
RANKS = (2, 8, 64, 512)


def model_of(sizes):
    rng = np.random.default_rng(0)
    layers = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b, rng=rng), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def contenders(sizes, batch=256):
    random = np.random.default_rng(distributed.rank())
    x = tg.tensor(random.standard_normal((batch, sizes[0])).astype("float32"))
    y = tg.tensor(random.integers(0, sizes[-1], batch))
    plain, model = model_of(sizes), distributed.DataParallel(model_of(sizes))

    def step(of):
        of.zero_grad()
        tg.softmax_cross_entropy(of(x), y).backward()

    def at_the_end():
        with model.no_sync():
            step(model)
        parameters = model.parameters()
        vector = distributed.all_reduce(np.concatenate([p.grad.data.reshape(-1) for p in parameters]), op="mean")
        start = 0
        for p in parameters:
            p.grad.data[...] = vector[start : start + p.size].reshape(p.shape)
            start += p.size

    found = {"no ranks": lambda: step(plain), "DataParallel": lambda: step(model)}
    return found | ({"one all-reduce": at_the_end} if distributed.size() > 1 else {})


def all_reduce_time(size, p, latency, bandwidth):
    """Seconds of an all-reduce of ``size`` bytes on p ranks, by a ring or by a tree; the faster one counts."""
    ring = 2 * (p - 1) * (latency + size / (p * bandwidth))
    tree = 2 * log2(p) * (latency + size / bandwidth)
    return min(ring, tree)


def predicted(step, backward, buckets, p, latency, bandwidth):
    """Seconds of a step on p ranks. A bucket leaves when its share of backward is done and earlier ones have come."""
    total, ready, free = sum(buckets), 0.0, 0.0
    for size in buckets:
        ready += backward * size / total
        free = max(ready, free) + all_reduce_time(size, p, latency, bandwidth)
    return step + max(0.0, free - backward)


def measure(sizes, repeats):
    runs = contenders(sizes)

    def together(run):
        def turn():
            distributed.barrier()
            run()

        return turn

    times = turns({name: together(run) for name, run in runs.items()}, repeats)
    figures = {f"{name}, ms": median for name, median in milliseconds(times).items()}
    if distributed.size() == 1:
        return figures | {"DataParallel / no ranks": ratio(times, "DataParallel", "no ranks")}
    return figures | {"buckets / one all-reduce": ratio(times, "DataParallel", "one all-reduce")}


def prediction(sizes, milliseconds_of_a_step):
    """Rows of the table: the time of a step on one rank divided by that on p ranks, with batch 256 on each."""
    averaging = distributed.DataParallel(model_of(sizes)).averaging
    buckets = [bucket.vector.nbytes for bucket in averaging.buckets]
    step = milliseconds_of_a_step / 1e3
    rows = {}
    for name, (latency, bandwidth) in NETWORKS.items():
        efficiency = [step / predicted(step, 2 / 3 * step, buckets, p, latency, bandwidth) for p in RANKS]
        rows[name] = {str(p): round(e, 3) for p, e in zip(RANKS, efficiency)}
    return {"buckets, MB": [round(n / 1e6, 2) for n in buckets], "predicted efficiency": rows}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--json")
    options = parser.parse_args()
    distributed.init()
    results = {}
    for name, sizes in SIZES.items():
        results[name] = measure(sizes, options.repeats)
        if distributed.size() > 1:
            results[name] |= prediction(sizes, results[name]["no ranks, ms"])
        if distributed.rank() == 0:
            print(f"{name} parameters, {distributed.size()} ranks")
            for key, value in results[name].items():
                print(f"  {key:28} {value:.3f}" if isinstance(value, float) else f"  {key:28} {value}")
    if distributed.rank() == 0:
        write(options.json, results)


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
