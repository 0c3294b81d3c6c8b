"""What ``bench_ops.py`` times: small programs that use public names alone, so that any checkout can run them.

    python benchmarks/cases.py {ours|torch} ROOT      # a worker: names of cases in, seconds out, a line each

A worker imports the package from the checkout at ROOT. It is a process of its own: what one side leaves in memory or
in the garbage collector does not slow the other. Times are CPU times of one thread, so that a neighbour who takes the
core away for a moment counts little.
"""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time as clock
from typing import NamedTuple

import numpy as np

Parts = dict[str, float]  # {what was timed: seconds}


class Case(NamedTuple):
    """``make(side)`` gives ``run()``, which returns its ``Parts``; ``calls`` is what one run divides them by."""

    title: str
    make: Callable
    calls: int
    torch: bool  # whether PyTorch can run it, too


CASES: dict[str, Case] = {}  # by name, group first: "chain/tanh"


def case(name: str, title: str, calls: int = 1, torch: bool = False) -> Callable:
    def keep(make):
        CASES[name] = Case(title, make, calls, torch)
        return make

    return keep


# --- the two frameworks -----------------------------------------------------------------------------------------------


class Ours:
    """tinygrad_ms on the CPU."""

    def __init__(self, root: str):
        import tinygrad_ms as tg

        if not Path(tg.__file__).is_relative_to(root):
            raise ImportError(f"tinygrad_ms was imported from {tg.__file__}, not from {root}")
        tg.set_default_device("cpu")
        getattr(tg, "keep_freed_memory", lambda: None)()  # older versions did that at import
        self.root, self.lib, self.constant, self.seed = root, tg, tg.tensor, np.asarray

    def leaf(self, values):
        return self.lib.tensor(values, requires_grad=True)


class Torch:
    """PyTorch eager."""

    def __init__(self, root: str):
        import torch

        torch.set_num_threads(1)
        self.lib, self.constant, self.seed = torch, torch.tensor, torch.tensor

    def leaf(self, values):
        return self.lib.tensor(values, requires_grad=True)


# --- tiny ops: chains, forward and backward ---------------------------------------------------------------------------


def chain(side, link: Callable, links: int, repeats: int = 1, start=(0.7, 0.7)) -> Callable:
    """``y = link(y)`` again and again from two float64 numbers: the forward pass, then the backward pass."""
    seed = side.seed(np.ones(np.shape(start)))

    def run() -> Parts:
        forward = backward = 0.0
        for _ in range(repeats):
            y = side.leaf(np.array(start))
            begin = clock()
            for _ in range(links):
                y = link(y)
            middle = clock()
            y.backward(seed)
            forward, backward = forward + middle - begin, backward + clock() - middle
        return {"forward": forward, "backward": backward}

    return run


@case("chain/number", "x * c and x + c, c a number", 2000, torch=True)
def _(side):
    return chain(side, lambda y: y * 1.0001 + 1.0001, 1000)


@case("chain/tensor", "x * c and x + c, c a tensor", 2000, torch=True)
def _(side):
    c = side.constant(np.full(2, 1.0001))
    return chain(side, lambda y: y * c + c, 1000)


@case("chain/tanh", "a chain of tanh", 2000, torch=True)
def _(side):
    return chain(side, side.lib.tanh, 2000)


@case("chain/relu", "a chain of relu", 2000, torch=True)
def _(side):
    return chain(side, side.lib.relu, 2000)


def unary(name: str, link: Callable, ops: int = 1, start=(0.7, 0.7)) -> None:
    """A case of short chains: a longer one would bring the gradients of some functions below the smallest number."""
    links = 400 // ops
    CASES[f"unary/{name}"] = Case(
        name, lambda side: chain(side, lambda y, lib=side.lib: link(lib, y), links, 4, start), 1600, False
    )


unary("sigmoid", lambda lib, y: lib.sigmoid(y))
unary("sqrt", lambda lib, y: lib.sqrt(y))
unary("sin", lambda lib, y: lib.sin(y))
unary("abs", lambda lib, y: lib.abs(y))
unary("negative", lambda lib, y: lib.negative(y))
unary("exp, negative", lambda lib, y: lib.exp(lib.negative(y)), ops=2)
unary("exp, log", lambda lib, y: lib.log(lib.exp(y)), ops=2)
unary("sum", lambda lib, y: lib.sum(y, axis=1, keepdims=True), start=((0.7,), (0.7,)))


