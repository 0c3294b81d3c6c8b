"""Random programs against a naive engine: plain NumPy, recursion over every path, no tape, no order."""

from functools import reduce

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinygrad_ms as tg

relaxed = settings(max_examples=200, deadline=None, derandomize=True, database=None)


# --- the naive engine ---------------------------------------------------------------------------------------


def summed_to(g, shape):
    """Undo broadcasting: add up over every axis along which ``shape`` was repeated."""
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


# name -> (outputs, one local rule per argument: cotangents and arguments -> cotangent of that argument)
NAIVE = {
    "add": (lambda a, b: a + b, [lambda g, a, b: g, lambda g, a, b: g]),
    "subtract": (lambda a, b: a - b, [lambda g, a, b: g, lambda g, a, b: -g]),
    "multiply": (lambda a, b: a * b, [lambda g, a, b: g * b, lambda g, a, b: g * a]),
    "divide": (lambda a, b: a / b, [lambda g, a, b: g / b, lambda g, a, b: -g * a / b**2]),
    "negative": (lambda a: -a, [lambda g, a: -g]),
    "exp": (np.exp, [lambda g, a: g * np.exp(a)]),
    "sum": (lambda a: np.array(a.sum()), [lambda g, a: g * np.ones(a.shape)]),
    "split": (lambda a: (a[..., :1], a[..., 1:]), [lambda g, h, a: np.concatenate([g, h], axis=-1)]),
}


def as_tuple(y):
    return y if isinstance(y, tuple) else (y,)


def bounded(value):
    """Neither overflows nor is almost zero, whatever comes next."""
    return bool(np.all((np.abs(value) > 0.05) & (np.abs(value) < 3)))


class Program:
    """Straight-line code: values 0, 1, ... are the leaves, then every step adds its outputs."""

    def __init__(self, leaves):
        self.leaves, self.values = leaves, list(leaves)
        self.steps = []  # (name, places of the arguments, places of the outputs)

    def compute(self, name, arguments):
        return as_tuple(NAIVE[name][0](*(self.values[i] for i in arguments)))

    def append(self, name, arguments):
        outputs = self.compute(name, arguments)
        self.steps.append((name, arguments, [len(self.values) + k for k in range(len(outputs))]))
        self.values += outputs

    def run(self, leaves):
        """The same program on tensors."""
        values = list(leaves)
        for name, arguments, _ in self.steps:
            constants = {"indices_or_sections": [1], "axis": -1} if name == "split" else {}
            values += as_tuple(getattr(tg, name)(*(values[i] for i in arguments), **constants))
        return values

    def gradient(self, i, seeds):
        """d sum_k <seed_k, value_k> / d value_i: its own seed, plus what comes back from every use of it."""
        total = seeds.get(i, 0) + np.zeros(self.values[i].shape)
        for name, arguments, outputs in self.steps:
            for local, argument in zip(NAIVE[name][1], arguments):
                if argument == i:
                    cotangents = [self.gradient(k, seeds) for k in outputs]
                    g = local(*cotangents, *(self.values[k] for k in arguments))
                    total = total + summed_to(g, self.values[i].shape)
        return total


@st.composite
def programs(draw):
    count = draw(st.integers(1, 3))
    shapes = draw(mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=3)).input_shapes
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    program = Program([random.uniform(0.5, 1.5, shape) for shape in shapes])
    for name in draw(st.lists(st.sampled_from(sorted(NAIVE)), min_size=4, max_size=10)):
        arguments = [draw(st.integers(0, len(program.values) - 1)) for _ in NAIVE[name][1]]
        try:
            outputs = program.compute(name, arguments)
        except (ValueError, IndexError):
            continue  # parts of a split do not broadcast with everything, and 0-d values have no parts
        if all(map(bounded, outputs)):
            program.append(name, arguments)
    outputs = draw(st.sets(st.integers(0, len(program.values) - 1), min_size=1, max_size=3))
    return program, {k: random.standard_normal(program.values[k].shape) for k in sorted(outputs)}


