"""msign and its family are homogeneous over the whole range of their dtype, in value and derivative."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.ops.test_msign import gradient, pushed
from tinygrad_ms.ops.iterations.driver import into_range

SCALES = {  # powers of two: scaled matrices are exact, down to where elements are subnormal and up to the last one
    "float32": [2.0**k for k in (-126, -100, -64, -33, 33, 64, 100, 124)],
    "float64": [2.0**k for k in (-1022, -600, -257, 257, 600, 1020)],
}
OPTIONS = [{}, {"steps": 8}, {"eps": 0.01}, {"eps": 0.01, "recompute": True}, {"method": "svd"}]
OPTIONS += [{"method": "svd", "eps": 0.01}, {"method": "eigh"}, {"method": "eigh", "eps": 0.01}]
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]


def sample(shape, dtype, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, shape).astype(dtype), random.standard_normal(shape).astype(dtype)


def small_enough(M, G, scale):
    """A cotangent whose gradient at scale M is in range: the gradient has the size |G| / |M|."""
    return G * np.asarray(min(1.0, scale) if scale < 1 else scale / 4, M.dtype)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype, scale", CASES)
def test_msign(dtype, scale, options):
    f = lambda x: tg.msign(x, **options)
    for shape in ((5, 5), (3, 7), (7, 3), (2, 4, 4)):
        M, G = sample(shape, dtype)
        M, factor = M.round(2), np.asarray(scale, dtype)
        S, H = M * factor, small_enough(M, G, scale)
        bar = 1e-5 if dtype == "float32" else 1e-11  # subnormal elements are rounded
        np.testing.assert_allclose(f(tg.tensor(S)).numpy(), f(tg.tensor(S / factor)).numpy(), atol=bar)
        right = gradient(f, S / factor, H / factor)
        np.testing.assert_allclose(gradient(f, S, H), right, rtol=0, atol=bar * np.abs(right).max())
        right = pushed(f, S / factor, H / factor)
        np.testing.assert_allclose(pushed(f, S, H), right, rtol=0, atol=bar * np.abs(right).max())


@pytest.mark.parametrize("dtype", SCALES)
def test_each_matrix_of_a_batch_has_its_own_scale(dtype):
    M, G = sample((6, 4, 4), dtype)
    G[4:] = 0
    scales = np.array([SCALES[dtype][1], SCALES[dtype][-1] / 8, 1, 0, np.nan, np.inf], dtype)[:, None, None]
    G = G * np.minimum(1, np.nan_to_num(scales))
    with np.errstate(invalid="ignore"):
        S = M * scales
        got = gradient(tg.msign, S, G)
        y = tg.msign(tg.tensor(S)).numpy()
    bar = 1e-5 if dtype == "float32" else 1e-12
    for i in (0, 1, 2):
        np.testing.assert_allclose(y[i], tg.msign(tg.tensor(M[i])).numpy(), atol=bar)
        right = gradient(tg.msign, M[i], (G[i] / scales[i]).astype(dtype))
        np.testing.assert_allclose(got[i], right, rtol=0, atol=bar * np.abs(right).max())
    assert not y[3].any() and not got[3].any() and np.isnan(y[4:]).all() and np.isnan(got[4:]).all()


def test_an_overflowing_norm_of_finite_elements():
    random = np.random.default_rng(1)
    M = (random.standard_normal((256, 256)) * 1e37).astype("float32")
    U, _, Vt = np.linalg.svd(M.astype(float))
    np.testing.assert_allclose(tg.msign(tg.tensor(M)).numpy(), U @ Vt, atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"method": "svd"}, {"method": "eigh"}], ids=str)
@pytest.mark.parametrize("scale", [2.0**-800, 2.0**800])
def test_second_derivatives(scale, options):
    (M, G), E = sample((4, 4), "float64"), sample((4, 4), "float64", seed=1)[0]

    def second(k):  # of x -> <G, msign(k x)>, which does not depend on k
        value = lambda x: (tg.msign(x * k, **options) * tg.tensor(G)).sum()
        return tg.jvp(lambda x: tg.grad(value)(x), (tg.tensor(M),), (tg.tensor(E),))[1].numpy()

    np.testing.assert_allclose(second(scale), second(1.0), atol=1e-10)


@pytest.mark.parametrize("dtype, scale", CASES)
def test_polar_and_nuclear_norm(dtype, scale):
    M, G = sample((5, 4), dtype)
    M, bar = (M / 16).round(2), 1e-5 if dtype == "float32" else 1e-11
    S = M * np.asarray(scale, dtype)
    for side in ("right", "left"):
        U, H = tg.polar(tg.tensor(M), side)
        U_scaled, H_scaled = tg.polar(tg.tensor(S), side)
        np.testing.assert_allclose(U_scaled.numpy(), U.numpy(), atol=bar)
        np.testing.assert_allclose(H_scaled.numpy() / np.asarray(scale, dtype), H.numpy(), atol=bar)
    norm = lambda x: tg.nuclear_norm(x)
    np.testing.assert_allclose(norm(tg.tensor(S)).item() / scale, norm(tg.tensor(M)).item(), rtol=bar)
    one = np.ones((), dtype)
    np.testing.assert_allclose(gradient(norm, S, one), gradient(norm, M, one), atol=bar)


def test_ordinary_matrices_are_left_alone():
    for scale in (1e-9, 1.0, 1e9):
        assert into_range(np.eye(3, dtype="float32") * np.float32(scale)) is None
    assert into_range(np.zeros((3, 3))) is None and into_range(np.full((3, 3), np.nan)) is None
    s = into_range(np.stack([np.eye(2), np.eye(2) * 2.0**-1000]))
    assert s.ravel().tolist() == [1.0, 2.0**999]


# --- the recorded iteration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (5, 3), (2, 3, 4), (0, 3, 3), (2, 0)])
def test_msign_unrolled_of_zero_is_zero(shape, dtype):
    for options in ({}, {"steps": 5, "coefficients": "muon"}):
        f = lambda x: tg.msign_unrolled(x, **options)
        M, G = np.zeros(shape, dtype), np.ones(shape, dtype)
        for value in (f(tg.tensor(M)).numpy(), gradient(f, M, G), pushed(f, M, G)):
            assert value.shape == shape and value.dtype == dtype and not value.any()


@pytest.mark.parametrize("dtype, scale", CASES)
def test_msign_unrolled_at_every_scale(dtype, scale):
    f = lambda x: tg.msign_unrolled(x, steps=5, coefficients="muon")
    M, G = sample((2, 4, 5), dtype)
    M[1], factor = 0, np.asarray(scale, dtype)
    S, H = M.round(2) * factor, small_enough(M, G, scale)
    H[1] = min(1, scale)  # what is sent to the zero matrix grows by 3.4 in each step before it meets zero
    bar = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(f(tg.tensor(S)).numpy(), f(tg.tensor(S / factor)).numpy(), atol=bar)
    right = gradient(f, S / factor, H / factor)
    np.testing.assert_allclose(gradient(f, S, H), right, rtol=0, atol=bar * np.abs(right).max())


@pytest.mark.parametrize("kind", ["smooth", "pure", "ns5"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-10, 1.0, 1e4])
def test_ttt_muon_is_finite_for_sequences_of_zeros_and_at_any_scale(kind, scale):
    x = (np.random.default_rng(1).standard_normal((2, 12, 8)) * scale).astype("float32")
    x[0, :8] = 0  # padded
    layer = tg.nn.TTTMuon(8, 2, chunk=4, rng=0, msign=kind)
    y = layer(tg.tensor(x))
    y.sum().backward()
    assert np.isfinite(y.numpy()).all()
    for p in layer.parameters():
        assert p.grad is None or np.isfinite(p.grad.numpy()).all()


def test_on_a_gpu_too():
    """There nobody looks at the values, and every matrix is multiplied by its power of two."""
    M = sample((3, 4, 4), "float64")[0] * np.array([2.0**-800, 1, 2.0**800])[:, None, None]
    x = tg.tensor(M, device="strict")
    for side in ("left", "right"):
        for ours, host in zip(tg.polar(x, side), tg.polar(tg.tensor(M), side)):
            np.testing.assert_allclose(ours.numpy(), host.numpy(), rtol=1e-9)
    np.testing.assert_allclose(tg.nuclear_norm(x).numpy(), tg.nuclear_norm(tg.tensor(M)).numpy(), rtol=1e-12)
    np.testing.assert_allclose(tg.mcsgn(x).numpy(), tg.mcsgn(tg.tensor(M)).numpy(), atol=1e-9)
