"""Products of stacks by one call of BLAS: every layout is handed over as it lies in memory, and nothing is copied."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_ms.testing  # noqa: F401  # makes the strict device known
from tinygrad_ms.launches import cuda
from tinygrad_ms.launches.products import product, strided
from tinygrad_ms.testing import strict
from tinygrad_ms.testing.strict import STATS, asnumpy, xp

RNG = np.random.default_rng(0)


def array(*shape, dtype="float64"):
    return xp.asarray(RNG.standard_normal(shape).astype(dtype))


VIEWS = {  # of (..., n, k): how the first operand lies in memory, and how many calls its product with a stack takes
    "rows": lambda *batch: array(*batch, 5, 4),
    "columns": lambda *batch: array(*batch, 4, 5).mT,
    "a part": lambda *batch: array(*batch, 7, 9)[..., 1:6, 2:6],
    "a part of columns": lambda *batch: array(*batch, 9, 7)[..., 2:6, 1:6].mT,
    "every second row": lambda *batch: array(*batch, 10, 4)[..., ::2, :],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.5, 0.0), (-2.0, 1.5)])
def test_every_layout_is_one_call(view, batch, alpha, beta):
    a, b, out = VIEWS[view](*batch), array(*batch, 6, 4).mT, array(*batch, 5, 6)
    expected = alpha * (asnumpy(a) @ asnumpy(b)) + beta * asnumpy(out)
    strict.reset_stats()
    assert product(xp, a, b, out=out, alpha=alpha, beta=beta) is out
    assert STATS.calls == 1
    np.testing.assert_allclose(asnumpy(out), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("left", "right", "calls"),
    [
        ((8,), (), 1),
        ((), (8,), 1),
        ((4, 3), (3,), 2),  # one distance leads through neither axis of the stack: the small one is copied
        ((3, 2), (2,), 2),  # ... but a call for each of two
        ((4, 1), (1, 3), 3),
        ((4, 1), (3,), 3),
        ((2, 1, 3), (2, 4, 3), 2),
    ],
)
def test_stacks_that_broadcast_need_no_pointers(left, right, calls):
    a, b = array(*left, 5, 4), array(*right, 6, 4).mT
    strict.reset_stats()
    y = product(xp, a, b)
    assert STATS.calls == calls
    np.testing.assert_allclose(asnumpy(y), asnumpy(a) @ asnumpy(b), rtol=1e-13, atol=1e-13)


def test_out_with_gaps_and_with_turned_matrices():
    """Of every second column only a copy is made: BLAS cannot write there."""
    a, b = array(3, 5, 4), array(3, 4, 6)
    for out, calls in (
        (array(3, 9, 6)[:, 2:7], 1),
        (array(3, 5, 8)[..., 1:7], 1),
        (array(3, 6, 5).mT, 1),
        (array(3, 5, 12)[..., ::2], 2),
    ):
        strict.reset_stats()
        product(xp, a, b, out=out)
        assert STATS.calls == calls
        np.testing.assert_allclose(asnumpy(out), asnumpy(a) @ asnumpy(b), rtol=1e-13, atol=1e-13)


def test_stacks_with_gaps_in_several_axes():
    a, b, wide = array(4, 6, 5, 4)[::2, ::2], array(4, 6, 4, 6)[::2, ::2], array(6, 8, 5, 6)
    for out in (None, wide[::3, ::3][:, :3]):
        y = product(xp, a, b, out=out)
        np.testing.assert_allclose(asnumpy(y), asnumpy(a) @ asnumpy(b), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 0, 4), (3, 5, 0), (1, 1, 1), (3, 1, 4), (3, 5, 1)])
def test_empty_and_thin_matrices(shape):
    *batch, n, k = shape
    for a in (array(*batch, n, k), array(*batch, k, n).mT):
        for m in (0, 1, 2):
            b = array(*batch, k, m)
            y = product(xp, a, b)
            assert y.shape == (*batch, n, m)
            np.testing.assert_allclose(asnumpy(y), asnumpy(a) @ asnumpy(b), rtol=1e-13, atol=1e-13)


def test_half_precision_is_added_up_in_float32():
    a, b = xp.asarray(np.full((2, 1, 4096), 1.0, "float16")), xp.asarray(np.full((2, 4096, 1), 1.0, "float16"))
    y = product(xp, a, b)
    assert y.dtype == np.float16 and (asnumpy(y) == 4096).all()


def test_numpy_computes_what_it_computed():
    a, b = RNG.standard_normal((3, 5, 4)), RNG.standard_normal((3, 4, 6))
    out = np.ones((3, 5, 6))
    assert np.array_equal(product(np, a, b), a @ b)
    np.testing.assert_allclose(product(np, a, b, out=out, alpha=2.0, beta=3.0), 2 * (a @ b) + 3)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"a has shape \(3, 5, 4\) and b \(3, 5, 6\): the inner dimensions differ"):
        product(xp, array(3, 5, 4), array(3, 5, 6))


# --- as cuBLAS is called ----------------------------------------------------------------------------------------------


class OnCard(np.ndarray):
    """An array with its address where CuPy has it."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def blas(
    handle, turn_a, turn_b, m, n, k, alpha, a, kind_a, row_a, step_a, b, kind_b, row_b, step_b, beta, c, kind_c, row_c,
    step_c, count, compute, algorithm,
):  # fmt: skip
    """cublasGemmStridedBatchedEx: C <- alpha op(A) op(B) + beta C, columns first, by addresses."""
    assert (handle, kind_a, kind_b, kind_c, algorithm) == (7, 1, 1, 1, -1) and compute in (70, 68, 77)
    real = ctypes.c_double if compute == 70 else ctypes.c_float
    alpha, beta = (real.from_address(p).value for p in (alpha, beta))

    def matrix(address, row, step, i, rows, columns):
        size = ctypes.sizeof(real)
        memory = (real * (row * (columns - 1) + rows)).from_address(address + i * step * size)
        return np.lib.stride_tricks.as_strided(np.frombuffer(memory, real), (rows, columns), (size, row * size))

    for i in range(count):
        left = matrix(a, row_a, step_a, i, *((k, m) if turn_a else (m, k)))
        right = matrix(b, row_b, step_b, i, *((n, k) if turn_b else (k, n)))
        y = matrix(c, row_c, step_c, i, m, n)
        product = alpha * ((left.T if turn_a else left) @ (right.T if turn_b else right))
        y[...] = product if beta == 0 else product + beta * y


@pytest.fixture
def cublas(monkeypatch):
    kinds = {"f": 1, "d": 1}
    functions = SimpleNamespace(
        call=blas, handle=lambda: 7, kinds=kinds, plain={False: 68, True: 70}, tf32=77, algorithm=-1
    )
    monkeypatch.setattr(cuda, "cublas_functions", lambda: functions)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cublas_gets_addresses_flags_and_distances(cublas, view, dtype):
    def on_card(x):
        return x._a.astype(dtype, order="K").view(OnCard)

    a, b = on_card(VIEWS[view](3)), on_card(array(3, 6, 4).mT)
    out = np.ones((3, 5, 9), dtype).view(OnCard)[..., 2:8]
    expected = 2 * (np.asarray(a) @ np.asarray(b)) - 3
    strided(cuda.gemm, np, a, b, out, 2.0, -3.0)
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-5 if dtype == "float32" else 1e-12)