# --- pruned walks: a function of 500 small ops ------------------------------------------------------------------------

QUARTERS = 125  # of 500 ops


def mixed(side) -> Callable:
    """A function of one small tensor: 500 ops of four kinds."""
    tanh = side.lib.tanh
    w, b = (side.constant(np.linspace(low, low + 0.5, 4)) for low in (0.5, 0.1))

    def f(x):
        for _ in range(QUARTERS):
            x = tanh(x * w + b) * 1.5
        return x

    return f


@case("walk/grad", "grad of 500 ops", 500)
def _(side):
    f, x, times = mixed(side), np.linspace(0.2, 0.8, 4), {}

    def loss(x):
        times["begin"] = clock()
        y = f(x).sum()
        times["end"] = clock()
        return y

    gradient = side.lib.grad(loss)

    def run() -> Parts:
        begin = clock()
        gradient(x)
        recording = times["end"] - times["begin"]
        return {"recording": recording, "walk": clock() - begin - recording}

    return run


def walks(walk: Callable, repeats: int = 8) -> Callable:
    def run() -> Parts:
        begin = clock()
        for _ in range(repeats):
            walk()
        return {"walk": clock() - begin}

    return run


@case("walk/vjp", "pull of vjp, 500 ops", 4000)
def _(side):
    _, pull = side.lib.vjp(mixed(side), np.linspace(0.2, 0.8, 4))
    v = side.constant(np.ones(4))
    return walks(lambda: pull(v))


@case("walk/half", "gradients, half of the inputs, 500 ops", 4000)
def _(side):
    lib = side.lib
    wanted, unwanted = ([side.leaf(np.full(4, 0.5 + i / 1000)) for i in range(QUARTERS)] for _ in range(2))
    y = side.constant(np.linspace(0.2, 0.8, 4))
    for a, b in zip(wanted, unwanted):
        y = lib.tanh(y * a + lib.tanh(b))
    seed = side.constant(np.ones(4))
    return walks(lambda: lib.gradients(y, wanted, seed, retain_graph=True))


@case("walk/all", "gradients, all inputs, 500 ops", 4000)
def _(side):
    lib = side.lib
    leaves = [side.leaf(np.full(4, 0.5 + i / 1000)) for i in range(2 * QUARTERS)]
    y = side.constant(np.linspace(0.2, 0.8, 4))
    for a, b in zip(leaves[::2], leaves[1::2]):
        y = lib.tanh(y * a + lib.tanh(b))
    seed = side.constant(np.ones(4))
    return walks(lambda: lib.gradients(y, leaves, seed, retain_graph=True))


# --- raw arrays: an op beside NumPy's own function --------------------------------------------------------------------


