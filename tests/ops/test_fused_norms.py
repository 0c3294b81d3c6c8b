"""Kernels of rms_norm and layer_norm: all shapes of weights, rows and columns, numbers out of range, threads."""

import importlib.util

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import fused
from tinygrad_ms.ops.fused import machine, row_kernels, team
from tinygrad_ms.ops.normalization import _normalize_vjp

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason='numba is missing: pip install "tinygrad-ms[fast]", or numba'
)
EACH, COLUMNS, LINES = ([name, f"{name}_rule"] for name in ("normalize_each", "normalize_columns", "normalize"))
CASES = [  # shape of x, axes, shape of the weight, kernels
    ((32, 2, 32, 32), (-1,), (2, 32, 1), EACH),
    ((40, 30, 50), (-1,), (30, 1), EACH),
    ((3000, 17), (1,), (3000, 1), EACH),
    ((7, 5, 30, 31), (3, 2), (5, 1, 1), EACH),
    ((4, 9001), (-1,), (1,), EACH),
    ((2000, 33), (-1,), None, EACH),
    ((32, 2, 32, 32), (-2,), (2, 1, 32), COLUMNS),
    ((60, 23, 31), (1,), (31,), COLUMNS),
    ((400, 100), (0,), None, COLUMNS),
    ((60, 40, 20), (-2,), (60, 1, 1), COLUMNS),
    ((1000, 32), (-1,), (32,), LINES),
    ((1000, 4, 20), (-1,), (20,), LINES),
    ((9, 70, 64), (-1, -2), (70, 64), LINES),
]


@pytest.fixture(autouse=True)
def threads():
    tg.set_num_threads(2)
    yield
    fused._state["on"] = True
    tg.set_num_threads(None)


@pytest.fixture
def used(monkeypatch):
    """The names of the kernels that are called."""
    names, call = [], row_kernels.Rows.__call__
    monkeypatch.setattr(
        row_kernels.Rows, "__call__", lambda self, *given: names.append(self.name) or call(self, *given)
    )
    return names


def numbers(shape, weight, seed=0):
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=s).astype("float32") for s in ([shape, shape] if weight is None else [shape, shape, weight])
    ]


def value_and_gradients(arrays, axes, eps=1e-6, norm=tg.rms_norm):
    seed, *leaves = (tg.tensor(a, requires_grad=k > 0) for k, a in enumerate(arrays))
    y = norm(*leaves, eps=eps, axes=axes)
    y.backward(seed)
    return [y.numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def summed_to(shape, terms):
    """The sum of the terms over all axes along which an array of that shape is broadcast."""
    axes = [k - len(shape) for k, n in enumerate(shape) if n == 1] + [-1 - k for k in range(len(shape), terms.ndim)]
    return terms.sum(axis=tuple(axes), keepdims=True).reshape(shape)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agree_with_float64(case, center, count, used):
    shape, axes, weight, kernels = case
    tg.set_num_threads(count)
    norm, arrays = tg.layer_norm if center else tg.rms_norm, numbers(shape, weight)
    arrays[1] += np.float32(3 * center)
    found = value_and_gradients(arrays, axes, norm=norm)
    left = center and kernels is COLUMNS  # to NumPy
    assert used == ([] if left else kernels)
    right = value_and_gradients([a.astype("d") for a in arrays], axes, norm=norm)
    for f, r in zip(found[:2], right):
        assert f.dtype == "float32" and f.shape == r.shape
        assert np.abs(f - r).max() <= (8 if left else 4) * np.spacing(np.float32(np.abs(r).max()))
    if weight is not None:
        terms = abs(arrays[0] * norm(arrays[1].astype("d"), eps=1e-6, axes=axes))
        assert (abs(found[2] - right[2]) <= 2.0**-22 * summed_to(weight, terms)).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_do_not_depend_on_the_number_of_threads(case):
    shape, axes, weight, _ = case
    found = []
    for count in (1, 2, 3):
        tg.set_num_threads(count)
        found.append(value_and_gradients(numbers(shape, weight), axes))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_thread_needs_no_team(monkeypatch):
    tg.set_num_threads(1)
    arrays = numbers((1000, 40), (40,))
    right = value_and_gradients(arrays, -1)
    monkeypatch.setattr(team, "team", lambda: None)
    for a, b in zip(value_and_gradients(arrays, -1), right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_may_be_a_number():
    assert machine.at(np.array([1.0, 2.0]), 1) == 2.0 == machine.at(2.0, 1) == machine.at(np.float32(2), 1)


@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-5])
@pytest.mark.parametrize("case", [CASES[k] for k in (0, 3, 6, 8, 10, 12)], ids=str)
def test_numbers_out_of_range(case, eps, used):
    """Groups of tiny, of huge and of zero numbers, and groups with some that are not finite."""
    shape, axes, weight, kernels = case
    g, x, *w = numbers(shape, weight)
    groups = np.moveaxis(x, axes, range(-len(axes), 0))
    factors = [1e-15, 1e-25, 1e-38, 3e-44, 1e15, 1e25, 1e37, 0.0]
    for index, factor in zip(np.ndindex(groups.shape[: -len(axes)]), factors):
        groups[index] *= np.float32(factor)
    for index, value in zip(list(np.ndindex(groups.shape[: -len(axes)]))[-3:], [np.nan, np.inf, -np.inf]):
        groups[index][(3,) * len(axes)] = value
    with np.errstate(all="ignore"):
        found = value_and_gradients([g, x, *w], axes, eps)[:2]
        right = value_and_gradients([a.astype("d") for a in (g, x, *w)], axes, eps)
        right = [a.astype("float32") for a in right]
    assert used == kernels
    for f, r in zip(found, right):
        groups, expected = (np.moveaxis(a, axes, range(-len(axes), 0)) for a in (f, r))
        for index in np.ndindex(groups.shape[: -len(axes)]):
            size = np.abs(expected[index][np.isfinite(expected[index])]).max(initial=0)
            np.testing.assert_allclose(groups[index], expected[index], rtol=1e-6, atol=1e-6 * size + 2e-45)


