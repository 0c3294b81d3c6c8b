"""msign and its family through the public API: accuracy, orders, conventions, memory and work."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.msign_oracle import closed_form, error, matrix, msign_and_gradient
from tests.ops.test_msign_kernels import BARS
from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.ops.iterations.block_solve import InverseOf
from tinygrad_ms.ops.matrix_sign.lyapunov import _solve_lyapunov, polar_derivative
from tinygrad_ms.ops.matrix_sign.msign import METHODS, _msign_tall, msign_unrolled
from tinygrad_ms.ops.matrix_sign.sylvester import msign_dense_vjp
from tinygrad_ms.testing import forbid_sync


def gradient(f, M, G):
    """The cotangent of M for the cotangent G of f(M), as NumPy arrays."""
    x = tg.tensor(M)
    x.requires_grad = True
    f(x).backward(tg.tensor(G))
    return x.grad.numpy()


def pushed(f, M, E):
    return tg.jvp(f, (tg.tensor(M),), (tg.tensor(E),))[1].numpy()


# --- accuracy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, kappa, forward_bar, derivative_bar", BARS)
@pytest.mark.parametrize("kind", ["geometric", "repeated"])
def test_accuracy_of_value_vjp_and_jvp(dtype, kappa, forward_bar, derivative_bar, kind):
    for n, m in [(16, 16), (16, 64), (8, 64)]:
        M, G = matrix(kind, n, m, kappa, dtype, seed=n), matrix("gaussian", n, m, kappa, dtype, seed=n + 1)
        O, expected = msign_and_gradient(M, G)
        for flip in (lambda x: x, lambda x: x.T.copy()):
            assert error(flip(tg.msign(tg.tensor(flip(M))).numpy()), O) < forward_bar
            assert error(flip(gradient(tg.msign, flip(M), flip(G))), expected) < derivative_bar
            assert error(flip(pushed(tg.msign, flip(M), flip(G))), expected) < derivative_bar


@pytest.mark.parametrize("method", METHODS)
def test_gaussian_matrices(method):
    for n, m in [(48, 48), (16, 128), (33, 40)]:
        for dtype, bar in [("float64", 1e-13), ("float32", 3e-5)]:
            M, G = matrix("gaussian", n, m, 1, dtype, seed=5), matrix("gaussian", n, m, 1, dtype, seed=6)
            O, expected = msign_and_gradient(M, G)
            f = lambda x: tg.msign(x, method=method)
            assert error(f(tg.tensor(M)).numpy(), O) < bar
            assert error(gradient(f, M, G), expected) < bar


def smooth_of_any_rank(M, G, eps):
    """Value, VJP and JVP of the smooth msign, from the SVD in float64."""
    U, s, Vt = np.linalg.svd(M)
    k, e = len(s), eps * np.linalg.norm(M)

    def project(X):  # e grows with ||M||_F: nothing changes along M
        return X - (X * M).sum() / (M * M).sum() * M

    value = (U[:, :k] * (s / np.hypot(s, e))) @ Vt[:k]
    return value, project(closed_form(U, s, Vt.T, G, e)), closed_form(U, s, Vt.T, project(G), e)


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"method": "svd"}, {"method": "eigh"}], ids=str)
@pytest.mark.parametrize("steps", [None, 9])
@pytest.mark.parametrize("eps", [1e-3, 1e-2, 0.3])
def test_smooth_msign_of_any_rank(options, steps, eps):
    random = np.random.default_rng(0)
    low = lambda n, m, r: random.standard_normal((n, r)) @ random.standard_normal((r, m))
    cases = [low(6, 6, 3), low(6, 10, 3), low(10, 6, 3), low(5, 5, 1)]
    cases += [matrix("geometric", n, m, 1e8, "float64") for n, m in [(8, 8), (8, 32), (4, 32)]]
    f = lambda x: tg.msign(x, eps=eps, steps=steps, **options)
    for M in cases:
        G = random.standard_normal(M.shape)
        value, pulled, pushed_forward = smooth_of_any_rank(M, G, eps)
        assert error(f(tg.tensor(M)).numpy(), value) < 1e-8
        assert error(gradient(f, M, G), pulled) < 1e-8
        assert error(pushed(f, M, G), pushed_forward) < 1e-8
        assert np.linalg.norm(pulled) <= np.linalg.norm(G) / (eps * np.linalg.norm(M)) * (1 + 1e-9)


@pytest.mark.parametrize("eps", [1e-3, 1e-2, 0.1])
def test_rounding_errors_of_the_smooth_msign_are_of_the_order_of_u_over_eps(eps):
    random = np.random.default_rng(4)
    for n, m, rank in [(32, 32, 32), (32, 32, 16), (16, 16, 1), (16, 64, 8)]:
        M = (random.standard_normal((n, rank)) @ random.standard_normal((rank, m))).astype("float32")
        G = random.standard_normal((n, m)).astype("float32")
        value, pulled, _ = smooth_of_any_rank(M.astype(float), G.astype(float), eps)
        for recompute in (False, True):
            f = lambda x: tg.msign(x, eps=eps, steps=9, recompute=recompute)
            assert error(f(tg.tensor(M)).numpy(), value) < 2e-7 + 6e-8 / eps
            assert error(gradient(f, M, G), pulled) < 2e-7 + 1.2e-7 / eps


@pytest.mark.parametrize(
    "options", [{"steps": 2}, {"coefficients": "muon"}, {"steps": 4, "coefficients": "muon_you"}], ids=str
)
def test_the_derivative_of_an_unconverged_smooth_msign_stays_bounded(options):
    random = np.random.default_rng(5)
    for shape in [(8, 8), (8, 24)]:
        M, G = random.standard_normal(shape), random.standard_normal(shape)
        for recompute in (False, True):
            f = lambda x: tg.msign(x, eps=1e-2, recompute=recompute, **options)
            g = gradient(f, M, G)
            assert np.isfinite(g).all() and np.linalg.norm(g) < 4 * np.linalg.norm(G) / (1e-2 * np.linalg.norm(M))


# --- higher orders -------------------------------------------------------------------------------------------------


HARD = {
    "identity": np.eye(4), "reflection": np.diag([1.0, 1, -1, -1]), "wide": np.eye(3, 7) * 2, "tall": np.eye(5, 2),
    "gaussian": np.random.default_rng(1).standard_normal((4, 6)),
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"steps": 9}, {"method": "svd"}, {"method": "eigh"}, {"eps": 0.1}, {"eps": 0.1, "recompute": True}],
    ids=str,
)
@pytest.mark.parametrize("name", HARD)
def test_second_and_third_derivatives_where_svd_rules_give_nan(name, options):
    M = HARD[name]
    E = np.random.default_rng(2).standard_normal(M.shape)
    G = np.random.default_rng(3).standard_normal(M.shape)

    def along(f):
        return lambda x: tg.jvp(f, (x,), (tg.tensor(E),))[1]

    def reverse(f):  # <gradient, E>, by backward over what f records
        return lambda x: (tg.grad(f)(x) * tg.tensor(E)).sum()

    f = lambda x: (tg.msign(x, **options) * tg.tensor(G)).sum()
    first, second, third = along(f), along(along(f)), along(along(along(f)))
    h = 1e-4
    for lower, higher in ((first, second), (second, third)):
        numeric = (lower(tg.tensor(M + h * E)) - lower(tg.tensor(M - h * E))).item() / (2 * h)
        assert abs(higher(tg.tensor(M)).item() - numeric) < 1e-5 * (1 + abs(numeric))
    assert abs(reverse(f)(tg.tensor(M)).item() - first(tg.tensor(M)).item()) < 1e-11
    assert abs(reverse(reverse(f))(tg.tensor(M)).item() - second(tg.tensor(M)).item()) < 1e-10
    assert abs(reverse(reverse(reverse(f)))(tg.tensor(M)).item() - third(tg.tensor(M)).item()) < 1e-8


# --- conventions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [0.0, 0.01])
@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (5, 3), (1, 1), (1, 3), (2, 0, 3), (0, 3, 3), (3, 0)])
def test_zero_and_empty(method, eps, shape):
    f = lambda x: tg.msign(x, method=method, eps=eps)
    M = np.zeros(shape)
    assert not f(tg.tensor(M)).numpy().any()
    for derivative in (gradient(f, M, np.ones(shape)), pushed(f, M, np.ones(shape))):
        assert derivative.shape == shape and not derivative.any()


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # by NumPy, of inf - inf in a product
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_non_finite_input_gives_nan_in_its_matrix_only(method, eps):
    for bad in (np.nan, np.inf):
        M = np.random.default_rng(4).standard_normal((3, 4, 5))
        M[1, 2, 3] = bad
        O = tg.msign(tg.tensor(M), method=method, eps=eps).numpy()
        g = gradient(lambda x: tg.msign(x, method=method, eps=eps), M, np.ones(M.shape))
        for x in (O, g):
            assert np.isnan(x[1]).all() and np.isfinite(x[[0, 2]]).all()


@pytest.mark.filterwarnings("ignore:msign. a matrix of")  # the adaptive steps say it, too
def test_check_names_what_is_wrong():
    with pytest.raises(ValueError, match="1 of the 9 elements"):
        tg.msign(tg.tensor([[1.0, np.nan, 0], [0, 1, 0], [0, 0, 1]]), check=True)
    random = np.random.default_rng(5)
    low = random.standard_normal((6, 3)) @ random.standard_normal((3, 6))
    with pytest.warns(RuntimeWarning, match="rank-deficient.*residual.*smallest singular value"):
        tg.msign(tg.tensor(low), check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tg.msign(tg.tensor(random.standard_normal((2, 6, 9))), check=True)


@pytest.mark.filterwarnings("ignore:msign. a matrix of")  # is rank-deficient
def test_rank_deficient_input():
    """newton_schulz: bounded; svd: the factor of the rank and the derivative along matrices of that rank."""
    random = np.random.default_rng(6)
    left, right = random.standard_normal((6, 3)), random.standard_normal((3, 8))
    M, G = left @ right, random.standard_normal((6, 8))
    for dtype in ("float32", "float64"):
        g = gradient(tg.msign, M.astype(dtype), G.astype(dtype))
        least = 25 * 8**0.5 * np.finfo(dtype).eps / 2
        assert np.linalg.norm(g) < 20 / least * np.linalg.norm(G) / np.linalg.norm(M)
    u, s, vt = np.linalg.svd(M)
    f = lambda x: tg.msign(x, method="svd")
    np.testing.assert_allclose(f(tg.tensor(M)).numpy(), u[:, :3] @ vt[:3], atol=1e-13)
    dl, dr, h = random.standard_normal((6, 3)), random.standard_normal((3, 8)), 1e-6
    path = lambda t: f(tg.tensor((left + t * dl) @ (right + t * dr))).numpy()
    tangent = dl @ right + left @ dr
    np.testing.assert_allclose(pushed(f, M, tangent), (path(h) - path(-h)) / (2 * h), atol=1e-7)
    assert abs((gradient(f, M, G) * tangent).sum() - (G * pushed(f, M, tangent)).sum()) < 1e-12
    assert np.abs(u[:, 3:].T @ gradient(f, M, G) @ vt[3:].T).max() < 1e-13


@pytest.mark.parametrize(
    "options",
    [
        {"method": "qr"},
        {"eps": -1},
        {"eps": float("nan")},
        {"eps": 1e-20},
        {"eps": 1e9},
        {"steps": 0},
        {"coefficients": "none"},
    ],
    ids=str,
)
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tg.msign(np.eye(3), **options)


def test_bad_matrices_are_named():
    with pytest.raises(ValueError, match="msign.*shape"):
        tg.msign(np.ones(3))
    with pytest.raises(ValueError, match="parity"):
        tg.solve_lyapunov(np.eye(2), np.eye(2), parity=2)
    with pytest.raises(TypeError, match="inverse is a ndarray"):
        _solve_lyapunov(np.eye(2), np.eye(2), inverse=np.eye(2))
    with pytest.raises(TypeError, match="inverse"):
        tg.solve_lyapunov(np.eye(2), np.eye(2), inverse=InverseOf(np.eye(2), 1.0))
    with pytest.raises(ValueError, match="not positive definite"):
        tg.sqrtm(-np.eye(3))
    with pytest.raises(ValueError, match="solve_sylvester: C has shape"):
        tg.solve_sylvester(np.eye(2), np.eye(3), np.ones((3, 2)))


def test_lists_and_integers_become_floats():
    for wide in ([[3, 0, 0], [0, 4, 0]], np.array([[3, 0, 0], [0, 4, 0]])):
        np.testing.assert_allclose(tg.asarray(tg.msign(wide)).numpy(), np.eye(2, 3), atol=1e-6)
        U, H = tg.polar(wide, "left")
        np.testing.assert_allclose(tg.asarray(H).numpy(), np.diag([3, 4]), atol=1e-5)
    assert tg.asarray(tg.sqrtm([[4, 0], [0, 9]])).dtype == np.float32


@pytest.mark.filterwarnings("ignore:msign. a matrix of")  # is rank-deficient
@pytest.mark.slow
def test_ten_thousand_random_matrices():
    """Shapes 1 to 48, batches, ranks, dtypes and scales: no exception, all finite, value and derivatives."""
    random = np.random.default_rng(7)
    done = 0
    while done < 10_000:
        n, m = random.integers(1, 49, 2) if done % 4 else random.integers(1, 9, 2)
        batch, least = int(random.integers(16, 400)), min(n, m)
        dtype = np.dtype(random.choice(["float32", "float64"]))
        u = np.linalg.qr(random.standard_normal((batch, n, least)))[0]
        v = np.linalg.qr(random.standard_normal((batch, m, least)))[0]
        s = 10 ** (-random.uniform(0, 4, (batch, 1)) * random.uniform(0, 1, (batch, least)))
        scale = 10 ** random.uniform(-30, 30, batch)
        deficient = random.random(batch) < 0.3  # rank-deficient ones at scales around one
        rank = random.integers(0, least + 1, (batch, 1))
        s = np.where(deficient[:, None] & (np.arange(least) >= rank), 0, s)
        scale = np.where(deficient, 10 ** random.uniform(-15, 15, batch), scale)
        M = ((u * s[:, None, :]) @ v.mT * scale[:, None, None]).astype(dtype)
        G = random.standard_normal(M.shape)
        G = (G / np.linalg.norm(G, axis=(1, 2), keepdims=True)).astype(dtype)
        options = {} if random.random() < 0.7 else {"eps": 1e-3, "recompute": random.random() < 0.5}
        x = tg.tensor(M)
        x.requires_grad = True
        y = tg.msign(x, **options)
        y.backward(tg.tensor(G))
        t = pushed(lambda x, options=options: tg.msign(x, **options), M, G)
        for name, value in (("value", y.numpy()), ("VJP", x.grad.numpy()), ("JVP", t)):
            bad = ~np.isfinite(value).all(axis=(1, 2))
            assert not bad.any(), (name, n, m, dtype, options, np.flatnonzero(bad), scale[bad], rank[bad])
        done += batch


# --- work, memory, synchronisation ---------------------------------------------------------------------------------


class CountingArray(np.ndarray):
    """Arrays whose matrix products are added up, in multiplications."""

    work = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        plain = [x.view(np.ndarray) if isinstance(x, CountingArray) else x for x in inputs]
        if ufunc is np.matmul:
            CountingArray.work += plain[0].size * plain[1].shape[-1]
        if out:
            kwargs["out"] = out
        result = getattr(ufunc, method)(*plain, **kwargs)
        return result if out or not isinstance(result, np.ndarray) else result.view(CountingArray)


class CountingNumPy:
    """NumPy whose matmul counts; used by the kernels, whose workspaces are plain arrays."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def matmul(a, b, out=None):
        if min(a.shape[-2], b.shape[-1]) > 1:  # not the norms
            CountingArray.work += a.size * b.shape[-1]
        return np.matmul(a, b, out=out)


