"""detect_nan names the op that made the first NaN."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.anomaly import detect_nan
from tinygrad_ms.engine.primitive import linear


def test_it_names_the_op_its_line_and_its_arguments():
    x = tg.tensor([1.0, np.inf], requires_grad=True)
    with detect_nan(), np.errstate(invalid="ignore"), pytest.raises(FloatingPointError) as caught:
        y = x * 2.0
        (y - y).exp().sum()
    text = str(caught.value)
    assert text.startswith("first NaN: the result of subtract at ") and "test_anomaly.py:" in text
    assert "a: float32 (2,) in [2, 2] with 0 NaN and 1 inf" in text


def test_it_names_the_rule_that_made_the_first_nan():
    @linear(transpose=lambda g: g * np.float32("nan"), formula="")
    def broken_rule(xp, x):
        return x * 1

    x = tg.tensor([1.0], requires_grad=True)
    with detect_nan():
        y = (broken_rule(x) * 2.0).sum()
        with pytest.raises(FloatingPointError, match="the rule of broken_rule, recorded at .*test_anomaly.py"):
            y.backward()


def test_it_is_silent_without_nan():
    x = tg.tensor([1.0, np.inf], requires_grad=True)
    with detect_nan():
        (x * 2.0).sum().backward()
    assert x.grad.tolist() == [2, 2]


def test_the_guard_catches_writes_behind_the_tape():
    given = np.array([1.0, 2.0])
    x = tg.tensor([3.0, 4.0], dtype="float64", requires_grad=True)
    with tg.guard_saved():
        y = x * tg.asarray(given)
        z = tg.exp(y).reshape(2, 1)
        loss = (z * z).sum() + (x * x * 0.0).sum()
    for array in (given, x.data, x.numpy(), np.asarray(x.detach()), z.numpy(), z.data.base):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    expected = 2 * np.exp(2 * given * x.numpy()) * given
    loss.backward(retain_graph=True)
    with pytest.raises(ValueError, match="read-only"):
        given[0] = 0.0
    x.grad = None
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), expected)
    for array in (given, x.data, z.data, z.data.base, x.grad.data):  # while the loss is still there
        array[...] = 0.0


def test_the_guard_covers_targets_weights_and_constants_of_ops():
    @tg.rules.primitive(vjp=lambda g, k: g * k)
    def scale(xp, x, /, k):
        return x * k

    x = tg.tensor([[3.0, 4.0]], dtype="float64", requires_grad=True)
    k, target, bounds = np.array([2.0, 3.0]), np.array([[0.25, 0.75]]), np.array([[0.0, 5.0]])
    with tg.guard_saved():
        loss = scale(x, k=k).sum() + tg.softmax_cross_entropy(x, target) + tg.clip(x, bounds, 9.0).sum()
    for array in (k, target, bounds):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
    loss.backward()
    k[...] = 0.0


def test_the_guard_lets_go_with_the_last_tape_and_leaves_read_only_arrays_alone():
    given, constant = np.array([1.0, 2.0]), np.array([5.0, 6.0])
    constant.flags.writeable = False
    x = tg.tensor([3.0, 4.0], dtype="float64", requires_grad=True)
    with tg.guard_saved():
        one, two = x * tg.asarray(given), x * tg.asarray(given[::-1]) * tg.asarray(constant)
    del one
    assert not given.flags.writeable
    del two
    assert given.flags.writeable and x.data.flags.writeable and not constant.flags.writeable


def test_training_goes_on_under_the_guard():
    model = tg.nn.Sequential(tg.nn.Linear(3, 4, rng=0), tg.nn.Tanh(), tg.nn.Linear(4, 1, rng=1))
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    with tg.guard_saved():
        for _ in range(3):
            model.zero_grad()
            loss = tg.square(model(tg.ones((2, 3)))).mean()
            loss.backward()
            optimizer.step()
        loss = model(tg.ones((2, 3))).sum()
        with pytest.raises(ValueError, match="read-only"):
            optimizer.step()  # before backward has used what the parameters were
