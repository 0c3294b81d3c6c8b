"""matmul_precision: what CuPy and cuBLAS are told, what it does to products (as the strict device rounds), NumPy."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.conftest import require
from tinygrad_ms import precision
from tinygrad_ms.arrays import registry


@pytest.fixture(autouse=True)
def float32():
    yield
    precision._choose("float32")


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Library:
    """What ``tell`` uses of CuPy, and what it was told."""

    def __init__(self, cards):
        self.told, self.here = [], 0
        self._core = SimpleNamespace(
            set_compute_type=lambda dtype, kind: self.told.append((dtype, kind)),
            _routines_linalg=SimpleNamespace(COMPUTE_TYPE_TF32=7, COMPUTE_TYPE_DEFAULT=1),
        )
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: cards),
            get_cublas_handle=lambda: f"handle {self.here}",
            cublas=SimpleNamespace(setMathMode=lambda handle, mode: self.told.append((handle, mode))),
        )

    def device(self, number):
        self.here = number
        return nullcontext()


def test_cupy_is_told_the_compute_type_and_cublas_the_mode_of_every_card(monkeypatch):
    library = Library(2)
    backend = SimpleNamespace(xp=library, multi_device=library.device)
    monkeypatch.setitem(registry.FAMILIES, "cuda", backend)
    with tg.matmul_precision("tf32"):
        assert library.told == [("float32", 7), ("handle 0", 3), ("handle 1", 3)]
        tg.matmul_precision("tf32")
        assert len(library.told) == 3  # nothing new
    assert library.told[3:] == [("float32", 1), ("handle 0", 0), ("handle 1", 0)]


def test_a_call_is_for_good_and_a_block_for_the_block():
    tg.matmul_precision("tf32")
    assert precision.current() == "tf32"
    with pytest.raises(ZeroDivisionError), tg.matmul_precision("float32"):
        assert precision.current() == "float32"
        with tg.matmul_precision("tf32"):
            assert precision.current() == "tf32"
        assert precision.current() == "float32"
        1 / 0
    assert precision.current() == "tf32"
    with pytest.raises(ValueError, match="matmul_precision: 'bf16'; expected 'float32' or 'tf32'"):
        tg.matmul_precision("bf16")
    assert precision.current() == "tf32"


PRODUCTS = {
    "two axes": (lambda a, b: a @ b, (20, 30), (30, 10)),
    "a batch": (lambda a, b: a @ b, (4, 20, 30), (4, 30, 10)),
    "einsum": (lambda a, b: tg.einsum("bij,bjk->bik", a, b), (4, 20, 30), (4, 30, 10)),
    "linear": (lambda a, b: tg.linear(a, b.mT), (20, 30), (30, 10)),
}


@pytest.mark.parametrize("card", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", PRODUCTS)
def test_tf32_reaches_every_product_and_its_gradients_on_a_card(case, card):
    product, *shapes = PRODUCTS[case]
    require(card)

    def run(dtype):
        a, b = (tg.tensor(points(*s, seed=i), dtype, card, requires_grad=True) for i, s in enumerate(shapes))
        y = product(a, b)
        (y * y).sum().backward()
        return [t.numpy() for t in (y, a.grad, b.grad)]

    exact, single = run("float64"), run("float32")
    with tg.matmul_precision("tf32"):
        rough, same = run("float32"), run("float64")
    for right, fine, coarse in zip(exact, single, rough):
        scale = np.abs(right).max()
        assert np.abs(fine - right).max() < 1e-5 * scale
        assert 1e-5 * scale < np.abs(coarse - right).max() < 4e-3 * scale
    for found, right in zip(same, exact):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)
    for found, right in zip(run("float32"), single):  # behind the block
        np.testing.assert_array_equal(found, right)


def test_on_numpy_float32_is_float32():
    a, b = (tg.tensor(points(20, 20, seed=i), "float32") for i in (0, 1))
    right = (a @ b).numpy()
    with tg.matmul_precision("tf32"):
        np.testing.assert_array_equal((a @ b).numpy(), right)


def test_msign_in_tf32_is_orthogonal_to_its_digits():
    """As the strict device rounds the factors: what a card would do, but for the order of its sums."""
    M = tg.tensor(points(2, 24, 16), "float32", "strict", requires_grad=True)
    right = tg.msign(tg.tensor(points(2, 24, 16))).numpy()
    with tg.matmul_precision("tf32"):
        for y in (tg.msign(M), tg.msign(M, steps=8)):
            assert 1e-6 < np.abs(y.numpy() - right).max() < 2e-3
            y.sum().backward()
    assert np.isfinite(M.grad.numpy()).all()
