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
