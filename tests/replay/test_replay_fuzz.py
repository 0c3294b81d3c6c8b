"""Random steps, compiled and as they are: equal bit for bit, in results, parameters, gradients and optimizer states."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim

UNARY = [
    tg.tanh, tg.sin, tg.relu, tg.sigmoid, tg.softplus, tg.gelu, tg.silu, tg.abs, tg.square, tg.softmax, tg.log_softmax,
    lambda x: x**3, lambda x: tg.exp(-x * x), lambda x: 1 / (1 + x * x), lambda x: tg.sqrt(x * x + 1), lambda x: -x,
    lambda x: x.reshape((-1,)).reshape(x.shape), lambda x: x.T.T, lambda x: x[:, ::-1],
    lambda x: x - x.mean(axis=1, keepdims=True),
    lambda x: tg.clip(x, -1, 1), lambda x: tg.where(x > 0, x, 0.1 * x), lambda x: tg.cumsum(x, axis=1),
    lambda x: tg.layer_norm(x), lambda x: tg.rms_norm(x), lambda x: tg.flip(x, axis=0),
    lambda x: x.max(axis=1, keepdims=True) - x,
    lambda x: tg.concat([x[:, 1:], x[:, :1]], axis=1), lambda x: x.detach() * x, lambda x: tg.roll(x, 1, axis=1),
    lambda x: tg.stack([x, 2 * x]).sum(axis=0), lambda x: x.astype("float64").astype("float32"),
    lambda x: tg.split(x, [1], axis=1)[0].sum(axis=1, keepdims=True) * x, lambda x: x.std(axis=1, keepdims=True) * x,
    lambda x: tg.logsumexp(x, axis=1, keepdims=True) + x,
    lambda x: tg.sort(x, axis=1), lambda x: x[[2, 0, 2]], lambda x: tg.msign(x, steps=3),
    lambda x: tg.take_along_axis(x, tg.argsort(x, axis=0), axis=0), lambda x: tg.index_update(x, 0, 1.0),
    lambda x: tg.minimum(x, 0.3), lambda x: tg.prod(x[:, :2], axis=1, keepdims=True) + x,
]  # fmt: skip
BINARY = [
    lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - 2 * b, tg.maximum, lambda a, b: a / (1 + b * b), tg.hypot,
    lambda a, b: (a @ b.T) @ b, lambda a, b: tg.atan2(a, 1 + b * b),
    tg.logaddexp, lambda a, b: tg.einsum("ij,ij->ij", a, b),
]  # fmt: skip
LOSSES = [lambda y: (y * y).mean(), lambda y: y.sum(), lambda y: tg.huber(y, y.detach() * 0), lambda y: tg.sin(y).max()]
OPTIMIZERS = [
    lambda p: optim.SGD(p, lr=0.01), lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    lambda p: optim.Adam(p, lr=0.01), lambda p: optim.AdamW(p, lr=0.01),
    lambda p: optim.Muon(p, lr=0.01, steps=3),
]  # fmt: skip


def random_step(seed):
    """A step, its parameters and its optimizer; equal for equal seeds."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(2, 5))
    parameters = [
        nn.Parameter(rng.standard_normal(shape).astype("float32") * 0.5)
        for shape in ((width, width), (width,), (1, width), ())
    ]
    plan = []
    for count in range(4, 4 + int(rng.integers(3, 12))):
        binary = rng.random() < 0.5
        which = int(rng.integers(len(BINARY if binary else UNARY)))
        plan.append((binary, which, int(rng.integers(max(0, count - 5), count)), int(rng.integers(count))))
    loss_of = LOSSES[rng.integers(len(LOSSES))]
    optimizer = OPTIMIZERS[rng.integers(len(OPTIMIZERS))](parameters)
    clear, clip, twice = rng.random(3) < (0.8, 0.3, 0.2)

    def step(x):
        if clear:
            optimizer.zero_grad()
        shown = []
        for _ in range(2 if twice else 1):
            values = [x, x @ parameters[0] + parameters[1], x * parameters[2], tg.tanh(x) * parameters[3]]
            for binary, which, i, k in plan:
                values.append(BINARY[which](values[i], values[k]) if binary else UNARY[which](values[i]))
            loss = loss_of(tg.tanh(values[-1]) + values[-2] * 0.1)
            if loss.requires_grad:
                loss.backward()
            if clip:
                shown.append(optim.clip_grad_norm(parameters, 0.5))
            optimizer.step()
            shown += [loss, values[-1].detach() * 1]
        return shown

    return step, parameters, optimizer, (3, width)


def run(seed):
    """How often the list of step ``seed`` was replayed, once all is known to agree."""
    step, parameters, optimizer, shape = random_step(seed)
    eager, others, other, _ = random_step(seed)
    compiled, rng = tg.compile(step), np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        for call in range(6):
            x = (rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 3)).astype("float32")
            for a, b in zip(compiled(x), eager(tg.tensor(x)), strict=True):
                assert a.numpy().tobytes() == b.numpy().tobytes(), (seed, call)
            for p, q in zip(parameters, others):
                assert p.numpy().tobytes() == q.numpy().tobytes(), (seed, call)
                assert (p.grad is None) == (q.grad is None), (seed, call)
                assert p.grad is None or p.grad.numpy().tobytes() == q.grad.numpy().tobytes(), (seed, call)
            kept, expected = optimizer.state_dict()["state"], other.state_dict()["state"]
            assert kept.keys() == expected.keys()
            for entry, wanted in zip(kept.values(), expected.values()):
                assert all(np.array_equal(entry[name], wanted[name], equal_nan=True) for name in wanted), (seed, call)
    return sum(program.runs for group in compiled.families.values() for f in group for program in f.programs.values())


def test_random_steps_agree():
    runs = [run(seed) for seed in range(40)]
    assert sum(runs) >= 3 * 40


@pytest.mark.slow
def test_many_random_steps_agree():
    runs = [run(seed) for seed in range(60, 2060)]
    assert sum(runs) >= 3 * 2000
