"""The Newton-Schulz kernels on raw arrays: coefficients, the msign iteration, the mcsgn solve on blocks."""

import numpy as np
import pytest
from scipy.linalg import solve_sylvester

from tests.msign_oracle import error, matrix, msign_and_gradient
from tinygrad_ms.ops.iterations.block_solve import InverseOf, solve_symmetric
from tinygrad_ms.ops.iterations.coefficients import (
    POLISH,
    TABLES,
    converge,
    make_schedule,
    minimax_coefficients,
    minimax_quintic,
    rows_to_one,
    shifts,
)
from tinygrad_ms.ops.iterations.polar import orthogonalise


def plain(M, rows):
    """The iteration as it is written in the papers."""
    X = M / np.linalg.norm(M, axis=(-2, -1), keepdims=True)
    for a, b, c in rows:
        S = X @ X.mT
        X = a * X + (b * S + c * S @ S) @ X
    return X


def plain_values(x, rows):
    for a, b, c in rows:
        x = x * (a + x * x * (b + x * x * c))
    return x


def dense_mcsgn(X, rows):
    for a, b, c in rows:
        S = X @ X
        X = a * X + (b * S + c * S @ S) @ X
    return X


# --- coefficients --------------------------------------------------------------------------------------------------


def unsafe(rows, count):
    return [(a * 1.01, b * 1.01**3, c * 1.01**5) for a, b, c in rows[:count]]


def test_the_tables_are_the_minimax_composition_for_one_thousandth():
    rows = minimax_coefficients(1e-3, 7)
    np.testing.assert_allclose(unsafe(TABLES["polar_express"], 7), rows, rtol=0, atol=2e-10)
    printed = [[float(f"{k:.6g}") for k in row] for row in rows[:6]]  # the source prints six digits
    np.testing.assert_allclose(unsafe(TABLES["su"], 6), printed, rtol=0, atol=2e-9)


def test_row_six_of_the_source_is_a_sign_typo():
    a, b, c = unsafe(TABLES["su"], 6)[5]
    assert abs(a + b + c - 1.0001) < 1e-4 and b < 0
    typo = [*TABLES["su"][:5], (a / 1.01, -b / 1.01**3, c / 1.01**5), POLISH, POLISH]
    assert np.abs(plain(np.eye(4), typo)).max() > 1e8


@pytest.mark.parametrize("lower", [1.0, 0.3, 1e-2, 1e-5, 1e-9])
def test_minimax_rows_bring_the_whole_interval_to_one(lower):
    x = plain_values(np.geomspace(lower, 1, 5001), minimax_coefficients(lower))
    assert np.abs(x - 1).max() < 1.001e-3


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, 1e-13])
def test_rows_to_one_are_as_few_as_can_be(tolerance):
    for lower in (0.5, 0.2, 1e-2, 1e-4):
        rows, x = rows_to_one(lower, tolerance), np.geomspace(lower, 1, 5001)
        assert np.abs(plain_values(x, rows) - 1).max() <= 1.001 * tolerance + 1e-15
        fewer = minimax_coefficients(lower, steps=len(rows) - 1)
        assert np.abs(plain_values(x, fewer) - 1).max() > tolerance


def test_the_minimax_quintic_of_narrow_intervals():
    for width in np.geomspace(1e-1, 1e-9, 400):
        x = np.linspace(1 - width, 1 + width, 201)
        error = np.abs(plain_values(x, [minimax_quintic(1 - width, 1 + width)]) - 1).max()
        assert error < 0.64 * width**3 + 4e-15  # Taylor's quintic: 2.5 width^3


def test_it_is_known_beforehand_whether_rows_converge():
    u = 2.0**-24
    assert converge(8, None, 1e-3, 8, 8, u) and not converge(5, None, 1e-3, 8, 8, u)
    assert not converge(None, "muon", 0.1, 8, 8, u)  # they end in [0.7, 1.2]
    assert converge(None, None, 1e-4, 8, 8, u) and not converge(
        None, None, 1e-6, 8, 8, u
    )  # adaptive: down to the noise


