"""Products of stacks by one call of BLAS: every layout is handed over as it lies in memory, and nothing is copied."""

import numpy as np
import pytest

import tinygrad_ms.testing  # noqa: F401  # makes the strict device known
from tinygrad_ms.launches.products import product
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
    with pytest.raises(ValueError, match=r"a has shape \(3, 5, 4\) and b \(3, 5, 6\): the inner dimensions 4 and 5"):
        product(xp, array(3, 5, 4), array(3, 5, 6))
