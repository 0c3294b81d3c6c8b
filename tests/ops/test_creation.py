"""Constructors: values, dtypes and devices, and random numbers that are the same everywhere."""

import numpy as np
import pytest

import tinygrad_ms as tg

CASES = {
    "zeros": (lambda **o: tg.zeros((2, 3), **o), np.zeros((2, 3))),
    "zeros of a number": (lambda **o: tg.zeros(2, **o), np.zeros(2)),
    "ones": (lambda **o: tg.ones([2, 3], **o), np.ones((2, 3))),
    "full": (lambda **o: tg.full((2,), 2.5, **o), np.full(2, 2.5)),
    "arange": (lambda **o: tg.arange(0.0, 1.0, 0.25, **o), np.arange(0, 1, 0.25)),
    "linspace": (lambda **o: tg.linspace(0, 1, 5, **o), np.linspace(0, 1, 5)),
    "linspace open": (lambda **o: tg.linspace(0, 1, 4, endpoint=False, **o), np.linspace(0, 1, 4, endpoint=False)),
    "eye": (lambda **o: tg.eye(3, **o), np.eye(3)),
    "eye above": (lambda **o: tg.eye(2, 3, 1, **o), np.eye(2, 3, 1)),
    "rand": (lambda **o: tg.rand(2, 3, rng=7, **o), np.random.default_rng(7).random((2, 3))),
    "randn": (lambda **o: tg.randn((2, 3), rng=7, **o), np.random.default_rng(7).standard_normal((2, 3))),
    "randn 0-d": (lambda **o: tg.randn(rng=7, **o), np.random.default_rng(7).standard_normal()),
}


@pytest.mark.parametrize("make, expected", CASES.values(), ids=CASES)
def test_constructors_make_float32_on_the_default_device_unless_told_otherwise(make, expected):
    x = make()
    assert (x.dtype, x.device, x.requires_grad) == (np.float32, "cpu", False)
    np.testing.assert_array_equal(
        x.data, expected.astype(np.float32) if isinstance(expected, np.ndarray) else np.float32(expected)
    )
    tg.set_default_device("strict")
    assert make().device == "strict"


@pytest.mark.parametrize("make, expected", CASES.values(), ids=CASES)
def test_constructors_give_equal_numbers_on_every_device(make, expected, device):
    x = make(dtype="float64", device=device)
    assert x.device == device and x.dtype == np.float64
    np.testing.assert_array_equal(x.numpy(), expected)


def test_integers_and_booleans_keep_their_kind_where_the_value_says_so():
    assert tg.arange(3).tolist() == [0, 1, 2] and tg.arange(3).dtype == np.int64
    assert tg.arange(5, 1, -2).tolist() == [5, 3]
    assert tg.full(2, 7).dtype == np.int64 and tg.full(2, True).dtype == np.bool_
    assert tg.full(2, np.float64(0.1)).dtype == np.float64
    assert tg.zeros(2, dtype=int).dtype == np.int64


@pytest.mark.parametrize("name, value", [("zeros_like", 0), ("ones_like", 1), ("full_like", 7)])
def test_like_constructors_stay_where_their_argument_is(name, value, device):
    def make(x, **options):
        return getattr(tg, name)(x, *([value] if name == "full_like" else []), **options)

    x = tg.tensor([[1.0, 2.0]], dtype="float16", device=device, requires_grad=True)
    y = make(x)
    assert (y.shape, y.dtype, y.device, y.requires_grad) == ((1, 2), np.float16, device, False)
    assert y.tolist() == [[value, value]]
    assert make(x, dtype="int64", shape=(3,)).tolist() == [value] * 3
    assert type(make(x.data)) is type(x.data)
    assert make([1.0, 2.0]).tolist() == [value, value]


def test_random_numbers_come_from_the_default_generator_or_a_seed():
    tg.manual_seed(3)
    first, second = tg.randn(4), tg.randn(4)
    tg.manual_seed(3)
    np.testing.assert_array_equal(tg.randn(4).data, first.data)
    assert not np.array_equal(first.data, second.data)
    rng = np.random.default_rng(5)
    a, b = tg.rand(4, rng=rng), tg.rand(4, rng=rng)
    np.testing.assert_array_equal(np.concatenate([a.data, b.data]), tg.rand(8, rng=5).data)


def test_constructors_may_ask_for_gradients():
    w = tg.randn(3, requires_grad=True)
    (w * w).sum().backward()
    np.testing.assert_array_equal(w.grad.data, 2 * w.data)
    with pytest.raises(TypeError, match="int64 cannot carry gradients"):
        tg.ones(2, dtype=int, requires_grad=True)


def test_a_copy_of_the_callers_memory_is_not_needed_but_never_shared():
    """Each call makes new memory."""
    a, b = tg.zeros(2), tg.zeros(2)
    a[0] = 1.0
    assert b.tolist() == [0, 0]
