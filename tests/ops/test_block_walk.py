"""The backward walk in blocks gives the gradients of the plain walk, bit by bit; as one compiled loop, to rounding."""

import importlib.util

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine import backward
from tinygrad_ms.ops import block_walk, fused

SIZE = 3 * block_walk.STEP // 4 + 17


def normal(size, seed=0):
    return np.random.default_rng(seed).standard_normal(size)


@pytest.fixture(autouse=True)
def by_numpy():
    """Without compiled loops, which differ by rounding."""
    was = fused.is_on()
    fused.set_fused(False)
    yield
    fused.set_fused(was)


def function(x, y, w):
    a = x * y
    b = tg.tanh(a + x) - 2.5
    c = tg.exp(-b * b) / (1 + tg.square(y))
    d = tg.sin(c * y) + tg.cos(a * 0.5) * w[0] + tg.abs(b)
    e = tg.sqrt(d * d + 1.0) + tg.log(2.0 + c * c)
    return (tg.relu(e * w) * b - e / 3).sum()


def gradients(dtype="float32", retain=False, function=function):
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


@pytest.fixture
def sent(monkeypatch):
    """The lengths of the runs that are done in blocks."""
    runs, send = [], block_walk.send
    monkeypatch.setattr(block_walk, "send", lambda run, grads: runs.append(len(run)) or send(run, grads))
    return runs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("retain", [False, True])
def test_blocks_give_the_bits_of_the_plain_walk(dtype, retain, plain, sent):
    for found, right in zip(gradients(dtype, retain), plain(dtype, retain), strict=True):
        assert np.array_equal(found, right)
    assert max(sent) > 10


def test_small_arrays_and_observed_walks_take_the_plain_way(sent):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    tg.exp(x * x).sum().backward()
    with tg.profile() as p:
        gradients()
    assert not sent
    assert {"tanh", "sqrt"} <= {record.op for record in p.records if record.backward}


def test_hooks_between_the_ops_get_their_gradients(plain, sent):
    seen = []

    def hooked(x, y, w):
        a = x * y + w
        a.register_hook(lambda g: seen.append(g.numpy().copy()) or 2 * g)
        return tg.exp(-a * a).sum()

    for found, right in zip(gradients(function=hooked), plain(function=hooked), strict=True):
        assert np.array_equal(found, right)
    assert sent and np.array_equal(*seen)


def test_a_change_in_place_is_still_an_error():
    x = tg.tensor(normal(SIZE).astype("float32"), requires_grad=True)
    loss = tg.exp(x * x).sum()
    with tg.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


def test_the_tape_is_freed():
    x = tg.tensor(normal(SIZE).astype("float32"), requires_grad=True)
    loss = tg.exp(-x * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="freed"):
        loss.backward()


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is missing: pip install numba")
def test_a_run_that_comes_again_becomes_one_loop(plain):
    from tinygrad_ms.ops.fused import rules

    def short(x, y, w):
        return (tg.tanh(x * y) * w - x / y).sum()

    right = plain("float64", function=short)
    fused.set_fused(True)
    rules.SEEN.clear()
    for use in range(rules.USES + 1):
        found = gradients(function=short)
        loops = [loop for loop in rules.SEEN.values() if type(loop) is not int]
        assert bool(loops) == (use + 1 >= rules.USES)
        for g, h in zip(found, right, strict=True):
            assert np.abs(g - h).max() <= 1e-6 * np.abs(h).max()
    assert None not in loops