def raw(op: Callable, own: Callable, *arrays, calls: int = 2000, slices: int = 5) -> Callable:
    """The two take turns within a run as well, because both are so short."""

    def seconds(function: Callable) -> float:
        begin = clock()
        for _ in range(calls // slices):
            function(*arrays)
        return clock() - begin

    def run() -> Parts:
        pairs = [(seconds(op), seconds(own)) for _ in range(slices)]
        ours, numpy = map(sum, zip(*pairs))
        return {"op": ours, "NumPy": numpy}

    return run


@case("raw/exp", "exp of a raw array of 4", 2000)
def _(side):
    return raw(side.lib.exp, np.exp, np.linspace(0.1, 1.0, 4))


@case("raw/exp 256", "exp of a raw array of 256", 2000)
def _(side):
    return raw(side.lib.exp, np.exp, np.linspace(0.1, 1.0, 256))


@case("raw/tanh", "tanh of a raw array of 4", 2000)
def _(side):
    return raw(side.lib.tanh, np.tanh, np.linspace(0.1, 1.0, 4))


@case("raw/multiply", "multiply of raw arrays", 2000)
def _(side):
    return raw(side.lib.multiply, np.multiply, np.linspace(0.1, 1.0, 4), np.linspace(0.1, 1.0, 4))


# --- whole programs: a guard against slowing down ---------------------------------------------------------------------


def training(side, sizes: tuple[int, ...], batch: int, optimizer: str, steps: int) -> Callable:
    """Steps of a multilayer perceptron on one batch: forward, backward, update."""
    lib, rng = side.lib, np.random.default_rng(0)
    layers = [lib.nn.Linear(n, m, rng=rng) for n, m in zip(sizes, sizes[1:])]
    model = lib.nn.Sequential(*(part for layer in layers for part in (layer, lib.nn.ReLU())))[:-1]
    x = side.constant(rng.standard_normal((batch, sizes[0]), dtype=np.float32))
    target = side.constant(rng.integers(0, sizes[-1], batch))
    update = {"SGD": lib.optim.SGD, "Adam": lib.optim.Adam}[optimizer](model.parameters(), lr=1e-4)

    def run() -> Parts:
        begin = clock()
        for _ in range(steps):
            y = model(x)
            loss = (y * y).sum() if sizes[-1] == 1 else lib.softmax_cross_entropy(y, target)
            update.zero_grad()
            loss.backward()
            update.step()
        return {"steps": clock() - begin}

    return run


@case("program/MLP SGD", "MLP 784-128-10, batch 64, SGD", 5)
def _(side):
    return training(side, (784, 128, 10), 64, "SGD", 5)


@case("program/MLP Adam", "MLP 784-128-10, batch 64, Adam", 5)
def _(side):
    return training(side, (784, 128, 10), 64, "Adam", 5)


@case("program/tiny MLP", "MLP 16-16-1, batch 1, SGD", 50)
def _(side):
    return training(side, (16, 16, 1), 1, "SGD", 50)


def polar_factor(side, n: int, times: int) -> Callable:
    rng = np.random.default_rng(0)
    matrix, seed = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))

    def run() -> Parts:
        begin = clock()
        for _ in range(times):
            side.lib.msign(side.leaf(matrix)).backward(seed)
        return {"forward and VJP": clock() - begin}

    return run


@case("program/msign 64", "msign and its VJP, 64 x 64", 10)
def _(side):
    return polar_factor(side, 64, 10)


@case("program/msign 256", "msign and its VJP, 256 x 256", 1)
def _(side):
    return polar_factor(side, 256, 1)


@case("program/TTT-Muon", "a step of TTT-Muon", 1)
def _(side):
    """The model of examples/train_ttt_muon.py, from the same checkout as the package."""
    sys.path.insert(0, f"{side.root}/examples")
    import train_ttt_muon as example

    data = example.RecallTask(example.parse([])).batch(0)
    model = example.Model(128, chunk=32, base_lr=0.3, inner_step=0.3, msign="smooth")
    optimizer = side.lib.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> Parts:
        begin = clock()
        loss = example.loss_of(model, *data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"step": clock() - begin}

    return run


# --- time is linear ---------------------------------------------------------------------------------------------------


@case("linear/100,000", "a chain of 100,000 ops beside one of 10,000", 1)
def _(side):
    long, short = (chain(side, lambda y: y * 1.0 + 1.0, n // 2) for n in (100_000, 10_000))
    return lambda: {"100,000": sum(long().values()), "10,000": sum(short().values())}


# --- a worker ---------------------------------------------------------------------------------------------------------


def facts(kind: str) -> dict:
    if kind == "torch":
        import torch

        return {"torch": torch.__version__}
    import measure  # imports the package, so of this side's checkout

    return {"tinygrad_ms": measure.tg.__version__, "numpy": np.__version__, "blas": measure.blas()}


def work(kind: str, root: str) -> None:
    """Answer each line of input, the name of a case, by the parts of one run; the first line out is the facts."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a program prints must not stand among the answers
    side = Torch(root) if kind == "torch" else Ours(root)
    runs: dict[str, Callable] = {}
    print(json.dumps(facts(kind)), file=out, flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name not in runs:
            runs[name] = CASES[name].make(side)
            for _ in range(2):  # warm up
                runs[name]()
            gc.collect()
            gc.freeze()  # what imports and models left need not be visited again and again
        gc.collect()
        print(json.dumps(runs[name]()), file=out, flush=True)


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2])