@pytest.mark.parametrize("n, m, units", [(32, 32, 60), (32, 256, 90)])
def test_work_of_the_vjp_in_products_of_two_small_matrices(n, m, units, monkeypatch):
    counting = Backend("counting", CountingNumPy(), CountingArray, lambda h, i: h.view(CountingArray), np.asarray)
    monkeypatch.setitem(BACKENDS, CountingArray, counting)
    M, G = (matrix("gaussian", n, m, 1, "float64", seed=k).view(CountingArray) for k in (1, 2))
    O, P = (x.view(CountingArray) for x in _msign_tall(M.mT, steps=8))
    CountingArray.work = 0
    g = polar_derivative(M.mT, O, G.mT, 8, None, None if n == m else P).mT  # as the rules of square and tall M call it
    assert error(np.asarray(g), msign_and_gradient(np.asarray(M), np.asarray(G))[1]) < 1e-12
    assert 50 < CountingArray.work / n**3 <= units


def held(f, M):
    """Bytes that stay allocated while the result of f(M) waits for backward, beyond M itself."""
    x = tg.tensor(M)
    x.requires_grad = True
    f(x)  # caches fill
    gc.collect()
    tracemalloc.start()
    y = f(x)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del y
    return size


@pytest.mark.parametrize("shape", [(128, 128), (64, 256), (8, 32, 32)])
@pytest.mark.slow
def test_memory_held_for_backward_is_the_output(shape):
    M = np.random.default_rng(8).standard_normal(shape).astype("float32")
    assert held(lambda x: tg.msign(x, steps=8), M) <= 2 * M.nbytes + 20_000
    assert held(lambda x: tg.msign(x, eps=1e-2, steps=8), M) <= 2 * M.nbytes + 20_000
    small = min(shape[-2:]) ** 2 * M.nbytes // (shape[-2] * shape[-1])  # of the small side
    assert held(lambda x: tg.msign(x, eps=1e-2, steps=8, recompute=True).sum(), M) <= small + 20_000