@pytest.mark.parametrize("case", [CASES[0], CASES[6], CASES[10]], ids=str)
def test_gradients_of_any_layout_and_many_at_once(case, used):
    """A transposed gradient is copied. Stacked gradients stay with NumPy."""
    shape, axes, weight, kernels = case
    g, x, w = numbers(shape, weight)
    needed = (True, True, False)
    right = [_normalize_vjp(needed, a, x, w, (), axes, 1e-6, False) for a in (g, -2 * g)]
    assert used == 2 * kernels[1:]
    turned = np.asfortranarray(g)
    for a, b in zip(_normalize_vjp(needed, turned, x, w, (), axes, 1e-6, False)[:2], right[0]):
        np.testing.assert_array_equal(a, b)
    assert used == 3 * kernels[1:]
    stacked = _normalize_vjp(needed, np.stack([g, -2 * g]), x, w, (), axes, 1e-6, False)
    assert used == 3 * kernels[1:]
    for k in range(2):
        np.testing.assert_allclose(stacked[0][k], right[k][0], rtol=1e-5, atol=1e-5)
        sums = (a if a.shape == weight else summed_to(weight, a) for a in (stacked[1][k], right[k][1]))
        np.testing.assert_allclose(*sums, rtol=1e-4, atol=1e-4)


def test_the_gradient_of_a_bias_that_is_added_to_rows_not_centred(used):
    """``normalize`` takes it, though rms_norm has none."""
    g, x, w = numbers((1000, 40), (40,))
    for weight in (w, 1.0):
        found = _normalize_vjp((True, False, True), g, x, weight, (40,), (-1,), 1e-6, False)[2]
        np.testing.assert_allclose(found.sum(axis=0) if found.ndim > 1 else found, g.sum(axis=0), rtol=1e-4, atol=1e-4)
    assert used == ["normalize_rule"] * 2


def test_what_no_kernel_takes_stays_with_numpy(used):
    g, x = numbers((40, 30, 50), None)
    for weight, axes in [
        ((30, 50), (-1,)),
        ((40, 1, 50), (-2,)),
        ((50,), (0, 1)),
        ((1, 40, 30, 1), (-1,)),
        ((50,), ()),
    ]:
        w = np.ones(weight, "f")
        if axes == (-2,):
            w = w.astype("d")
        y = tg.rms_norm(x, w, axes=axes)
        np.testing.assert_allclose(y, tg.rms_norm(x.astype("d"), w, axes=axes), rtol=2e-6)
    assert not used
