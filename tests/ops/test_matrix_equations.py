"""A X + X B = C, A X + X A = C and square roots in and outside the easy domain: right, refused, or not a number."""

import numpy as np
import pytest
from scipy.linalg import solve_sylvester

import tinygrad_ms as tg
from tests.ops.test_msign import gradient
from tinygrad_ms.ops.iterations import newton

RANDOM = np.random.default_rng(3)
A, B, C = RANDOM.standard_normal((4, 4)), RANDOM.standard_normal((3, 3)), RANDOM.standard_normal((4, 3))
POSITIVE = A @ A.T + np.eye(4)
SPECTRA = {
    "right half plane": (A + 4 * np.eye(4), B + 4 * np.eye(3)),
    "stable, left half plane": (A - 4 * np.eye(4), B - 4 * np.eye(3)),
    "one of each, A further": (A + 9 * np.eye(4), B - 4 * np.eye(3)),
    "one of each, B further": (A - 4 * np.eye(4), B + 9 * np.eye(3)),
    "any": (A, B),
    "mixed signs": (np.diag([1.0, -2, 3, -5]), np.diag([0.5, 4.0, -8.0])),
    "rotations": (np.kron(np.eye(2), [[0, 1.0], [-1, 0]]), np.array([[0, 3.0, 0], [-3, 0, 0], [0, 0, 1]])),
    "nilpotent": (np.eye(4, k=1), np.eye(3) + np.eye(3, k=1)),
    "of far scales": (A * 1e-6, B * 1e3),
}


@pytest.mark.parametrize("options", [{}, {"steps": 20}, {"spectrum": "real"}], ids=str)
@pytest.mark.parametrize("name", SPECTRA)
def test_sylvester_of_any_spectra(name, options):
    a, b = SPECTRA[name]
    x = tg.solve_sylvester(tg.tensor(a), tg.tensor(b), tg.tensor(C), **options).numpy()
    right = solve_sylvester(a, b, C)
    np.testing.assert_allclose(x, right, rtol=0, atol=1e-9 * np.abs(right).max())


@pytest.mark.parametrize("name", SPECTRA)
def test_derivatives_of_sylvester_of_any_spectra(name):
    a, b = SPECTRA[name]
    G = np.random.default_rng(4).standard_normal(C.shape)
    S, X = solve_sylvester(a.T, b.T, G), solve_sylvester(a, b, C)
    for which, right in ((0, -S @ X.T), (1, -X.T @ S), (2, S)):
        f = lambda x: tg.solve_sylvester(*[x if i == which else tg.tensor(m) for i, m in enumerate((a, b, C))])
        got = gradient(f, (a, b, C)[which], G)
        np.testing.assert_allclose(got, right, rtol=0, atol=1e-8 * np.abs(right).max())


def test_each_equation_of_a_batch_is_judged_alone():
    a = np.stack([SPECTRA[name][0] for name in SPECTRA] + [np.eye(4), np.eye(4) * np.nan])
    b = np.stack([SPECTRA[name][1] for name in SPECTRA] + [-np.eye(3), np.eye(3)])
    x = tg.solve_sylvester(tg.tensor(a), tg.tensor(b), tg.tensor(C)).numpy()
    for i in range(len(SPECTRA)):
        right = solve_sylvester(a[i], b[i], C)
        np.testing.assert_allclose(x[i], right, rtol=0, atol=1e-9 * np.abs(right).max())
    assert np.isnan(x[-2:]).all()


def large(n, m, low, high):
    random = np.random.default_rng(5)
    a, b = (np.diag(random.uniform(*ends, k)) + np.triu(random.standard_normal((k, k)), 1) / k
            for k, ends in ((n, low), (m, high)))  # fmt: skip
    return a, b, random.standard_normal((n, m))


@pytest.mark.parametrize("low, high", [((5, 9), (-3, 2)), ((-9, -5), (-2, 3)), ((1, 2), (1, 2)), ((-2, -1), (-2, -1))])
def test_large_equations_are_shifted(low, high):
    a, b, c = large(40, 35, low, high)
    assert c.size > newton.KRONECKER
    x = tg.solve_sylvester(tg.tensor(a), tg.tensor(b), tg.tensor(c)).numpy()
    np.testing.assert_allclose(x, solve_sylvester(a, b, c), atol=1e-10)