@pytest.mark.parametrize("lower", [0, -1, 1.5, float("nan")])
def test_minimax_coefficients_names_a_bad_bound(lower):
    with pytest.raises(ValueError, match="lower"):
        minimax_coefficients(lower)


# --- fixed steps ---------------------------------------------------------------------------------------------------


CUBIC = ((1.5, -0.5, 0.0),)
NEGATIVE = ((2.0, -1.0, -0.05), (1.5, -0.5, 0.0), POLISH)


@pytest.mark.parametrize("table", [*TABLES, CUBIC, NEGATIVE])
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_steps_are_the_rows_of_the_table_then_the_last_one(table, steps):
    rows = TABLES.get(table, table) if isinstance(table, str) else table
    rows = (*rows, *rows[-1:] * steps)[:steps]
    M = np.random.default_rng(0).standard_normal((3, 5, 7))
    np.testing.assert_allclose(orthogonalise(np, M, steps, table), plain(M, rows), rtol=1e-9, atol=1e-11)


def test_a_named_table_without_steps_runs_its_rows_once():
    M = np.random.default_rng(0).standard_normal((5, 7))
    np.testing.assert_allclose(orthogonalise(np, M, None, "muon"), plain(M, TABLES["muon"]), rtol=1e-10)


@pytest.mark.parametrize("parity", [-1, 0, 1])
@pytest.mark.parametrize("table", ["su", CUBIC])
@pytest.mark.parametrize("steps", [2, 8])
def test_the_block_solve_is_the_dense_mcsgn_iteration(parity, table, steps):
    random = np.random.default_rng(1)
    P = random.standard_normal((5, 9))
    P, C = P @ P.T, random.standard_normal((5, 5))
    C = C if parity == 0 else (C + parity * C.T) / 2
    norm = np.linalg.norm(P)
    rows = TABLES[table] if isinstance(table, str) else table
    block = dense_mcsgn(np.block([[P, C], [0 * P, -P]]) / norm, (*rows, *rows[-1:] * steps)[:steps])
    W, J = solve_symmetric(np, P, C, parity, True, steps, table)
    np.testing.assert_allclose(W, block[:5, 5:] / 2, rtol=0, atol=1e-11 * np.abs(block).max())
    np.testing.assert_allclose(J @ P, block[:5, :5], rtol=0, atol=1e-11)


def test_shifts_end_at_the_scale_asked_for():
    for end in (1.0, 1.3):
        scale, pairs = shifts(TABLES["su"], end)
        y = x = 0.37
        y /= scale
        for (p, q), (a, b, c) in zip(pairs, TABLES["su"]):
            x, y = x * (a + x * x * (b + x * x * c)), ((y * y + p) ** 2 + q) * y
        assert abs(end * y - x) < 1e-12


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_steps_must_be_a_positive_integer(steps):
    with pytest.raises(ValueError, match="steps"):
        orthogonalise(np, np.eye(3), steps)


@pytest.mark.parametrize("coefficients", ["newton", (), ((1.0, 2.0),), ((2.0, 0.0, 0.0),)])
def test_coefficients_that_make_no_table_are_named(coefficients):
    with pytest.raises(ValueError, match="coefficients"):
        orthogonalise(np, np.eye(3), 3, coefficients)


# --- accuracy ------------------------------------------------------------------------------------------------------


BARS = [
    ("float64", 1e0, 1e-14, 3e-14), ("float64", 1e2, 1e-14, 3e-14), ("float64", 1e4, 3e-13, 1e-12),
    ("float64", 1e8, 1e-8, 1e-8), ("float32", 1e0, 3e-6, 5e-6), ("float32", 1e2, 3e-6, 5e-6),
    ("float32", 1e4, 2e-4, 5e-4),
]  # fmt: skip


