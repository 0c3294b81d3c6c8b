"""Backward through runs of large elementwise ops as one compiled loop: the gradients of the plain walk, to rounding."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine import backward
from tinygrad_ms.ops import fused

pytest.importorskip("numba", reason='numba is missing: pip install "tinygrad-ms[fast]", or numba')
SIZE = (1 << 17) + 17


@pytest.fixture(autouse=True)
def loops():
    """The remembered loops, none of them made yet."""
    fused._load()
    from tinygrad_ms.ops.fused import rules

    rules.SEEN.clear()
    yield rules.SEEN
    rules.SEEN.clear()


def normal(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


def function(x, y, w):
    a = x * y
    b = tg.tanh(a + x) - 2.5
    c = tg.exp(-b * b) / (1 + tg.square(y))
    d = tg.sin(c * y) + tg.cos(a * 0.5) * w[0] + tg.abs(b)
    e = tg.sqrt(d * d + 1.0) + tg.log(2.0 + c * c)
    return (tg.relu(e * w) * b - e / 3).sum()


def gradients(function, dtype="float32", retain=False):
    leaves = [tg.tensor(normal(SIZE, seed=i).astype(dtype), requires_grad=True) for i in range(3)]
    loss = function(*leaves)
    loss.backward(retain_graph=retain)
    if retain:
        loss.backward()
    return [x.grad.numpy() for x in leaves]


@pytest.fixture
def plain(monkeypatch):
    """The gradients by the plain walk."""

    def run(*args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(backward, "ORDERS", [lambda tape, grads: reversed(tape)])
            return gradients(*args, **options)

    return run


def made(loops):
    return [loop for loop in loops.values() if type(loop) is not int]


@pytest.mark.parametrize("retain", [False, True])
def test_a_run_that_comes_again_becomes_one_loop(plain, loops, retain):
    from tinygrad_ms.ops.fused.rules import USES

    right = plain(function, "float64", retain)
    for use in range(USES + 1):
        found = gradients(function, retain=retain)
        for g, h in zip(found, right, strict=True):
            assert np.abs(g - h).max() <= 1e-5 * np.abs(h).max()
        assert bool(made(loops)) == ((use + 1) * (1 + retain) >= USES)
    assert None not in made(loops)


def test_in_float64_only_what_has_a_loop_is_in_one(plain, loops):
    def short(x, y, w):
        return (tg.abs(x * y) * w - x / y).sum()

    right = plain(short, "float64")
    for _ in range(6):
        for g, h in zip(gradients(short, "float64"), right, strict=True):
            assert np.abs(g - h).max() <= 1e-13 * np.abs(h).max()
    assert made(loops)


def test_small_arrays_observed_walks_and_switched_off_kernels_take_the_plain_way(loops):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    tg.exp(x * x).sum().backward()
    with tg.profile() as p:
        gradients(function)
    assert {"tanh", "sqrt"} <= {record.op for record in p.records if record.backward}
    was = fused.is_on()
    try:
        fused.set_fused(False)
        gradients(function)
    finally:
        fused.set_fused(was)
    assert not loops


def test_hooks_between_the_ops_get_their_gradients(plain, loops):
    seen = []

    def hooked(x, y, w):
        a = x * y + w
        a.register_hook(lambda g: seen.append(g.numpy().copy()) or 2 * g)
        return tg.exp(-a * a).sum()

    right = plain(hooked)
    for _ in range(6):
        for g, h in zip(gradients(hooked), right, strict=True):
            assert np.allclose(g, h, rtol=1e-5, atol=1e-6)
    assert made(loops) and all(np.allclose(seen[0], g, rtol=1e-5, atol=1e-6) for g in seen)


def test_a_change_in_place_and_a_freed_tape_are_still_errors(loops):
    for k in range(6):
        x = tg.tensor(normal(SIZE).astype("float32"), requires_grad=True)
        loss = tg.exp(x * x).sum()
        if k % 2:
            loss.backward()
            with pytest.raises(RuntimeError, match="freed"):
                loss.backward()
        else:
            with tg.no_grad():
                x += 1
            with pytest.raises(RuntimeError, match="in place"):
                loss.backward()