def test_large_equations_that_no_shift_helps_are_refused():
    a, b, c = large(40, 35, (-9, 9), (-9, 9))
    with pytest.raises(ValueError, match="solve_sylvester: .*both sides"):
        tg.solve_sylvester(tg.tensor(a), tg.tensor(b), tg.tensor(c))


SINGULAR = {
    "opposite eigenvalues": (np.diag([1.0, 2]), -np.diag([1.0, 5])),
    "nilpotent": (np.eye(2, k=1), np.eye(2, k=1)),
    "equal rotations": (np.array([[0, 1.0], [-1, 0]]), np.array([[0, 1.0], [-1, 0]])),
    "zero": (np.zeros((2, 2)), np.zeros((2, 2))),
}


@pytest.mark.parametrize("options", [{}, {"steps": 20}, {"spectrum": "real"}], ids=str)
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_equations_give_nan_or_large_numbers(name, options):
    a, b = SINGULAR[name]
    x = tg.solve_sylvester(tg.tensor(a), tg.tensor(b), tg.tensor(np.ones((2, 2))), **options).numpy()
    assert not np.isfinite(x).all() or np.abs(x).max() > 1e6


def test_on_a_gpu_fixed_steps_give_nan_where_the_host_would_have_to_look():
    a, b = (np.stack([SPECTRA[name][i] for name in ("any", "right half plane")]) for i in (0, 1))
    arguments = [tg.tensor(x, device="strict") for x in (a, b, C)]
    from tinygrad_ms.testing import forbid_sync

    with forbid_sync():
        x = tg.solve_sylvester(*arguments, steps=20)
    assert np.isnan(x.numpy()[0]).all()
    np.testing.assert_allclose(x.numpy()[1], solve_sylvester(a[1], b[1], C), atol=1e-10)
    np.testing.assert_allclose(tg.solve_sylvester(*arguments).numpy()[0], solve_sylvester(a[0], b[0], C), atol=1e-8)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-500, 2.0**500, 2.0**1000])
def test_equations_at_every_scale(scale):
    a, b = SPECTRA["right half plane"]
    right, small = solve_sylvester(a, b, C), min(1.0, scale)
    x = tg.solve_sylvester(*map(tg.tensor, (a * scale, b * scale, C * small))).numpy() * (scale / small)
    np.testing.assert_allclose(x, right, rtol=1e-9)
    c = tg.tensor(POSITIVE * small)
    y = tg.solve_lyapunov(tg.tensor(POSITIVE * scale), c).numpy() * (scale / small)
    np.testing.assert_allclose(y, np.eye(4) / 2, atol=1e-12)


# --- the sign -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [[[0.0, 1], [-1, 0]], [[0.0, 2, 0], [-3, 0, 0], [0, 0, 1]], np.diag([1.0, 0])], ids=str)
@pytest.mark.parametrize("spectrum", ["complex", "real"])
def test_eigenvalues_without_a_sign_give_nan(x, spectrum):
    if spectrum == "complex" or np.iscomplex(np.linalg.eigvals(x)).any():
        assert np.isnan(tg.mcsgn(tg.tensor(np.asarray(x)), spectrum=spectrum).numpy()).all()


def test_a_broken_promise_of_a_real_spectrum_gives_nan():
    x = np.stack([A, POSITIVE])
    sign = tg.mcsgn(tg.tensor(x), spectrum="real").numpy()
    assert np.isnan(sign[0]).all() and np.allclose(sign[1], np.eye(4))
    np.testing.assert_allclose(tg.mcsgn(tg.tensor(A)).numpy() @ tg.mcsgn(tg.tensor(A)).numpy(), np.eye(4), atol=1e-10)


# --- symmetric A ----------------------------------------------------------------------------------------------------


SYMMETRIC = {
    "negative definite": -POSITIVE,
    "indefinite": POSITIVE - 3.3 * np.eye(4),
    "indefinite diagonal": np.diag([1.0, -0.5, 2, 7]),
    "barely definite": np.diag([1.0, 1e-9, 2, 7]),
}