def derivative(M, O, G, steps=None):
    """The derivative of msign, by the kernels: rows on the larger side (n <= m)."""
    P, B = M @ O.T, G @ O.T
    W, J = solve_symmetric(np, P, 2 * B, -1, True, steps)
    return W @ O if M.shape[0] == M.shape[1] else (W - J @ B) @ O + J @ G


@pytest.mark.parametrize("dtype, kappa, forward_bar, derivative_bar", BARS)
@pytest.mark.parametrize("kind", ["geometric", "repeated"])
def test_accuracy_against_80_bit_arithmetic(dtype, kappa, forward_bar, derivative_bar, kind):
    for n, m in [(4, 4), (16, 16), (32, 32), (8, 32), (16, 64), (4, 32), (8, 64), (16, 128)]:
        M = matrix(kind, n, m, kappa, dtype, seed=n)
        G = matrix("gaussian", n, m, kappa, dtype, seed=n + 1)
        O, gradient = msign_and_gradient(M, G)
        ours = orthogonalise(np, M)
        assert error(ours, O) < forward_bar, (n, m)
        assert error(orthogonalise(np, M.T.copy()).T, O) < forward_bar, (m, n)
        assert error(derivative(M, ours, G), gradient) < derivative_bar, (n, m)
        if kappa <= 1e2:
            assert error(orthogonalise(np, M, 8), O) < forward_bar, (n, m)
            assert error(derivative(M, ours, G, 8), gradient) < derivative_bar, (n, m)


def test_solutions_of_every_parity_agree_with_scipy():
    random = np.random.default_rng(2)
    L = random.standard_normal((6, 6))
    P, C = L @ L.T + np.eye(6), random.standard_normal((6, 6))
    for parity, right in [(0, C), (1, (C + C.T) / 2), (-1, (C - C.T) / 2)]:
        W, J = solve_symmetric(np, P, C, parity, True)
        np.testing.assert_allclose(W, solve_sylvester(P, P, right), atol=1e-13)
        np.testing.assert_allclose(J, np.linalg.inv(P), atol=1e-13)


@pytest.mark.parametrize("dtype, bar", [("float64", 1e-13), ("float32", 4e-5)])
@pytest.mark.parametrize("parity", [-1, 0, 1])
def test_a_known_inverse_gives_the_same_solution_for_fewer_products(dtype, bar, parity):
    random = np.random.default_rng(6)
    for spread in (1.1, 3.0, 10.0, 100.0):
        Q = np.linalg.qr(random.standard_normal((5, 8, 8)))[0]
        p = np.exp(random.uniform(-1, 1, (5, 1, 8)) * np.log(spread))
        p[:, 0, :2] = spread, 1 / spread
        P, inverse, C = (Q * p) @ Q.mT, (Q / p) @ Q.mT, random.standard_normal((5, 8, 8))
        C = C if parity == 0 else C + parity * C.mT
        expected = Q @ ((Q.mT @ C @ Q) / (p.mT + p)) @ Q.mT
        count, P, inverse, C = [], P.astype(dtype), inverse.astype(dtype), C.astype(dtype)
        W = solve_symmetric(Counting(count), P, C, parity, inverse=InverseOf(inverse, spread))
        assert error(W, expected) < bar * (1 if dtype == "float64" else max(1, spread / 10))
        if parity and spread <= 10:
            work = sum(a * b * c for a, b, c in count) / 8**3
            assert work <= 2 + 7 * (3 if dtype == "float32" else 4)


# --- adaptive steps ------------------------------------------------------------------------------------------------


def test_a_batch_gives_what_its_matrices_give_alone():
    random = np.random.default_rng(3)
    easy = [matrix("geometric", 6, 6, 10.0**k, "float64", seed=k) for k in range(12)]
    batch = np.stack([*easy, np.zeros((6, 6)), random.standard_normal((6, 3)) @ random.standard_normal((3, 6))])
    together = orthogonalise(np, batch)
    for one, M in zip(together, batch):
        assert np.abs(one - orthogonalise(np, M)).max() < 1e-7  # kappa up to 1e11: rounding is amplified alike
    C = random.standard_normal(batch.shape)
    P = together @ batch.mT
    P[:12] = [L @ L.T for L in np.sqrt(P[:12].clip(0)) + np.eye(6)]
    together = solve_symmetric(np, P, C)
    for i in range(12):
        alone = solve_symmetric(np, P[i], C[i])
        assert np.abs(together[i] - alone).max() < 1e-12 * np.abs(alone).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n, m, rank", [(6, 6, 3), (32, 32, 16), (16, 128, 4), (64, 64, 60)])
