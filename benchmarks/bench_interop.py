"""What the bridges to PyTorch and JAX cost beside our own call: msign of one float32 matrix, and its VJP.

    OMP_NUM_THREADS=1 python benchmarks/bench_interop.py [--size 128] [--repeats 101]

Our call and the bridges take turns. Each figure is the median time over that of our own call in the same round, and in
brackets the least time over our least. It is processor time, which other programs disturb less. JAX runs under ``jit``.
"""

import argparse
import importlib.util
import time

import numpy as np
from measure import facts, milliseconds, ratio, turns

import tinygrad_ms as tg

OPTIONS = [{"steps": 8}, {}, {"eps": 1e-2}, {"method": "eigh"}]


def ours(M, G, options):
    x, g = tg.tensor(M, requires_grad=True), tg.tensor(G)

    def both():
        x.grad = None
        tg.msign(x, **options).backward(g)

    return (lambda: tg.msign(M, **options)), both


def torch_bridge(M, G, options):
    import torch

    from tinygrad_ms.interop.torch import msign

    x, m, g = torch.tensor(M, requires_grad=True), torch.tensor(M), torch.tensor(G)

    def both():
        x.grad = None
        msign(x, **options).backward(g)

    return (lambda: msign(m, **options)), both


def jax_bridge(M, G, options):
    import jax

    from tinygrad_ms.interop.jax import msign

    m, g = jax.numpy.asarray(M), jax.numpy.asarray(G)
    value = jax.jit(lambda M: msign(M, **options))
    pulled = jax.jit(lambda M, G: jax.vjp(lambda M: msign(M, **options), M)[1](G))
    return (lambda: jax.block_until_ready(value(m))), (lambda: jax.block_until_ready(pulled(m, g)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=101)
    args = parser.parse_args()
    M, G = np.random.default_rng(0).standard_normal((2, args.size, args.size), dtype="float32")
    makers = {"ours": ours, "torch": torch_bridge, "jax": jax_bridge}
    makers = {name: make for name, make in makers.items() if name == "ours" or importlib.util.find_spec(name)}
    print(facts())
    for options in OPTIONS:
        ways = {name: make(M, G, options) for name, make in makers.items()}
        for part, what in enumerate(("value", "value and VJP")):
            times = turns({name: way[part] for name, way in ways.items()}, args.repeats, clock=time.process_time)
            found = [
                f"{name} {ratio(times, name, 'ours'):.2f} ({min(times[name]) / min(times['ours']):.2f})"
                for name in ways
                if name != "ours"
            ]
            print(f"{options!s:20} {what:14} ours {milliseconds(times)['ours']:6.2f} ms  ", "  ".join(found))


if __name__ == "__main__":
    main()