@pytest.mark.slow
def test_memory_against_differentiating_through_the_steps():
    M = np.random.default_rng(9).standard_normal((512, 512)).astype("float32")
    ours = held(lambda x: tg.msign(x, steps=8), M)
    assert held(msign_unrolled, M) >= 8 * ours
    assert held(tg.checkpoint(msign_unrolled), M) < 2 * ours


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 8},
        {"steps": 8, "eps": 1e-2},
        {"steps": 8, "eps": 1e-2, "recompute": True},
        {"coefficients": "polar_express"},
    ],
    ids=str,
)
def test_fixed_steps_never_synchronise_the_host(options):
    x = tg.tensor(np.random.default_rng(10).standard_normal((3, 8, 5)), device="strict")
    x.requires_grad = True
    g = tg.tensor(np.random.default_rng(11).standard_normal((3, 8, 5)), device="strict")
    with forbid_sync():
        tg.msign(x, **options).backward(g)
        (grad,) = tg.gradients(tg.msign(x, **options), [x], [g], create_graph=True)
        grad.sum().backward()


# --- the family ----------------------------------------------------------------------------------------------------


def test_polar_and_nuclear_norm():
    M = np.random.default_rng(12).standard_normal((2, 4, 6))
    for side in ("right", "left"):
        U, H = tg.polar(tg.tensor(M), side)
        product = U @ H if side == "right" else H @ U
        np.testing.assert_allclose(product.numpy(), M, atol=1e-13)
        assert np.linalg.eigvalsh(H.numpy()).min() > -1e-13
        for shape in [(4, 6), (6, 4), (5, 5)]:
            G = np.random.default_rng(13).standard_normal(shape)
            f = lambda x, k: (tg.polar(x, side)[k]).sum()
            for k in (0, 1):
                g = gradient(lambda x: f(x, k), G, np.ones(()))
                E, h = np.random.default_rng(14).standard_normal(shape), 1e-6
                numeric = (f(tg.tensor(G + h * E), k) - f(tg.tensor(G - h * E), k)).item() / (2 * h)
                assert abs((g * E).sum() - numeric) < 1e-6
    np.testing.assert_allclose(tg.nuclear_norm(tg.tensor(M)).numpy(), np.linalg.norm(M, "nuc", axis=(1, 2)), rtol=1e-13)
    np.testing.assert_allclose(gradient(lambda x: tg.nuclear_norm(x).sum(), M, np.ones(())), tg.msign(M), atol=1e-14)
    with pytest.raises(ValueError, match="side"):
        tg.polar(M, "up")