def test_rounding_noise_of_rank_deficient_input_stays_small(dtype, n, m, rank):
    random = np.random.default_rng(4)
    M = (random.standard_normal((n, rank)) @ random.standard_normal((rank, m))).astype(dtype)
    s = np.linalg.svd(orthogonalise(np, M).astype(float))[1]
    assert np.abs(s[:rank] - 1).max() < 1e-5 and s[rank:].max() < 0.2


@pytest.mark.parametrize("dtype, steps", [("float32", 8), ("float64", 8)])
def test_well_conditioned_matrices_take_few_steps_of_three_products(dtype, steps):
    count = []
    orthogonalise(Counting(count), matrix("geometric", 8, 8, 50, dtype))
    assert count == [(8, 8, 8)] * 3 * steps


class Counting:
    """NumPy with its matrix products written down as (rows, inner, columns)."""

    def __init__(self, count):
        self.count = count

    def __getattr__(self, name):
        return getattr(np, name)

    def matmul(self, a, b, out=None):
        if min(a.shape[-2], b.shape[-1]) > 1:
            self.count.append((a.shape[-2], a.shape[-1], b.shape[-1]))
        return np.matmul(a, b, out=out)


# --- conventions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, low, high", [("float32", 1e-30, 1e30), ("float64", 1e-300, 1e300)])
@pytest.mark.parametrize("steps", [None, 8])
def test_scale_does_not_matter(dtype, low, high, steps):
    M = matrix("geometric", 5, 8, 30, dtype)
    O = orthogonalise(np, M, steps)
    for factor in (low, high):
        assert error(orthogonalise(np, M * np.asarray(factor, dtype), steps), O) < 300 * np.finfo(dtype).eps


@pytest.mark.parametrize("steps", [None, 8])
def test_zero_stays_zero_and_numbers_become_their_sign(steps):
    assert not orthogonalise(np, np.zeros((4, 3, 5)), steps).any()
    assert not solve_symmetric(np, np.zeros((3, 3)), np.ones((3, 3)), -1, steps=steps).any()
    numbers = np.array([3.0, -1e-200, 0.0, 1e200, -0.3]).reshape(5, 1, 1)
    np.testing.assert_array_equal(orthogonalise(np, numbers, steps), np.sign(numbers))
    row = np.array([[3.0, 0.0, -4.0]])
    np.testing.assert_allclose(orthogonalise(np, row, steps), row / 5, rtol=1e-15)
    np.testing.assert_allclose(orthogonalise(np, row.T, steps), row.T / 5, rtol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3, 4), (0, 5), (5, 0), (2, 0, 0), (0, 1, 1)])
def test_empty_batches_and_matrices(shape):
    assert orthogonalise(np, np.zeros(shape)).shape == shape
    square = (*shape[:-1], shape[-2])
    assert solve_symmetric(np, np.zeros(square), np.zeros(square)).shape == square


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("steps", [None, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 3), (3, 6), (6, 3)])
def test_nan_and_infinity_give_nan_in_their_matrix_only(bad, steps, shape):
    batch = np.random.default_rng(5).standard_normal((3, *shape))
    batch[1, 0, 0] = bad
    O = orthogonalise(np, batch, steps)
    assert np.isnan(O[1]).all() and np.isfinite(O[[0, 2]]).all()


def test_the_plan_reaches_down_to_the_rounding_noise():
    for precision, chunks in [(2.0**-24, 2), (2.0**-53, 5)]:
        assert len(make_schedule(None, None, 32, 32, precision).chunks) == chunks
