"""What the bridges to PyTorch and JAX cost beside our own call: msign of one float32 matrix, and its VJP.

    OMP_NUM_THREADS=1 python benchmarks/bench_interop.py [--size 128] [--repeats 101]

Our call and the bridges take turns. Each figure is the median time over that of our own call in the same round, and in
brackets the least time over our least. It is processor time, which other programs disturb less. JAX runs under ``jit``.
"empty" is the framework alone: a function that it calls in the same way, and that copies its argument. Our call comes
before it, so that its code is as cold as the bridge's.
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


def torch_empty(M, G, options):
    import torch

    class Copy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_dlpack(np.from_dlpack(x.detach()).copy())

        backward = staticmethod(lambda ctx, g: torch.from_dlpack(np.from_dlpack(g.detach()).copy()))

    x, m, g = torch.tensor(M, requires_grad=True), torch.tensor(M), torch.tensor(G)

    def both():
        x.grad = None
        Copy.apply(x).backward(g)

    return (lambda: Copy.apply(m)), both


def jax_bridge(M, G, options):
    import jax

    from tinygrad_ms.interop.jax import msign

    m, g = jax.numpy.asarray(M), jax.numpy.asarray(G)
    value = jax.jit(lambda M: msign(M, **options))
    pulled = jax.jit(lambda M, G: jax.vjp(lambda M: msign(M, **options), M)[1](G))
    return (lambda: jax.block_until_ready(value(m))), (lambda: jax.block_until_ready(pulled(m, g)))


def jax_empty(M, G, options):
    import jax

    def call(*arrays):  # the last array is what the host copies
        like = jax.ShapeDtypeStruct(M.shape, M.dtype)
        return jax.pure_callback(lambda *arrays: np.array(arrays[-1]), like, *arrays, vmap_method="broadcast_all")

    copied = jax.custom_vjp(call)
    copied.defvjp(lambda m: (call(m), m), lambda m, g: (call(m, g),))
    m, g = jax.numpy.asarray(M), jax.numpy.asarray(G)
    value, pulled = jax.jit(copied), jax.jit(lambda M, G: jax.vjp(copied, M)[1](G))
    return (lambda: jax.block_until_ready(value(m))), (lambda: jax.block_until_ready(pulled(m, g)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=101)
    args = parser.parse_args()
    M, G = np.random.default_rng(0).standard_normal((2, args.size, args.size), dtype="float32")
    makers = {"ours": ours}
    if importlib.util.find_spec("torch"):
        makers |= {"torch": torch_bridge, "(ours)": ours, "torch, empty": torch_empty}
    if importlib.util.find_spec("jax"):
        makers |= {"(ours again)": ours, "jax": jax_bridge, "(ours last)": ours, "jax, empty": jax_empty}
    print(facts())
    for options in OPTIONS:
        ways = {name: make(M, G, options) for name, make in makers.items()}
        for part, what in enumerate(("value", "value and VJP")):
            times = turns({name: way[part] for name, way in ways.items()}, args.repeats, clock=time.process_time)
            found = [
                f"{name} {ratio(times, name, 'ours'):.2f} ({min(times[name]) / min(times['ours']):.2f})"
                for name in ways
                if "ours" not in name
            ]
            print(f"{options!s:20} {what:14} ours {milliseconds(times)['ours']:6.2f} ms  ", "  ".join(found))


if __name__ == "__main__":
    main()
