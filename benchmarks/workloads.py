"""What ``compare.py`` measures. A workload is written once, over a side of frameworks.py; floors.py has steps by hand.

``make(side)`` gives ``run()``: one step, which returns what is compared with the other sides: the loss of a training
step, the gradients of a function. Everything is float32 unless a title says otherwise.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from frameworks import ADAM

QUICK = os.environ.get("TINYGRAD_MS_BENCHMARK_QUICK") == "1"  # small sizes, to see that everything runs


def size(full, quick):
    return quick if QUICK else full


OURS = ("ours", "ours fast")
COMPILED = ("compiled", "compiled fast")
TAPES = (*OURS, "PyTorch", "mygrad", "autograd")
FLOORS = ("NumPy by hand", "products alone")
MOST = (*OURS, *COMPILED, "PyTorch", "JAX jit")
ALL = (*MOST, "mygrad", "autograd")


class Workload(NamedTuple):
    title: str
    group: str
    make: Callable
    sides: tuple[str, ...]
    tolerance: float  # of the relative difference of what two sides return
    steps: int  # how many calls of ``run`` are compared; a compiled step is replayed from the third on
    compared: Callable  # list of arrays that ``run`` returns -> list of what is compared


WORKLOADS: dict[str, Workload] = {}


def workload(name, title, group, sides=MOST, tolerance=1e-4, steps=1, compared=list):
    def keep(make):
        WORKLOADS[name] = Workload(title, group, make, sides, tolerance, steps, compared)
        return make

    return keep


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng((seed, *shape)).standard_normal(shape)).astype("float32")


def labels(n, classes):
    return np.random.default_rng(n).integers(0, classes, n)


# --- training steps -----------------------------------------------------------------------------------------


class MLP(NamedTuple):
    sizes: tuple[int, ...]
    batch: int
    activation: str
    loss: str
    optimizer: tuple[str, dict]

    def weights(self):
        return [(normal(m, n, scale=n**-0.5), normal(m, scale=0.1)) for n, m in zip(self.sizes, self.sizes[1:])]

    def data(self):
        x = normal(self.batch, self.sizes[0])
        target = normal(self.batch, self.sizes[-1]) if self.loss == "mse" else labels(self.batch, self.sizes[-1])
        return x, target


MLPS = {
    "tiny MLP": MLP((2, 16, 16, 1), 1, "tanh", "mse", ("SGD", dict(lr=0.01))),
    "MLP SGD": MLP((784, 128, 10), size(64, 8), "relu", "cross_entropy", ("SGD", dict(lr=0.01, momentum=0.9))),
    "MLP Adam": MLP((784, *size((512, 512), (16, 16)), 10), size(256, 8), "relu", "cross_entropy", ("Adam", ADAM)),
}


def train_mlp(net):
    def make(side):
        call, parameters = side.mlp(net.weights(), net.activation)
        lossy = getattr(side, net.loss)
        return side.train(lambda p, x, target: lossy(call(p, x), target), parameters, net.data(), net.optimizer)

    return make


for _name, _title, _more in (
    ("tiny MLP", "MLP 2-16-16-1, batch 1, SGD", ()),
    ("MLP SGD", "MLP 784-128-10, batch 64, SGD with momentum", ()),
    ("MLP Adam", "MLP 784-512-512-10, batch 256, Adam", ("PyTorch fused",)),
):
    workload(_name, _title, "programs", (*ALL, *_more, *FLOORS), steps=5)(train_mlp(MLPS[_name]))

TWENTY = size(1_000_000, 1000)


@workload("twenty", "20 elementwise ops on 1e6 numbers", "programs", (*ALL, "NumPy by hand"), steps=3)
def _(side):
    def function(x, y):
        a = x * y
        b = a + x
        c = side.tanh(b)
        d = c * c
        e = side.exp(-d)
        h = side.sin(e * y) + c
        k = side.cos(h * 0.5) * a
        m = k - b
        n = side.sqrt(m * m + 1.0) + e
        return (side.log(n) * d - k).sum()

    return side.pull(function, [normal(TWENTY, seed=1), normal(TWENTY, seed=2)], np.ones((), "float32"))


NODES = size(10_000, 100)


@workload("chain", "a chain of 10,000 nodes", "programs", TAPES)
def _(side):
    def function(x):
        for _ in range(NODES // 2):
            x = x * 1.0001 + 0.0001
        return x

    return side.pull(function, [normal(2)], np.ones(2, "float32"))


@workload("tree", "a tree of 10,000 nodes", "programs", TAPES[:-1])  # autograd takes quadratic time: half a minute
def _(side):
    def function(*leaves):
        level = [x * 1.5 for x in leaves]
        while len(level) > 1:
            level = [a + b for a, b in zip(level[::2], level[1::2])] + level[len(level) & ~1 :]
        return level[0]

    return side.pull(function, list(normal(NODES // 2, 2)), np.ones(2, "float32"))


def ttt_muon(rule):
    def make(side):
        sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
        import bench_ttt_muon as bench

        data, runner = bench.batch(), bench.Ours(**bench.RULES[rule])
        if side.lib.__name__ == "jax":
            from ttt_muon_jax import loss_of

            options = dict(lr=4e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
            start = side.leaves({name: value.numpy() for name, value in runner.model.named_parameters()})
            return side.train(loss_of, start, data, ("AdamW", options), clip=1.0)
        if not hasattr(side, "compiled"):
            peer = bench.peer(rule, {name: value.numpy() for name, value in runner.model.named_parameters()})
            return lambda: peer.step(*data)
        tg = side.lib
        tokens, answers = map(tg.tensor, data)

        def step(tokens, answers):
            loss = tg.cross_entropy(runner.model(tokens, answers.shape[1]), answers)
            runner.optimizer.zero_grad()
            loss.backward()
            tg.optim.clip_grad_norm(runner.model.parameters(), 1.0)
            runner.optimizer.step()
            return loss

        step = side.step(step)
        return lambda: step(tokens, answers)

    return make


for _rule, _title in (
    ("unrolled", "TTT-Muon, through five Newton-Schulz steps"),
    ("analytic", "TTT-Muon, exact: the derivative by the Sylvester solve on both sides"),
):
    _sides = (*OURS, *COMPILED, "PyTorch", *(["JAX jit", "products alone"] if _rule == "unrolled" else []))
    workload(f"TTT {_rule}", _title, "programs", _sides, 1e-3, 3)(ttt_muon(_rule))


class GPT(NamedTuple):
    layers: int = size(4, 1)
    width: int = size(128, 16)
    heads: int = size(4, 2)
    places: int = size(64, 8)
    batch: int = size(8, 2)
    tokens: int = size(256, 16)


def gpt_weights(net):
    d, found = net.width, {}
    shapes = {"tokens": (net.tokens, d), "places": (net.places, d), "head": (net.tokens, d)}
    for i in range(net.layers):
        shapes |= {f"{i}.qkv": (3 * d, d), f"{i}.out": (d, d), f"{i}.up": (4 * d, d), f"{i}.down": (d, 4 * d)}
    for seed, (name, (n, m)) in enumerate(shapes.items()):
        found[name] = normal(n, m, seed=seed, scale=0.05)
        if "." in name or name == "head":
            found[f"{name}.bias"] = np.zeros(n, "float32")
    for name in ["last", *(f"{i}.norm{k}" for i in range(net.layers) for k in range(2))]:
        found[name], found[f"{name}.bias"] = np.ones(d, "float32"), np.zeros(d, "float32")
    return found


def gpt_loss(side, net, p, tokens, targets, mask):
    n, t = tokens.shape

    def linear(x, name):
        return side.linear(x, p[name], p[f"{name}.bias"])

    def norm(x, name):
        return side.layer_norm(x, p[name], p[f"{name}.bias"])

    x = side.embedding(p["tokens"], tokens) + p["places"]
    for i in range(net.layers):
        qkv = linear(norm(x, f"{i}.norm0"), f"{i}.qkv").reshape((n, t, 3, net.heads, net.width // net.heads))
        q, k, v = side.transpose(qkv, (2, 0, 3, 1, 4))
        y = side.transpose(side.attention(q, k, v, mask), (0, 2, 1, 3)).reshape((n, t, net.width))
        x = x + linear(y, f"{i}.out")
        x = x + linear(side.gelu(linear(norm(x, f"{i}.norm1"), f"{i}.up"), approximate="tanh"), f"{i}.down")
    logits = linear(norm(x, "last"), "head")
    return side.cross_entropy(logits.reshape((n * t, net.tokens)), targets.reshape((n * t,)))


@workload("GPT", "GPT: 4 layers, width 128, 4 heads, 64 tokens, batch 8, AdamW", "programs", (*MOST, "products alone"),
          1e-3, 4)  # fmt: skip
def _(side):
    net = GPT()
    text = np.random.default_rng(0).integers(0, net.tokens, (net.batch, net.places + 1))
    mask = np.triu(np.full((net.places, net.places), -1e9, "float32"), 1)
    data = text[:, :-1].copy(), text[:, 1:].copy(), mask
    return side.train(lambda *given: gpt_loss(side, net, *given), side.leaves(gpt_weights(net)), data, ("AdamW", ADAM))


IMAGES = size(64, 2)


def lenet_weights():
    shapes = {"c1": (6, 1, 5, 5), "c2": (16, 6, 5, 5), "f1": (120, 400), "f2": (84, 120), "f3": (10, 84)}
    found = {}
    for name, shape in shapes.items():
        found[name] = normal(*shape, scale=float(np.prod(shape[1:])) ** -0.5)
        found[f"{name}.bias"] = normal(shape[0], scale=0.1)
    return found


def lenet_loss(side, p, x, target):
    for name, padding in (("c1", 2), ("c2", 0)):
        x = side.max_pool(side.relu(side.conv2d(x, p[name], p[f"{name}.bias"], padding=padding)))
    x = x.reshape((x.shape[0], 400))
    for name in ("f1", "f2", "f3"):
        x = side.linear(x, p[name], p[f"{name}.bias"])
        x = x if name == "f3" else side.relu(x)
    return side.cross_entropy(x, target)


@workload("LeNet", "LeNet-5 on 28 x 28, batch 64, SGD with momentum; convolution by windows", "programs",
          (*MOST, "products alone"), 1e-3, 4)  # fmt: skip
def _(side):
    data = normal(IMAGES, 1, 28, 28), labels(IMAGES, 10)
    optimizer = ("SGD", dict(lr=0.01, momentum=0.9))
    return side.train(lambda *given: lenet_loss(side, *given), side.leaves(lenet_weights()), data, optimizer)


# --- msign --------------------------------------------------------------------------------------------------


def conditioned(shape):
    """Matrices with singular values from 1 down to 0.01: all ways converge on them, eight steps too."""
    U, s, V = np.linalg.svd(normal(*shape, seed=1).astype("float64"), full_matrices=False)
    return (U * np.geomspace(1, 0.01, s.shape[-1]) @ V).astype("float32")


def msign(shape):
    def make(side):
        import bench_msign as bench

        M, G = conditioned(shape), normal(*shape, seed=2)
        if hasattr(side, "compiled"):
            return side.pull(lambda x: side.lib.msign(x, method=side.method), [M], G)
        return bench.torch_ways(M, G, 8)[side.msign]

    return make


SHAPES = ((32, 32), (128, 128), (256, 256), (512, 512), (128, 512), (128, 32, 32)) if not QUICK else ((8, 8),)
for _shape in SHAPES:
    _text = " x ".join(map(str, _shape))
    workload(
        f"msign {_text}", f"msign and its VJP, {_text}", "msign",
        ("ours", "ours eigh", "ours svd", "compiled", "PyTorch", "PyTorch through 8 steps", "products alone"), 1e-4,
    )(msign(_shape))  # fmt: skip


# --- one function, forward and backward ---------------------------------------------------------------------

ROWS = size((4096, 512), (8, 6))


def pulled(name, title, function, *shapes, group="elementwise", sides=MOST, tolerance=1e-5):
    """A workload: the VJP of ``function(side, *leaves)`` with normal leaves; the seed has the shape of the result."""

    @workload(name, title, group, sides, tolerance)
    def make(side):
        arrays = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        y = side.numpy(function(side, *map(side.constant, arrays)))
        return side.pull(lambda *leaves: function(side, *leaves), arrays, normal(*y.shape, seed=9))


for _name in "silu sigmoid tanh relu elu selu softplus softmax log_softmax".split():
    pulled(_name, _name, lambda side, x, _name=_name: getattr(side, _name)(x), ROWS)
pulled("gelu", "gelu", lambda side, x: side.gelu(x, approximate="none"), ROWS)
pulled("gelu_tanh", 'gelu(approximate="tanh")', lambda side, x: side.gelu(x, approximate="tanh"), ROWS)
pulled("power", "x**3", lambda side, x: side.power(x, 3), ROWS)
pulled("layer_norm", "layer_norm", lambda side, x, w, b: side.layer_norm(x, w, b), ROWS, ROWS[1:], ROWS[1:])
pulled("rms_norm", "rms_norm", lambda side, x, w: side.rms_norm(x, w), ROWS, ROWS[1:])
pulled("bias relu", "relu(x + b)", lambda side, x, b: side.relu(x + b), ROWS, ROWS[1:])


def share_and_scale(masks):
    """Of the elements that dropout keeps."""
    return [np.array([(mask != 0).mean(), mask.max()]) for mask in masks]


@workload("dropout", "dropout; each side draws its own mask", "elementwise", (*OURS, *COMPILED, "PyTorch"), 1e-2,
          compared=share_and_scale)  # fmt: skip
def _(side):
    shape = size(ROWS, (256, 512))  # enough numbers for shares to be near
    return side.pull(side.lib.nn.Dropout(0.25), [normal(*shape)], np.ones(shape, "float32"))


@workload("cross_entropy", "cross_entropy of 1,024 samples, 10,000 classes", "elementwise")
def _(side):
    n, classes = size((1024, 10_000), (4, 10))
    target = side.constant(labels(n, classes))
    return side.pull(lambda x: side.cross_entropy(x, target), [normal(n, classes)], np.ones((), "float32"))


# --- products, indices, joining -----------------------------------------------------------------------------

N = size(1000, 20)
PARTS = dict(group="others", sides=("ours", "PyTorch"))
pulled("bmm", "64 products of 64 x 64", lambda side, a, b: a @ b, (64, 64, 64), (64, 64, 64), **PARTS)
pulled(
    "attention", "attention, 8 x 4 heads, 64 places, width 32",
    lambda side, q, k, v: side.softmax(q @ k.mT * 0.2) @ v, *[(8, 4, 64, 32)] * 3, **PARTS,
)  # fmt: skip
pulled("bias", "x + b", lambda side, x, b: x + b, (N, N), (N,), **PARTS)
pulled("concat", "concat of four", lambda side, *xs: side.concat(xs, 0), *[(N // 4, N)] * 4, **PARTS)
pulled("stack", "stack of four", lambda side, *xs: side.stack(xs, 0), *[(N // 4, N)] * 4, **PARTS)
pulled("cumsum", "cumsum", lambda side, x: side.cumsum(x, 1), (N, N), **PARTS)
pulled("sum", "sum(axis=0)", lambda side, x: x.sum(0), (N, N), **PARTS)
pulled("max", "max(axis=1)", lambda side, x: side.amax(x, 1), (N, N), **PARTS)
pulled("transposed", "x + x.T", lambda side, x: x + x.T, (N, N), **PARTS)


@workload("take", "x[i] of 1,000 rows, each about ten times", **PARTS)
def _(side):
    index = side.constant(labels(10 * N, N))
    return side.pull(lambda x: x[index], [normal(N, 64)], normal(10 * N, 64))


@workload("embedding", "embedding: 4,096 tokens of 10,000, width 64", **PARTS)
def _(side):
    index = side.constant(labels(4096, 10_000))
    return side.pull(lambda x: side.embedding(x, index), [normal(10_000, 64)], normal(4096, 64))


SMALL = {
    "cross_entropy": lambda side, x, target: side.cross_entropy(x, target),
    "log_softmax": lambda side, x, target: side.log_softmax(x),
    "x.T": lambda side, x, target: x.T,
    "concat": lambda side, x, target: side.concat([x, x], 0),
}
for _name, _function in SMALL.items():

    @workload(f"small {_name}", f"{_name} of 64 x 27, forward", **PARTS)
    def _(side, function=_function):
        x, target = side.leaf(normal(64, 27)), side.constant(labels(64, 27))
        return lambda: function(side, x, target)


@workload("jacobian", "jacobian of 50 numbers to 50", **PARTS)
def _(side):
    w, v, x = (side.constant(normal(*shape, scale=0.1)) for shape in ((50, 50), (50, 50), (50,)))
    return lambda: side.jacobian(lambda x: side.tanh(w @ side.tanh(v @ x)), x)


@workload("hessian", "hessian of 50 numbers", **PARTS)
def _(side):
    w, x = side.constant(normal(50, 50, scale=0.1)), side.constant(normal(50))
    return lambda: side.hessian(lambda x: (side.tanh(w @ x) ** 2).sum(), x)


# --- optimizers ---------------------------------------------------------------------------------------------


def with_gradients(count, n):
    arrays = [normal(n, seed=i) for i in range(count)]
    return arrays, [0.1 * array[::-1].copy() for array in arrays]


UPDATES = {}  # by name: (optimizer, number of parameters, their size)
for _name in ("SGD", "Adam", "AdamW"):
    for _count, _n, _text in ((20, size(50_000, 50), "20 x 50,000"), (200, 50, "200 x 50")):
        _options = dict(lr=0.01, momentum=0.9) if _name == "SGD" else ADAM
        _options = {**_options, "weight_decay": 0.01} if _name == "AdamW" else _options
        UPDATES[f"{_name} {_text}"] = _case = ((_name, _options), _count, _n)
        workload(
            f"{_name} {_text}", f"{_name}, {_text} parameters", "optimizers",
            (*OURS, *COMPILED, "PyTorch", "PyTorch fused", "NumPy by hand"), 1e-5, 4,
        )(lambda side, case=_case: side.update(case[0], *with_gradients(*case[1:])))  # fmt: skip


@workload("clip", "clip_grad_norm, 20 x 50,000", "optimizers", ("ours", "ours fast", "PyTorch"), 1e-5)
def _(side):
    return side.clip([normal(size(50_000, 50), seed=i) for i in range(20)])


# --- files --------------------------------------------------------------------------------------------------


SCRATCH = tempfile.TemporaryDirectory()


def state():
    return {f"w{i}": normal(size(1_250_000, 100), seed=i) for i in range(20)}


@workload("save", "save 100 MB", "files", ("ours", "PyTorch"))
def _(side):
    arrays = {name: side.constant(array) for name, array in state().items()}
    path = os.path.join(SCRATCH.name, "state" + side.suffix)

    def run():
        side.lib.save(*((path, arrays) if side.suffix == ".npz" else (arrays, path)))
        return [float(os.path.getsize(path) > sum(array.nbytes for array in state().values()))]

    return run


@workload("load", "load 100 MB", "files", ("ours", "PyTorch"))
def _(side):
    arrays = {name: side.constant(array) for name, array in state().items()}
    path = os.path.join(SCRATCH.name, "state" + side.suffix)
    side.lib.save(*((path, arrays) if side.suffix == ".npz" else (arrays, path)))
    return lambda: list(side.lib.load(path).values())
