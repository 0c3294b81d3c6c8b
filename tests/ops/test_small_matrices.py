"""Kernels of products of matrices agree with NumPy: any shape, layout, tile and number of threads."""

import importlib.util

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import fused
from tinygrad_ms.ops.fused import calls, product_calls, tiles
from tinygrad_ms.ops.iterations.block_solve import solve_symmetric
from tinygrad_ms.ops.matrix_sign.step import _newton_schulz_step as step

INSTALLED = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not INSTALLED, reason='numba is missing: pip install "tinygrad-ms[fast]", or numba')
ROW = {"a": 3.4445, "b": -4.775, "c": 2.0315}
UNIT = 2.0**-24


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def pulled(X, G):
    x = tg.tensor(X, requires_grad=True)
    y = step(x, **ROW)
    y.backward(G)
    return y.numpy(), x.grad.numpy()


def in_double(X, G):
    found, gradient = pulled(X.astype("d"), G.astype("d"))
    assert found.dtype == gradient.dtype == "float64"
    return found, gradient


@pytest.fixture
def called(monkeypatch):
    """The names of the kernels that are called."""
    names = []
    find = fused.find

    def noted(name, *arrays):
        run = find(name, *arrays)
        return run and (lambda *given: names.append(name) or run(*given))

    for module in (calls, product_calls):
        monkeypatch.setattr(module, "find", noted)
    return names


# --- a step of Newton-Schulz ----------------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize(
    "shape", [(40, 32, 32), (300, 17, 16), (3, 5, 64, 64), (14, 50, 48), (40, 16, 48), (130, 1, 16, 16)], ids=str
)
def test_a_step_and_its_rule(shape, called):
    X, G = normal(*shape) / np.float32(sum(shape[-2:]) ** 0.5), normal(*shape, seed=1)
    results = pulled(X, G)
    assert called == ["newton_schulz", "newton_schulz_rule"]
    for found, right in zip(results, in_double(X, G)):
        assert found.dtype == "float32" and np.abs(found - right).max() <= 40 * UNIT * np.abs(right).max()


@needs_numba
def test_a_matrix_that_is_not_finite_spoils_no_other():
    X, G = normal(40, 32, 32) / 8, normal(40, 32, 32, seed=1)
    right = pulled(X, G)
    X[3, 5, 7], X[11, 0, 0] = np.nan, np.inf
    for found, before in zip(pulled(X, G), right):
        assert np.isnan(found[[3, 11]]).all()
        np.testing.assert_array_equal(np.delete(found, [3, 11], 0), np.delete(before, [3, 11], 0))


@needs_numba
def test_arrays_of_other_layouts_and_sizes(called):
    X, G = normal(40, 32, 32) / 8, normal(40, 32, 32, seed=1)
    right = pulled(X, G)
    for found in (pulled(np.asfortranarray(X), G), pulled(X, np.asfortranarray(G))):
        for a, b in zip(found, right):
            np.testing.assert_array_equal(a, b)
    called.clear()
    for shape, dtype in [((40, 32, 30), "f"), ((4, 128, 128), "f"), ((40, 32, 32), "d"), ((2, 32, 32), "f")]:
        pulled(normal(*shape).astype(dtype) / 8, np.ones(shape, dtype))
    assert not called


def test_without_kernels_the_step_is_that_of_the_formula():
    fused._state["on"], before = False, fused._state["on"]
    try:
        X, G = normal(5, 32, 32) / 8, normal(5, 32, 32, seed=1)
        found, gradient = pulled(X, G)
        right, slope = in_double(X, G)
    finally:
        fused._state["on"] = before
    a, b, c = ROW.values()
    wide, S = X.astype("d"), X.astype("d").mT @ X.astype("d")
    np.testing.assert_allclose(right, a * wide + wide @ (b * S + c * S @ S), rtol=1e-12, atol=1e-14)
    for y, z in ((found, right), (gradient, slope)):
        assert np.abs(y - z).max() <= 40 * UNIT * np.abs(z).max()


@needs_numba
def test_results_do_not_depend_on_the_number_of_threads():
    X, G = normal(400, 32, 32) / 8, normal(400, 32, 32, seed=1)
    found = []
    try:
        for threads in (1, 2, 3):
            tg.set_num_threads(threads)
            found.append((*pulled(X, G), product_calls.product(X, G.mT)))
    finally:
        tg.set_num_threads(None)
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


