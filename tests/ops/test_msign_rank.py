"""What msign does and says where a matrix has no full rank."""

import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.ops.test_msign import gradient


def low(n, m, rank, dtype="float64", seed=0, batch=()):
    random = np.random.default_rng(seed)
    return (random.standard_normal((*batch, n, rank)) @ random.standard_normal((*batch, rank, m))).astype(dtype)


def said(function):
    """The warnings of a call, with the default filter of Python."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        function()
    return caught


@pytest.mark.filterwarnings("ignore:msign. a matrix of")
@pytest.mark.parametrize("dtype, c", [("float32", 1.4e8), ("float64", 7.2e16)])
@pytest.mark.parametrize("n, m", [(2, 2), (4, 4), (16, 16), (64, 64), (4, 16), (64, 16), (2, 100), (16, 256)])
def test_the_gradient_has_the_documented_bound(n, m, dtype, c):
    for seed in range(4):
        for rank in {1, min(n, m) // 2, min(n, m) - 1}:
            M, G = low(n, m, rank, dtype, seed), np.random.default_rng(seed).standard_normal((n, m)).astype(dtype)
            size = np.linalg.norm(gradient(tg.msign, M, G)) * np.linalg.norm(M) / np.linalg.norm(G)
            assert size <= c / np.sqrt(max(n, m))
            s = np.linalg.svd(tg.msign(tg.tensor(M)).numpy(), compute_uv=False)
            assert np.abs(s[:rank] - 1).max() < 1e-3 and s[rank:].max() < 0.7


@pytest.mark.parametrize("n, m", [(6, 6), (6, 9), (9, 6)])
def test_adaptive_steps_warn_once_at_the_line_of_the_caller(n, m):
    def call():
        for _ in range(3):
            tg.msign(tg.tensor(low(n, m, 3)))  # this line

    (warning,) = said(call)
    assert warning.category is RuntimeWarning and warning.filename == __file__
    with open(__file__) as file:
        assert "# this line" in file.readlines()[warning.lineno - 1]
    assert "numerically rank-deficient" in str(warning.message) and f"{max(n, m)} x {min(n, m)}" in str(warning.message)


def test_the_others_do_not_warn():
    random = np.random.default_rng(1)
    ill = np.linalg.qr(random.standard_normal((8, 8)))[0] * np.geomspace(1, 1e-9, 8)
    calls = [
        lambda: tg.msign(tg.tensor(ill)),
        lambda: tg.msign(tg.tensor(low(6, 6, 3)), steps=8),
        lambda: tg.msign(tg.tensor(low(6, 6, 3)), method="svd"),
        lambda: tg.msign(tg.tensor(low(6, 6, 3)), method="eigh"),
        lambda: tg.msign(tg.tensor(low(6, 6, 3)), eps=1e-3),
        lambda: tg.msign(tg.tensor(np.zeros((3, 3)))),
        lambda: tg.nuclear_norm(tg.tensor(low(6, 6, 3))),  # right at every rank
        lambda: tg.msign(tg.tensor(random.standard_normal((5, 4, 3))), check=True),
    ]
    for call in calls:
        assert not said(call)


def test_one_deficient_matrix_of_a_batch_is_enough_and_spoils_no_other():
    M = np.random.default_rng(2).standard_normal((300, 4, 4))
    M[7, :, 0] = M[7, :, 1]
    assert len(said(lambda: tg.msign(tg.tensor(M)))) == 1
    with pytest.warns(RuntimeWarning, match="rank-deficient"):
        y = tg.msign(tg.tensor(M)).numpy()
    for i in (6, 8, 299):
        np.testing.assert_allclose(y[i] @ y[i].T, np.eye(4), atol=1e-12)


def test_a_smooth_msign_whose_epsilon_is_below_the_rounding_warns():
    with pytest.warns(RuntimeWarning, match="rank-deficient"):
        tg.msign(tg.tensor(low(6, 6, 3, "float32")), eps=1e-9)


@pytest.mark.parametrize(
    "M, options, message",
    [
        (low(5, 9, 3), {"steps": 8}, r"M \(5, 9\) is numerically rank-deficient.*smallest.*method='svd'"),
        (low(9, 5, 3), {"method": "svd"}, r"M \(9, 5\) is numerically rank-deficient.*factor of its rank 3"),
        (low(5, 9, 3), {"method": "eigh"}, r"M \(5, 9\) is numerically rank-deficient.*factor of its rank 3"),
        (np.eye(4), {"steps": 2}, r"M \(4, 4\) has full rank, but steps=2, .* has not converged"),
        (np.eye(2, 4), {"coefficients": "muon"}, r"M \(2, 4\) has full rank, but .*coefficients='muon' has not conv"),
        (np.stack([np.eye(3), np.ones((3, 3)), 2 * np.eye(3)]), {"steps": 8}, r"matrix 1 of M \(3, 3, 3\) is numeri"),
        (np.zeros((3, 3)), {"steps": 8}, r"M \(3, 3\) is numerically rank-deficient"),
    ],
)
def test_check_names_the_shape_and_the_cause(M, options, message):
    with pytest.warns(RuntimeWarning, match=message) as caught:
        tg.msign(tg.tensor(M), check=True, **options)
    assert {w.filename for w in caught} == {__file__}
