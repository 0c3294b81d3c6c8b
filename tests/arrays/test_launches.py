"""How many kernels a step launches on a card, as the strict device counts them; and that no step waits.

A GPU of today computes a small step faster than Python can hand its kernels over: what counts there is their number.
Each pin is what was reached, with the figure of the plain array calls beside it.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
import tinygrad_ms.testing
from tinygrad_ms import nn, optim
from tinygrad_ms.testing import forbid_sync, strict
from tinygrad_ms.testing.strict import STATS, xp

RNG = np.random.default_rng(0)


def launches(step, warm=3):
    """The launches of a warm step, which does not make the host wait and copies nothing from it."""
    for _ in range(warm):
        step()
    strict.reset_stats()
    with forbid_sync():
        step()
    assert (STATS.sync, STATS.d2h, STATS.h2d) == (0, 0, 0)
    return STATS.calls


def tensor(*shape, requires_grad=False):
    return tg.tensor(RNG.standard_normal(shape).astype("float32"), device="strict", requires_grad=requires_grad)


def mlp(make_optimizer):
    layers = nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
    model = nn.Sequential(*layers).to("strict")
    optimizer = make_optimizer(model.parameters())
    x, labels = tensor(32, 20), tg.tensor(RNG.integers(0, 10, 32), device="strict")

    def gradients():
        optimizer.zero_grad()
        tg.softmax_cross_entropy(model(x), labels).backward()

    return model, optimizer, gradients


# --- the counter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("a.T", 0), ("a.reshape(8)", 0), ("a.T.reshape(8)", 1), ("a[1:]", 0), ("xp.split(a, 2)", 0), ("a + a", 1),
        ("xp.broadcast_to(a, (3, 2, 4))", 0), ("xp.ascontiguousarray(a)", 0), ("xp.ascontiguousarray(a.T)", 1),
        ("a.astype('f4', copy=False)", 0), ("a.astype('f8')", 1), ("a.sum(axis=0)", 1), ("xp.empty_like(a)", 0),
        ("a @ a.T", 1), ("s @ s", 1), ("s.mT @ s", 2), ("s @ s[:1]", 4), ("xp.matmul(s.mT, s.mT)", 3),
        ("xp.matmul(s, s, out=wide[:, 1:3])", 2), ("xp.concatenate([a, a, a])", 3), ("xp.concatenate([a] * 9)", 1),
        ("a[i]", 1), ("a[i, i]", 5), ("a.__setitem__(..., 1)", 1), ("a.copy()", 1), ("xp.zeros(3)", 0),
    ],
)  # fmt: skip
def test_the_counter_knows_views_copies_and_pointers(expression, count):
    """As CuPy 14 does it: its sources, and a recording of the launches of its own code."""
    names = {"a": xp.ones((2, 4), "f4"), "s": xp.ones((3, 2, 2)), "wide": xp.ones((3, 4, 2)), "i": xp.asarray([0, 1])}
    strict.reset_stats()
    eval(expression, {"xp": xp, **names})
    assert STATS.calls == count


# --- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [optim.SGD, lambda p: optim.SGD(p, momentum=0.9, nesterov=True), optim.Adam, optim.AdamW]
)
def test_a_step_of_all_parameters_is_one_launch(make):
    """13 for each parameter, of which there are six."""
    _, optimizer, gradients = mlp(make)
    gradients()
    assert launches(optimizer.step) == 1


def test_many_parameters_go_64_at_a_time():
    params = [nn.Parameter(np.ones(3, "float32"), device="strict") for _ in range(130)]
    optimizer = optim.Adam(params)
    for p in params:
        p.grad = tensor(3)
    assert launches(optimizer.step) == 3


def test_clipping_is_three_launches():
    """36: squares, their sum, and the factor with all products."""
    model, _, gradients = mlp(optim.Adam)
    gradients()
    assert launches(lambda: optim.clip_grad_norm(model.parameters(), 1e-3)) == 3


def test_a_step_of_muon():
    """270 for Muon alone: 38 for each shape of the matrices, of which msign takes 36, and one for all the biases."""
    _, optimizer, gradients = mlp(optim.Muon)
    gradients()
    assert launches(optimizer.step) <= 122


def test_a_training_step_of_an_mlp():
    """163 before; PyTorch needs about 30."""
    _, optimizer, gradients = mlp(optim.Adam)
    assert launches(lambda: (gradients(), optimizer.step())) <= 23


@pytest.mark.parametrize(
    ("shape", "eps", "forward", "both"),
    [
        ((16, 16), 0.0, 38, 98),
        ((256, 256), 0.0, 41, 104),  # 69 and 203 before; 512 square, too
        ((8, 16, 16), 0.0, 38, 98),  # 69 and 212
        ((16, 64), 0.0, 41, 117),  # 220 in all
        ((16, 16), 1e-2, 47, 100),  # 159 in all
    ],
)
def test_msign_of_eight_steps_and_its_derivative(shape, eps, forward, both):
    m, g = tensor(*shape, requires_grad=True), tensor(*shape)

    def step():
        tg.msign(m, eps=eps, steps=8).backward(g)
        m.grad = None

    assert launches(lambda: tg.msign(m, eps=eps, steps=8)) <= forward
    assert launches(step) <= both


def test_a_training_step_of_ttt_muon():
    """2,085 when CuPy's own launches were first counted (2,642 by the counter of the strict device).

    What is left: the three msign with their derivatives 250, other products 170, products with numbers and rates 150,
    norms of rows 130, gradients added up 78, pieces joined 60, sums over the batch of what is shared by it 37.
    """
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import bench_ttt_muon as bench
    finally:
        sys.path.pop(0)
    tg.set_default_device("strict")
    ours = bench.Ours(**bench.RULES["analytic"])
    tokens, answers = (tg.tensor(x) for x in bench.batch())

    def step():
        ours.optimizer.zero_grad()
        bench.example.loss_of(ours.model, tokens, answers).backward()
        optim.clip_grad_norm(ours.model.parameters(), 1.0)
        ours.optimizer.step()

    assert launches(step, warm=2) <= 991