# --- all steps of an iteration in one kernel --------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("rows", ["su", ((1.5, -0.5, 0.0), (1.5, -0.5, 0.0))], ids=["quintics", "cubics"])
@pytest.mark.parametrize("shape, eps", [((70, 32, 32), 0.0), ((60, 64, 16), 0.3), ((2, 20, 16, 57), 0.1)], ids=str)
def test_all_steps_of_msign_and_of_its_derivative(rows, shape, eps, called):
    """They agree with the same steps in float64, which NumPy makes; results do not depend on the number of threads."""
    X, G = normal(*shape) + 16 * np.eye(*shape[-2:], dtype="f"), normal(*shape, seed=1)

    def pulled(dtype):
        x = tg.tensor(X.astype(dtype), requires_grad=True)
        y = tg.msign(x, eps=eps, steps=None if rows == "su" else 2, coefficients=rows)
        y.backward(G.astype(dtype))
        return y.numpy(), x.grad.numpy()

    right = pulled("d")
    assert not called
    found = pulled("f")
    assert called[0] == "newton_schulz" and (called[-1] == "lyapunov") == (shape == (70, 32, 32))
    for y, wide in zip(found, right):
        assert np.abs(y - wide).max() <= 200 * UNIT * np.abs(wide).max()
    try:
        for threads in (2, 3):
            tg.set_num_threads(threads)
            for y, other in zip(found, pulled("f")):
                np.testing.assert_array_equal(y, other)
    finally:
        tg.set_num_threads(None)


@needs_numba
@pytest.mark.parametrize("parity", [1, -1])
def test_all_steps_of_an_equation(parity, called):
    """P W + W P = C for symmetric or skew C. A matrix with NaN spoils no other."""
    root, C = normal(40, 32, 32), normal(40, 32, 32, seed=1)
    P, C = (root @ root.mT / 32 + np.eye(32, dtype="f")), C + parity * C.mT
    found = solve_symmetric(np, P, C, parity, steps=8, coefficients="su")
    assert called == ["lyapunov"]
    wide = solve_symmetric(np, P.astype("d"), C.astype("d"), parity, steps=8, coefficients="su")
    assert np.abs(P @ wide + wide @ P - C).max() < 1e-4
    np.testing.assert_allclose(found, wide, rtol=0, atol=400 * UNIT * np.abs(wide).max())
    P[7, 3, 4] = np.nan
    spoiled = solve_symmetric(np, P, C, parity, steps=8, coefficients="su")
    assert np.isnan(spoiled[7]).all()
    np.testing.assert_array_equal(np.delete(spoiled, 7, 0), np.delete(found, 7, 0))


# --- products ---------------------------------------------------------------------------------------------------------

SHAPES = [
    ((64, 32, 32), (64, 32, 32)), ((32, 2, 32, 32), (2, 32, 32)), ((2, 32, 32), (32, 2, 32, 32)),
    ((30, 5, 17, 32), (30, 1, 16, 32)), ((1, 40, 31, 32), (30, 1, 32, 32)), ((100, 20, 16), (1, 32, 16)),
    ((20, 64, 64), (20, 48, 64)),
]  # fmt: skip


@needs_numba
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("by_rows", [False, True], ids=["columns of the second", "rows of the second"])
def test_products_of_rows_and_columns(shapes, by_rows, called):
    x, z = (normal(*shape, seed=k) for k, shape in enumerate(shapes))
    right = np.ascontiguousarray(z.mT) if by_rows else z.mT
    wide = x.astype("d") @ right.astype("d")
    bound = x.shape[-1] * UNIT * (np.abs(x) @ np.abs(right))
    with_gaps = np.repeat(x, 2, axis=-2)[..., ::2, :]
    firsts = [x, with_gaps] + ([np.ascontiguousarray(x.mT).mT] if by_rows else [])
    for first in firsts:
        y = tg.matmul(tg.tensor(first), tg.tensor(right)).numpy()
        assert y.shape == wide.shape and y.dtype == "float32" and (np.abs(y - wide) <= bound).all()
    assert called == ["products" if by_rows else "turned_products"] * len(firsts)
    x[0, ..., 3, 5] = np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            np.isfinite(tg.matmul(tg.tensor(x), tg.tensor(right)).numpy()), np.isfinite(x @ right)
        )


@needs_numba
def test_other_products_stay_with_blas(called):
    x = normal(64, 32, 32)
    pairs = [(x.mT, x.mT), (x[:4], x[:4].mT), (x[:, :, :30], x[:, :, :30].mT), (x, x[:, :30].mT)]
    pairs += [
        (x.astype("d"), x.mT.astype("d")),
        (x, x.mT.astype("d")),
        (x[None, None], x.mT),
        (np.repeat(x, 2, 1), x.mT),
    ]
    for a, b in pairs:
        np.testing.assert_array_equal(tg.matmul(tg.tensor(a), tg.tensor(b)).numpy().shape, (a @ b).shape)
        assert product_calls.product(a, b) is None
    assert not called
    with pytest.raises(ValueError, match="batch dimensions"):
        tg.matmul(tg.tensor(x), tg.tensor(x[:7]).mT)


