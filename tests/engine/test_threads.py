"""Threads and tasks that share leaves, modules and modes: nothing is lost, nothing is exchanged."""

import sys
import threading

import numpy as np
import pytest

import tinygrad_ms as tg


@pytest.fixture(autouse=True)
def switching():
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run the functions at the same time; raise what one of them raised."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_all_gradients_of_a_shared_leaf_are_counted(create_graph):
    w, each = tg.tensor(np.zeros(2000), requires_grad=True), 30 if create_graph else 150

    def add():
        for _ in range(each):
            (w * 1.0).sum().backward(create_graph=create_graph)

    together(*[add] * 6)
    assert w.grad.numpy()[0] == 6 * each


def test_threads_share_one_mode_object():
    mode, seen = tg.no_grad(), []

    def inside():
        for _ in range(300):
            with mode:
                seen.append(tg.is_grad_enabled())
            seen.append(not tg.is_grad_enabled())

    together(*[inside] * 4)
    assert len(seen) == 2400 and not any(seen)


def test_functional_call_gives_each_thread_its_values_and_puts_back():
    model = tg.nn.Sequential(tg.nn.Linear(4, 4, rng=0), tg.nn.Linear(4, 2, rng=1))
    before, x = model.state_dict(), tg.ones((1, 4))

    def call(value):
        state = {name: tg.tensor(np.full(p.shape, value, "f")) for name, p in model.named_parameters()}
        expected = tg.nn.functional_call(model, state, x).numpy()
        assert expected[0, 0] == 4 * (4 * value + value) * value + value
        for _ in range(40):
            np.testing.assert_array_equal(tg.nn.functional_call(model, state, x).numpy(), expected)

    def train():
        p = {name: tg.tensor(p.numpy() * 2) for name, p in model.named_parameters()}
        loss = lambda p: tg.nn.functional_call(model, p, x).sum()
        expected = tg.grad(loss)(p)
        for _ in range(20):
            for name, g in tg.grad(loss)(p).items():
                np.testing.assert_array_equal(g, expected[name])

    together(*[lambda k=k: call(float(k)) for k in range(3)], train)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_threads_that_wait_for_each_other_are_told(monkeypatch):
    monkeypatch.setattr("tinygrad_ms.nn.module.WAITS", 0.05)
    linear = tg.nn.Linear(2, 2)
    state = dict(linear.named_parameters())

    class Waiting(tg.nn.Module):
        def __init__(self):
            self.linear = linear

        def forward(self, x):
            together(lambda: tg.nn.functional_call(linear, state, x))

    with pytest.raises(RuntimeError, match="another thread has exchanged the same parameters.*deepcopy"):
        tg.nn.functional_call(Waiting(), {f"linear.{name}": p for name, p in state.items()}, tg.ones((1, 2)))
    assert linear(tg.ones((1, 2))).shape == (1, 2)


def test_dropout_in_a_checkpoint_drops_the_same_while_other_threads_draw():
    drop, weights = tg.nn.Dropout(0.5, rng=0), np.arange(1.0, 1001.0)

    def train():
        x = tg.tensor(weights, requires_grad=True)
        for _ in range(30):
            x.grad = None
            y = tg.checkpoint(lambda x: tg.square(drop(x)))(x)
            y.sum().backward()
            np.testing.assert_allclose(x.grad.numpy() * weights, 2 * y.numpy())

    together(*[train] * 4)