# --- the properties -----------------------------------------------------------------------------------------


def leaves_of(program):
    return [tg.tensor(leaf, requires_grad=True) for leaf in program.leaves]


def assert_gradients(leaves, program, seeds):
    for i, leaf in enumerate(leaves):
        expected = program.gradient(i, seeds)
        got = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
        scale = max([1.0, *np.abs(expected).ravel()])
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12 * scale)


@relaxed
@given(programs())
def test_backward_of_one_sum_of_outputs(case):
    program, seeds = case
    leaves = leaves_of(program)
    values = program.run(leaves)
    for value, expected in zip(values, program.values, strict=True):
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-12)
    loss = reduce(tg.add, [(values[k] * seed).sum() for k, seed in seeds.items()])
    loss.backward()
    assert_gradients(leaves, program, seeds)


@relaxed
@given(programs())
def test_backward_of_each_output_accumulates(case):
    program, seeds = case
    leaves = leaves_of(program)
    values = program.run(leaves)
    for k, seed in seeds.items():
        values[k].backward(seed, retain_graph=True)
    assert_gradients(leaves, program, seeds)


@relaxed
@given(programs())
def test_create_graph_equals_backward_and_second_order_matches_a_difference(case):
    """d/dh <u, gradient(x + h u)> of the naive engine is what the second backward gives along u."""
    program, seeds = case
    leaves = leaves_of(program)
    values = program.run(leaves)
    loss = reduce(tg.add, [(values[k] * seed).sum() for k, seed in seeds.items()])
    loss.backward(create_graph=True)
    assert_gradients(leaves, program, seeds)
    u = [np.cos(np.arange(leaf.size)).reshape(leaf.shape) for leaf in program.leaves]
    reached = [(leaf, d) for leaf, d in zip(leaves, u) if leaf.grad is not None]
    along = reduce(tg.add, [(leaf.grad * d).sum() for leaf, d in reached], tg.tensor(0.0, dtype="float64"))
    h, slopes = 1e-5, []
    for step in (h, -h):
        moved = Program([leaf + step * d for leaf, d in zip(program.leaves, u)])
        for name, arguments, _ in program.steps:
            moved.append(name, arguments)
        slopes.append(sum(np.sum(moved.gradient(i, seeds) * d) for i, d in enumerate(u)))
    expected = (slopes[0] - slopes[1]) / (2 * h)
    found = 0.0
    if along.requires_grad:
        for leaf in leaves:
            leaf.zero_grad()
        along.backward()
        found = sum(np.sum(leaf.grad.numpy() * d) for leaf, d in zip(leaves, u) if leaf.grad is not None)
    assert abs(found - expected) <= 1e-6 * max(1, abs(expected), *map(abs, slopes))


@relaxed
@given(
    st.sampled_from(["add", "subtract", "multiply", "divide"]),
    mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=4, max_side=3),
)
def test_broadcasting_shapes(name, shapes):
    """The gradient of a broadcast argument is that of the argument repeated in full, added up."""
    random = np.random.default_rng(0)
    a, b = (random.uniform(0.5, 2, shape) for shape in shapes.input_shapes)
    seed = random.standard_normal(shapes.result_shape)
    short = [tg.tensor(x, requires_grad=True) for x in (a, b)]
    full = [tg.tensor(np.broadcast_to(x, shapes.result_shape), requires_grad=True) for x in (a, b)]
    y = getattr(tg, name)(*short)
    assert y.shape == shapes.result_shape
    y.backward(seed)
    getattr(tg, name)(*full).backward(seed)
    for few, many in zip(short, full):
        assert few.grad.shape == few.shape
        expected = summed_to(many.grad.numpy(), few.shape)
        np.testing.assert_allclose(few.grad.numpy(), expected, rtol=1e-12, atol=1e-12)
