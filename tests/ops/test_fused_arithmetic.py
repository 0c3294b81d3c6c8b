"""Arithmetic of large arrays on several threads: bits and warnings of NumPy."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import fused

pytestmark = pytest.mark.skipif(not fused.INSTALLED, reason="numba is not installed: pip install numba")
N = 1 << 19


@pytest.fixture(autouse=True)
def loops(monkeypatch):
    """Two threads, and the results that the loops give."""
    from tinygrad_ms.ops.fused import arithmetic

    found = []
    original = arithmetic.on_team

    def on_team(*given):
        found.append(original(*given))
        return found[-1]

    monkeypatch.setattr(arithmetic, "on_team", on_team)
    fused.loaded()
    tg.set_num_threads(2)
    yield found
    tg.set_num_threads(None)


def numbers(dtype, seed):
    return (np.random.default_rng(seed).normal(size=N) * 10.0 ** np.arange(N).__mod__(30) / 1e15).astype(dtype)


OPS = {
    "add": (tg.add, np.add), "subtract": (tg.subtract, np.subtract), "multiply": (tg.multiply, np.multiply),
    "divide": (tg.divide, np.divide),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPS)
def test_the_bits_are_those_of_numpy(name, dtype, loops):
    ours, numpys = OPS[name]
    a, b = numbers(dtype, 0), numbers(dtype, 1)
    for x, y in ((a, b), (a, 0.3), (7, b), (a.reshape(2, -1), b.reshape(2, -1))):
        given = [tg.tensor(v) if isinstance(v, np.ndarray) else v for v in (x, y)]
        np.testing.assert_array_equal(ours(*given).numpy(), numpys(x, y))
    assert len(loops) == 4 and all(y is not None for y in loops)
    x = tg.tensor(abs(a))
    np.testing.assert_array_equal(tg.sqrt(x).numpy(), np.sqrt(abs(a)))
    assert len(loops) == 5 and loops[-1] is not None


def test_numpy_gives_its_warnings(loops):
    a = np.ones(N, "f")
    a[5], a[7] = 3e38, 0
    x = tg.tensor(a)
    for function, message in (
        (lambda: x * x, "overflow"), (lambda: 1.0 / x, "divide by zero"), (lambda: tg.sqrt(-x), "invalid value"),
    ):  # fmt: skip
        loops.clear()
        with pytest.warns(RuntimeWarning, match=message):
            function()
        assert loops[-1] is None
        with np.errstate(all="raise"), pytest.raises((FloatingPointError, ValueError), match=message):
            function()
    with np.errstate(under="raise"), pytest.raises((FloatingPointError, ValueError), match="underflow"):
        tg.tensor(a * 1e-30) * tg.tensor(a * 1e-30)
    infinite = tg.tensor(np.where(a == 0, np.inf, a))
    np.testing.assert_array_equal((infinite + 1.0).numpy(), infinite.numpy() + 1)


def test_what_does_not_fit_stays_with_numpy(loops):
    a = np.ones((1024, 1024), "f")
    for x, y in ((a.T, a), (a, a[0]), (a, a.astype("d"))):
        np.testing.assert_array_equal((tg.tensor(x) + tg.tensor(y)).numpy(), x + y)
    assert loops and all(y is None for y in loops)
    loops.clear()
    tg.tensor(a[:100]) + 1.0
    tg.set_num_threads(1)
    tg.tensor(a) + 1.0
    tg.set_num_threads(2)
    tg.set_fused(False)
    try:
        tg.tensor(a) + 1.0
    finally:
        tg.set_fused(True)
    assert not loops


def test_derivatives_go_through(loops):
    x = tg.tensor(numbers("float32", 2), requires_grad=True)
    (x * x + x / 2.0).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy() + 0.5, rtol=1e-6, atol=1e-6)
    assert len(loops) >= 3