def test_the_nuclear_norm_of_norm_is_this_one():
    """Its second derivative is finite at repeated singular values, where the sum of svdvals has none."""
    x = tg.tensor(np.stack([np.eye(3), np.ones((3, 3))], axis=1))
    y = tg.norm(x, "nuc", axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(y.numpy(), [[[3], [3]]], atol=1e-12)
    hessian = tg.hessian(lambda x: tg.norm(x, "nuc", axis=(0, 1)), tg.tensor(np.eye(2))).numpy()
    rotation = np.array([[0, 1], [-1, 0]])
    np.testing.assert_allclose(hessian, np.multiply.outer(rotation, rotation) / 2, atol=1e-13)


def test_mcsgn_is_not_msign_on_the_block_of_the_source():
    """Reading msign for mcsgn, as some public code does, gives another gradient altogether."""
    M, G = matrix("gaussian", 6, 6, 1, "float64", seed=1), matrix("gaussian", 6, 6, 1, "float64", seed=2)
    O, expected = msign_and_gradient(M, G)
    O = O.astype(float)
    block = np.block([[M @ O.T, -G], [np.zeros((6, 6)), -(O.T @ M)]])
    solve = lambda sign: -sign(block)[:6, 6:] / 2
    right, wrong = solve(tg.mcsgn), solve(tg.msign)
    assert error(right - O @ right.T @ O, expected) < 1e-12
    assert error(wrong - O @ wrong.T @ O, expected) > 0.3


def test_the_alternatives_err_as_documented():
    for (n, m), low, high in [((16, 16), 1e-3, 5e-2), ((16, 64), 1e-3, 2e-2)]:
        M, G = matrix("gaussian", n, m, 1, "float64", seed=1), matrix("gaussian", n, m, 1, "float64", seed=2)
        _, expected = msign_and_gradient(M, G)
        assert low < error(msign_dense_vjp(M, G, steps=10), expected) < high
        assert error(gradient(lambda x: msign_unrolled(x, steps=9), M, G), expected) < 1e-13
        assert error(gradient(tg.checkpoint(msign_unrolled), M, G), gradient(msign_unrolled, M, G)) < 1e-13


@pytest.mark.slow
def test_the_example_shows_what_it_says(tmp_path):
    from examples.msign_derivative import main

    result = main(size=32, out=tmp_path)
    assert {"result.json"} <= {path.name for path in tmp_path.iterdir()}
    for table in result["error"].values():
        assert table["mcsgn solve (msign)"][2] < 1e-5 < 1e-3 < table["dense block, eps = 1e-3"][2]
    assert result["typo"]["as printed"][-1] > 1e8 and abs(result["typo"]["corrected"][-1] - 4) < 1e-9
    for table in result["cost"].values():  # each step keeps its matrix, and two as large as the shorter side squared
        assert table["through 8 steps"]["copies of M"] > 6 * table["mcsgn solve (msign)"]["copies of M"]