@pytest.mark.parametrize("parity", [0, 1, -1])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_lyapunov_of_any_symmetric_matrix(name, parity):
    a = SYMMETRIC[name]
    c, G = (np.random.default_rng(k).standard_normal((4, 4)) for k in (6, 7))
    part = lambda x: (x + parity * x.T) / 2 if parity else x
    f = lambda x: tg.solve_lyapunov(tg.tensor(a), x, parity=parity)
    for value, right in ((f(tg.tensor(c)).numpy(), solve_sylvester(a, a, part(c))),
                         (gradient(f, c, G), solve_sylvester(a, a, part(G)))):  # fmt: skip
        np.testing.assert_allclose(value, right, rtol=0, atol=1e-7 * np.abs(right).max())
    h, E = 1e-6, np.random.default_rng(8).standard_normal((4, 4))
    E = E + E.T
    if name != "barely definite":
        value = lambda t: (solve_sylvester(a + t * E, a + t * E, part(c)) * G).sum()
        pushed = (gradient(lambda x: tg.solve_lyapunov(x, tg.tensor(c), parity=parity), a, G) * E).sum()
        np.testing.assert_allclose(pushed, (value(h) - value(-h)) / (2 * h), rtol=1e-5)


def test_lyapunov_of_a_batch_with_bad_matrices():
    a = np.stack(
        [POSITIVE, SYMMETRIC["indefinite"], np.full((4, 4), np.nan), np.diag([1.0, -1, 2, 3]), np.zeros((4, 4))]
    )
    x = tg.solve_lyapunov(tg.tensor(a), tg.tensor(POSITIVE)).numpy()
    for i in (0, 1):
        np.testing.assert_allclose(x[i], solve_sylvester(a[i], a[i], POSITIVE), atol=1e-9)
    assert np.isnan(x[2]).all() and not np.isfinite(x[3]).all() and not x[4].any()


@pytest.mark.parametrize("function", [lambda x: tg.solve_lyapunov(x, x), tg.sqrtm, tg.inv_sqrtm])
def test_matrices_that_are_not_symmetric_are_refused(function):
    skewed = POSITIVE + 0.01 * np.triu(np.ones((4, 4)), 1)
    with pytest.raises(ValueError, match="not symmetric: .* (mcsgn|solve_sylvester)"):
        function(tg.tensor(np.stack([POSITIVE, skewed])))
    batch = tg.tensor(np.stack([POSITIVE, skewed]), device="strict")
    value = function(batch).numpy()
    assert np.isnan(value[1]).all() and np.isfinite(value[0]).all()
    rounded = POSITIVE.astype("float32")
    rounded[0, 1] *= 1 + 1e-6  # rounding errors are symmetrised
    assert np.isfinite(function(tg.tensor(rounded)).numpy()).all()


def test_the_hint_of_sqrtm_is_right():
    x = A + 4 * np.eye(4)
    block = np.block([[np.zeros((4, 4)), x], [np.eye(4), np.zeros((4, 4))]])
    root = tg.mcsgn(tg.tensor(block)).numpy()[:4, 4:]
    np.testing.assert_allclose(root @ root, x, atol=1e-12)


def test_roots_on_a_gpu_of_what_is_not_definite_are_nan():
    batch = tg.tensor(np.stack([POSITIVE, -POSITIVE]), device="strict")
    for function in (tg.sqrtm, tg.inv_sqrtm):
        value = function(batch).numpy()
        assert np.isnan(value[1]).all() and np.isfinite(value[0]).all()


@pytest.mark.parametrize("dtype, scales", [("float32", (-36, -17, 16, 36)), ("float64", (-300, -129, 120, 300))])
def test_square_roots_at_every_scale(dtype, scales):
    G, bar = np.random.default_rng(9).standard_normal((4, 4)).astype(dtype), 1e-5 if dtype == "float32" else 1e-12
    a = POSITIVE.astype(dtype)
    a = (a + a.T) / 2
    for function, power in ((tg.sqrtm, 1), (tg.inv_sqrtm, -1)):
        value, slope = function(tg.tensor(a)).numpy(), gradient(function, a, G)
        for k in scales:
            one = np.ones((), dtype)
            root, s = np.ldexp(one, k * power), a * np.ldexp(one, 2 * k)
            np.testing.assert_allclose(function(tg.tensor(s)).numpy() / root, value, rtol=0, atol=bar)
            g = gradient(function, s, (G * np.ldexp(one, k * (2 - power))).astype(dtype))
            np.testing.assert_allclose(g, slope, rtol=0, atol=bar * np.abs(slope).max())
