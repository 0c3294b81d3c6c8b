"""msign(method="svd"): the closed form is as accurate as its conditioning, at every rank, in every order."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.test_msign import gradient, pushed
from tinygrad_ms.ops.matrix_sign.definite import _solve_by_eigenvalues


def f(x, eps=0.0):
    return tg.msign(x, method="svd", eps=eps)


def recorded(M, G, eps=0.0):
    """The gradient as ``create_graph`` computes it."""
    x = tg.tensor(M, requires_grad=True)
    (f(x, eps) * tg.tensor(G)).sum().backward(create_graph=True)
    return x.grad.numpy()


def orthonormal(n, k, random):
    return np.linalg.qr(random.standard_normal((n, k)))[0]


def of_spectrum(n, m, s, random):
    """U diag(s) V^T and its factors, with columns that complete the bases."""
    U, V = orthonormal(n, n, random), orthonormal(m, m, random)
    S = np.zeros((n, m))
    np.fill_diagonal(S, np.append(s, np.zeros(min(n, m) - len(s))))
    return U @ S @ V.T, U, V


def closed_form(U, s, V, G):
    """The derivative along matrices of the rank of M, from exact factors, one pair of singular vectors at a time."""
    E, (n, m) = U.T @ G @ V, G.shape
    s_row, s_column = np.append(s, np.zeros(n - len(s))), np.append(s, np.zeros(m - len(s)))
    inner = np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            si, sj = s_row[i], s_column[j]
            if si and sj:
                inner[i, j] = (E[i, j] - E[j, i]) / (si + sj)
            elif si or sj:
                inner[i, j] = E[i, j] / (si + sj)
    return U @ inner @ V.T


def relative(x, right):
    return np.linalg.norm(np.asarray(x, float) - right) / np.linalg.norm(right)


@pytest.mark.parametrize(
    "dtype, smallest", [("float32", 1e-3), ("float32", 1e-5), ("float64", 1e-8), ("float64", 1e-11)]
)
@pytest.mark.parametrize("shape", [(16, 16), (5, 5), (12, 20), (20, 12)])
def test_one_small_singular_value(dtype, smallest, shape):
    random, n = np.random.default_rng(5), min(shape)
    s, u = np.append(np.linspace(2, 1, n - 1), smallest), np.finfo(dtype).eps
    M, U, V = of_spectrum(*shape, s, random)
    G = random.standard_normal(shape)
    bar = 50 * u if shape[0] == shape[1] else 50 * u / smallest  # between rows and null space 1 / s_n is the condition
    for derivative in (gradient, pushed):
        assert relative(derivative(f, M.astype(dtype), G.astype(dtype)), closed_form(U, s, V, G)) < bar
    assert relative(recorded(M.astype(dtype), G.astype(dtype)), closed_form(U, s, V, G)) < bar


RANKS = [(n, m, k) for n, m in ((4, 4), (5, 4), (4, 5), (6, 3), (3, 6), (1, 4), (1, 1)) for k in range(min(n, m) + 1)]


@pytest.mark.parametrize("n, m, rank", RANKS)
def test_every_rank(n, m, rank):
    random = np.random.default_rng(13)
    s = np.linspace(3, 1, rank)
    M, U, V = of_spectrum(n, m, s, random)
    M = M if rank else np.zeros((n, m))
    G, right = random.standard_normal((n, m)), None
    right = closed_form(U, s, V, G) if rank else 0 * M
    for value in (gradient(f, M, G), pushed(f, M, G), recorded(M, G)):
        np.testing.assert_allclose(value, right, atol=1e-13)
    inside = lambda x: tg.grad(lambda z: (f(z) * tg.tensor(G)).sum())(x)  # recorded by the transform around it
    outer = tg.jvp(inside, (tg.tensor(M),), (tg.tensor(G),))[0].numpy()
    np.testing.assert_allclose(outer, right, atol=1e-13)


@pytest.mark.parametrize("eps", [0.0, 1e-2, 0.3])
@pytest.mark.parametrize("n, m, rank", [(5, 4, 2), (4, 4, 3), (4, 4, 4), (3, 6, 2), (6, 3, 3)])
def test_second_and_third_derivatives_along_matrices_of_one_rank(n, m, rank, eps):
    """Of u -> <C, msign(u v^T)>, smooth in u, against central differences of the order below."""
    random = np.random.default_rng(13)
    U, V, C, D = (random.standard_normal(shape) for shape in ((n, rank), (m, rank), (n, m), (n, rank)))

    def along(g):
        return lambda u: tg.jvp(g, (u,), (tg.tensor(D),))[1]

    def reverse(g):
        return lambda u: (tg.grad(g)(u) * tg.tensor(D)).sum()

    value = lambda u: (f(u @ tg.tensor(V).mT, eps) * tg.tensor(C)).sum()
    for through in (along, reverse):
        first, second, third = through(value), through(through(value)), through(through(through(value)))
        h = 1e-5
        for lower, higher in ((value, first), (first, second), (second, third)):
            numeric = (lower(tg.tensor(U + h * D)).item() - lower(tg.tensor(U - h * D)).item()) / (2 * h)
            assert abs(higher(tg.tensor(U)).item() - numeric) < 1e-6 * (1 + abs(numeric))


@pytest.mark.parametrize("eps", [1e-9, 1e-6, 1e-3, 0.3])
def test_the_smooth_gradient_does_not_depend_on_create_graph(eps):
    random = np.random.default_rng(3)
    for n, m, rank in ((5, 5, 5), (5, 5, 2), (4, 7, 3), (7, 4, 0)):
        M, G = random.standard_normal((n, rank)) @ random.standard_normal((rank, m)), random.standard_normal((n, m))
        plain = gradient(lambda x: f(x, eps), M, G)
        bar = (1e-15 / eps + 1e-13) * max(1, np.abs(plain).max())  # the condition of the derivative is 1 / eps
        np.testing.assert_allclose(recorded(M, G, eps), plain, rtol=0, atol=bar)


def test_matrices_of_one_batch_do_not_meet():
    random = np.random.default_rng(4)
    M = random.standard_normal((5, 4, 4))
    M[1, :, 0] = M[1, :, 1]
    M[2] = 0
    M[3, 0, 0] = np.nan
    G = random.standard_normal(M.shape)
    for derivative in (lambda M, G: gradient(f, M, G), lambda M, G: pushed(f, M, G), recorded):
        whole = derivative(M, G)
        assert np.isnan(whole[3]).all()
        for i in (0, 1, 2, 4):
            np.testing.assert_allclose(whole[i], derivative(M[i], G[i]), atol=1e-13)


def test_a_muon_with_few_steps_does_not_change_the_closed_form():
    random = np.random.default_rng(6)
    M, G = random.standard_normal((2, 4, 4))
    plain = gradient(f, M, G)
    for create_graph in (False, True):
        x = tg.tensor(M, requires_grad=True)
        tg.msign(x, method="svd", steps=2, coefficients="muon").backward(tg.tensor(G), create_graph=create_graph)
        np.testing.assert_allclose(x.grad.numpy(), plain, atol=1e-12)


def test_equations_without_a_unique_solution_are_not_a_number():
    A, C = np.stack([np.diag([1.0, -1.0]), np.diag([1.0, 2.0])]), np.ones((2, 2, 2))
    x = _solve_by_eigenvalues(A, C)
    assert not np.isfinite(x[0]).all() and np.allclose(A[1] @ x[1] + x[1] @ A[1], C[1])
    assert not _solve_by_eigenvalues(np.zeros((2, 2)), C[0]).any()  # by convention