MATRICES = [(64, 784, 128), (784, 64, 128), (17, 200, 176), (250, 129, 48), (500, 64, 80), (130, 1024, 112)]


@needs_numba
@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("first", ["rows", "columns"])
@pytest.mark.parametrize("second", ["rows", "columns"])
def test_products_of_two_matrices(shape, first, second, called):
    """Sizes with and without whole tiles and blocks; rows of 4,096 bytes, which a cache puts on one place."""
    n, k, m = shape
    a = normal(n, k) if first == "rows" else normal(k, n).T
    b = normal(k, m, seed=1) if second == "rows" else normal(m, k, seed=1).T
    wide = a.astype("d") @ b.astype("d")
    y = tg.matmul(tg.tensor(a), tg.tensor(b)).numpy()
    if second == "rows" and n < 128:  # a copy of b would not pay
        assert not called
        return
    assert called == ["matrix_product"] and y.shape == (n, m) and y.dtype == "float32" and y.flags.c_contiguous
    assert (np.abs(y - wide) <= k * UNIT * (np.abs(a) @ np.abs(b))).all()
    try:
        tg.set_num_threads(2)
        np.testing.assert_array_equal(product_calls.product(a, b), y)
    finally:
        tg.set_num_threads(None)
    a[3, 5] = np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(np.isfinite(product_calls.product(a, b)), np.isfinite(a @ b))


@needs_numba
def test_a_layer_and_its_gradients_take_the_kernel(called):
    x, weight, bias = normal(64, 784), normal(128, 784, seed=1), normal(128, seed=2)
    leaves = [tg.tensor(a, requires_grad=True) for a in (x, weight, bias)]
    y = tg.linear(*leaves)
    y.backward(g := normal(64, 128, seed=3))
    assert called == ["matrix_product"] * 2  # x W^T and G^T x; G W has few rows
    for found, right in zip((y, *(leaf.grad for leaf in leaves)), (x @ weight.T + bias, g @ weight, g.T @ x, g.sum(0))):
        np.testing.assert_allclose(found.numpy(), right, rtol=1e-4, atol=1e-3)
    assert tg.linear(tg.tensor(x.reshape((2, 32, 784))), tg.tensor(weight)).shape == (2, 32, 128)
    assert called == ["matrix_product"] * 3


@needs_numba
def test_other_products_of_two_matrices_stay_with_blas(called):
    a, b = normal(64, 784), normal(784, 128, seed=1)
    pairs = [
        (a.astype("d"), b.astype("d")), (a, b[:, :120]), (a, b[:, :100].copy()), (a[:8], b), (a[:, :8], b[:8]),
        (np.repeat(a, 2, 1)[:, ::2], b), (normal(512, 512), normal(512, 512)), (a, normal(784)), (a, normal(783, 128)),
    ]  # fmt: skip
    assert all(product_calls.product(*pair) is None for pair in pairs) and not called
    with pytest.raises(ValueError, match="inner dimensions"):
        tg.matmul(tg.tensor(a), tg.tensor(b).T)


# --- tiles ------------------------------------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("features", [{}, {"avx512f": True}], ids=["short registers", "long registers"])
def test_tiles_of_every_size(features, monkeypatch):
    """In the tiles of machines with short registers, too."""
    import llvmlite.binding
    import numba

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    made = tiles.intrinsics()
    product, add_product, turn, copy = (made[name] for name in ("product", "add_product", "turn", "copy"))

    @numba.njit
    def run(y, z, t, u, a, b, c):
        product(y, a, b)
        add_product(z, c.T, b)
        turn(t, a)
        copy(u, a)

    for n, k, m in [(8, 16, 32), (16, 32, 16), (3, 17, 48), (21, 16, 80), (1, 32, 32), (39, 5, 16)]:
        a, b, c = normal(n, k), normal(k, m, seed=1), normal(k, n, seed=2)
        y, z, t, u = np.empty((n, m), "f"), np.ones((n, m), "f"), np.empty((k, n), "f"), np.empty((n, k), "f")
        run(y, z, t, u, a, b, c)
        np.testing.assert_allclose(y, a @ b, atol=1e-5)
        np.testing.assert_allclose(z, 1 + c.T @ b, atol=1e-5)
        np.testing.assert_array_equal(t, a.T)
        np.testing.assert_array_equal(u, a)
        tiles.product(y, a, b)
        tiles.add_product(y, c.T, b)
        tiles.turn(t[::-1], a)
        tiles.copy(u, a[::-1])
        np.testing.assert_allclose(y, (a + c.T) @ b, atol=1e-5)
        np.testing.assert_array_equal(t[::-1], a.T)
        np.testing.assert_array_equal(u, a[::-1])
