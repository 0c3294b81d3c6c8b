"""topk, median, cummax, and functions that join arrays or subtract neighbours: as in NumPy, with gradients."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.testing import gradcheck, gradgradcheck

M = np.random.default_rng(0).standard_normal((3, 6))


def leaf(x):
    return tg.tensor(x, requires_grad=True)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [True, False])
def test_topk_takes_the_extremes_in_order(axis, largest):
    values, indices = tg.topk(leaf(M), 2, axis=axis, largest=largest)
    expected = np.sort(M, axis)[tuple(slice(None) if a != axis % 2 else slice(None, None, -1) for a in (0, 1))]
    expected = (expected if largest else np.sort(M, axis)).take([0, 1], axis)
    np.testing.assert_array_equal(values.numpy(), expected)
    np.testing.assert_array_equal(np.take_along_axis(M, indices.numpy(), axis), expected)
    assert gradcheck(lambda x: tg.topk(x, 2, axis=axis, largest=largest)[0], [leaf(M)])


def test_topk_keeps_equal_elements_in_their_order_and_takes_none():
    values, indices = tg.topk(tg.tensor([2.0, 5.0, 5.0, 1.0]), 3)
    assert values.tolist() == [5, 5, 2] and indices.tolist() == [1, 2, 0]
    assert tg.topk(leaf(M), np.int64(0))[0].shape == (3, 0)
    with pytest.raises(ValueError, match=r"topk: k=7 of 6 elements along axis 1 \(x has shape \(3, 6\)\)"):
        tg.topk(M, 7)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1), (1, 0)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_median_as_numpy(axis, keepdims):
    y = tg.median(leaf(M), axis=axis, keepdims=keepdims)
    np.testing.assert_array_equal(y.numpy(), np.median(M, axis=axis, keepdims=keepdims))
    assert gradcheck(lambda x: tg.median(x, axis=axis, keepdims=keepdims), [leaf(M)])


def test_median_of_nan_and_of_nothing():
    x = M.copy()
    x[1, 2] = np.nan
    np.testing.assert_array_equal(tg.median(tg.tensor(x), axis=1).numpy(), np.median(x, axis=1))
    with pytest.raises(ValueError, match=r"median: there are no elements over axis 1 \(x has shape \(2, 0\)\)"):
        tg.median(np.zeros((2, 0)), axis=1)
    assert tg.median(tg.zeros((0, 3)), axis=1).shape == (0,)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_cummax_and_cummin(axis):
    for op, running in ((tg.cummax, np.maximum), (tg.cummin, np.minimum)):
        values, indices = op(leaf(M), axis=axis)
        np.testing.assert_array_equal(values.numpy(), running.accumulate(M, axis))
        np.testing.assert_array_equal(np.take_along_axis(M, indices.numpy(), axis), values.numpy())
        assert gradcheck(lambda x, op=op: op(x, axis=axis)[0], [leaf(M)])


def test_cummax_takes_the_last_of_equal_elements_and_stays_nan():
    values, indices = tg.cummax(tg.tensor([1.0, 3.0, 3.0, 2.0, np.nan, 9.0]))
    assert indices.tolist() == [0, 1, 2, 2, 4, 4] and np.isnan(values.numpy()[4:]).all()


@pytest.mark.parametrize("name", ["hstack", "vstack"])
@pytest.mark.parametrize("shapes", [((3,), (2,)), ((2, 3), (2, 3)), ((), ())])
def test_stacks_as_numpy(name, shapes):
    if name == "vstack" and shapes == ((3,), (2,)):
        shapes = ((3,), (3,))
    xs = [np.arange(float(np.prod(shape))).reshape(shape) + k for k, shape in enumerate(shapes)]
    y = getattr(tg, name)([leaf(x) for x in xs])
    np.testing.assert_array_equal(y.numpy(), getattr(np, name)(xs))
    assert gradcheck(lambda a, b: getattr(tg, name)([a, b]) ** 2, [leaf(x) for x in xs])


@pytest.mark.parametrize("indexing", ["xy", "ij"])
def test_meshgrid_as_numpy(indexing):
    xs = [np.arange(2.0), np.arange(3.0), np.arange(4.0)]
    for n in (1, 2, 3):
        for ours, theirs in zip(tg.meshgrid(*xs[:n], indexing=indexing), np.meshgrid(*xs[:n], indexing=indexing)):
            np.testing.assert_array_equal(np.asarray(ours), theirs)
    assert gradcheck(lambda a, b: tg.meshgrid(a, b, indexing=indexing)[0] ** 2, [leaf(x) for x in xs[:2]])
    with pytest.raises(ValueError, match="meshgrid: indexing='yx'; expected 'xy' or 'ij'"):
        tg.meshgrid(*xs, indexing="yx")
    with pytest.raises(ValueError, match=r"meshgrid: the arrays have shapes \(3, 6\); expected vectors"):
        tg.meshgrid(M)


@pytest.mark.parametrize("n", [0, 1, 2, 6])
def test_diff_as_numpy(n):
    for axis in (0, 1):
        np.testing.assert_array_equal(tg.diff(leaf(M), n, axis).numpy(), np.diff(M, n, axis))
    assert gradcheck(lambda x: tg.diff(x, n), [leaf(M)])


def test_diff_refuses_what_has_no_difference():
    with pytest.raises(TypeError, match="diff: x is bool"):
        tg.diff(tg.tensor([True, False]))
    with pytest.raises(ValueError, match="diff: n is -1, expected an integer of at least 0"):
        tg.diff(M, -1)


def test_put_along_axis_undoes_take_along_axis():
    order = np.argsort(M, axis=1)
    y = tg.put_along_axis(tg.zeros((3, 6), dtype="float64"), order, np.sort(M, axis=1), axis=1)
    np.testing.assert_array_equal(y.numpy(), M)
    some, values = order[:, :2], np.ones((3, 2))
    expected = M.copy()
    np.put_along_axis(expected, some, values, 1)
    np.testing.assert_array_equal(tg.put_along_axis(M, some, values), expected)
    assert gradcheck(lambda x, v: tg.put_along_axis(x, some, v) ** 2, [leaf(M), leaf(values)])
    with pytest.raises(ValueError, match=r"put_along_axis: indices has shape \(2,\) and x \(3, 6\)"):
        tg.put_along_axis(M, [0, 1], 0.0)


def test_cross_as_numpy():
    a, b = M[:, :3], M[:, 3:]
    np.testing.assert_allclose(tg.cross(leaf(a), leaf(b)).numpy(), np.cross(a, b), rtol=1e-14)
    np.testing.assert_allclose(tg.cross(a, b, axis=0), np.cross(a, b, axis=0), rtol=1e-14)
    np.testing.assert_allclose(tg.cross(a, b[0]), np.cross(a, b[0]), rtol=1e-14)
    assert gradcheck(tg.cross, [leaf(a), leaf(b)]) and gradgradcheck(tg.cross, [leaf(a), leaf(b)])
    with pytest.raises(ValueError, match=r"cross: a has shape \(3, 6\) and b has shape \(3, 6\); expected size 3"):
        tg.cross(M, M)
