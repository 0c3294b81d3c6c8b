"""Indexing: any index against NumPy and a loop, copies, ranges. The primitives: test_derivatives.py."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_ms as tg
from tests.conftest import require
from tests.samples.indexing import added
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.ops import added_rows
from tinygrad_ms.testing import forbid_sync, gradcheck, gradgradcheck

RANDOM = np.random.default_rng(0)
M = RANDOM.standard_normal((3, 4))
TABLE = RANDOM.standard_normal((5, 2))
TOKENS = np.array([[3, 0, 3], [4, 3, 0]])


def leaf(array, device="cpu"):
    return tg.tensor(array, device=device, requires_grad=True)


# --- x[index] -----------------------------------------------------------------------------------------------

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def basic_index(draw):
    shape = draw(shapes)
    return shape, draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))


@st.composite
def advanced_index(draw):
    """Slices of the first axes, arrays that broadcast together for the next, and perhaps an Ellipsis."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    first = draw(st.integers(0, len(shape) - 1))
    last = draw(st.integers(first + 1, len(shape)))
    slices = draw(hnp.basic_indices(shape[:first], min_dims=first, allow_newaxis=False, allow_ellipsis=False))
    slices = slices if isinstance(slices, tuple) else (slices,)
    slices += (slice(None),) * (first - len(slices))  # hypothesis leaves out whole axes at the end
    sizes = draw(hnp.mutually_broadcastable_shapes(num_shapes=last - first, max_dims=2, max_side=3))
    arrays = [
        draw(hnp.arrays(np.int64, size, elements=st.integers(-n, n - 1)))
        for size, n in zip(sizes.input_shapes, shape[first:last])
    ]
    return shape, (*slices, *arrays, *draw(st.sampled_from([(), (...,)])))


@st.composite
def mask_index(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    axes = draw(st.integers(1, len(shape)))
    return shape, (draw(hnp.arrays(bool, shape[:axes])),)


@settings(max_examples=300, deadline=None)
@given(st.one_of(basic_index(), advanced_index(), mask_index()))
def test_any_index_selects_as_in_numpy_and_its_gradient_adds_up_where_it_came_from(case):
    shape, index = case
    x = leaf(RANDOM.standard_normal(shape))
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    weights = RANDOM.standard_normal(y.shape)
    y.backward(weights)
    np.testing.assert_allclose(x.grad.data, added(weights, index, shape), atol=1e-14)


@settings(max_examples=100, deadline=None)
@given(st.one_of(basic_index(), advanced_index()))
def test_a_gpu_selects_the_same_without_waiting(case):
    shape, index = case
    host = leaf(RANDOM.standard_normal(shape))
    device = leaf(host.data, "strict")
    there = (
        tuple(to_device(i, "strict") if isinstance(i, np.ndarray) else i for i in index)
        if isinstance(index, tuple)
        else index
    )
    with forbid_sync():
        (device[there] * 2).sum().backward()
    (host[index] * 2).sum().backward()
    np.testing.assert_allclose(device.grad.numpy(), host.grad.data, atol=1e-14)


INDICES = {
    "a tensor": lambda to: tg.tensor([2, 0, 2], device=to),
    "a list": lambda to: [2, 0, 2],
    "a range": lambda to: range(3),
    "an empty list": lambda to: [],
    "a nested list": lambda to: [[2, 0], [1, 1]],
    "a list of booleans": lambda to: [True, False, True],
    "a mask": lambda to: tg.tensor(M[:, 0], device=to) > 0,
    "a tensor and a slice": lambda to: (slice(None), tg.tensor([3, -1], device=to)),
    "two lists": lambda to: ([0, 2], [1, 1]),
    "a 0-d tensor": lambda to: tg.tensor(1, device=to),
    "a NumPy integer": lambda to: np.int32(1),
    "NumPy integers": lambda to: (np.int64(1), np.uint8(2)),
    "unsigned": lambda to: tg.tensor(np.array([2, 0], np.uint64), device=to),
    "True": lambda to: True,
    "bounds from tensors": lambda to: slice(tg.tensor(1), tg.tensor(3)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_what_an_index_may_be(index, device):
    def plain(item):
        if isinstance(item, slice):
            return slice(int(item.start), int(item.stop)) if item.start is not None else item
        return item.numpy() if isinstance(item, tg.Tensor) else list(item) if isinstance(item, range) else item

    index = index(device)
    x = leaf(M, device)
    places = np.arange(M.size).reshape(M.shape)
    places = places[tuple(map(plain, index)) if isinstance(index, tuple) else plain(index)]
    y = x[index]
    assert y.device == device
    np.testing.assert_array_equal(y.numpy(), M.ravel()[places])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy().ravel(), np.bincount(places.ravel(), minlength=M.size))


def test_a_repeated_index_accumulates():
    x = leaf(M)
    (x[[1, 1, 1, 0]] * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.repeat([[2.0], [6.0], [0.0]], 4, axis=1))


def test_second_derivatives_pass_through_an_index():
    def cubes(x):
        return (x[[0, 2, 0]] * x[1:].sum(axis=0) ** 2)[..., 1:]

    assert gradgradcheck(cubes, [leaf(M)])


def test_basic_indices_give_views_and_arrays_copies():
    x = tg.tensor(M)
    assert np.shares_memory(x[1:, None, ::-1].data, x.data)
    assert not np.shares_memory(x[[0, 1]].data, x.data)
    copied = x[[0, 1]]
    y = (copied * leaf(M[:2])).sum()
    x[0] = 0.0  # no change of the copy
    y.backward()


@pytest.mark.parametrize("kind", [tg.tensor, np.array])
def test_an_index_changed_after_the_call_does_not_change_the_gradient(kind):
    x, index = leaf(M), kind([0, 1])
    y = x[index].sum() + tg.take(x, index, axis=1).sum() + tg.embedding(x, index).sum()
    index[0] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad.data, [[3, 3, 2, 2], [3, 3, 2, 2], [1, 1, 0, 0]])


def test_an_array_with_a_tensor_as_index_gives_a_tensor():
    index = tg.tensor([2, 0])
    for y in (tg.ops.indexing.getitem(M, index), tg.take(M, index, axis=0), tg.embedding(M, index)):
        assert isinstance(y, tg.Tensor)
        np.testing.assert_array_equal(y.data, M[[2, 0]])
    assert type(tg.ops.indexing.getitem(M, ([2, 0],))) is np.ndarray


def test_float16_gradients_are_accumulated_in_float32():
    """2,049 ones: in float16 the sum would stop at 2,048."""
    x = leaf(np.zeros(2, np.float16))
    x[np.zeros(2049, int)].sum().backward()
    assert x.grad.dtype == np.float16
    assert x.grad.tolist() == [2048, 0] or x.grad.tolist() == [2050, 0]  # the nearest to 2,049
    y = leaf(np.zeros((2, 3), np.float16))
    y[np.zeros(4000, int)].sum().backward()
    assert y.grad.tolist() == [[4000] * 3, [0] * 3]


@pytest.mark.parametrize(
    "index, message",
    [
        (3, r"getitem: index 3 is out of bounds for axis 0 with size 3 \(x: float64 \(3, 4\) on cpu"),
        ((0, 0, 0), "getitem: too many indices"),
        ([0, 3], r"gather: x\[index\] with x of shape \(3, 4\) and index arrays of shape \(2,\): index 3"),
        (([0, 1], [0, 1, 2]), r"gather: .* index arrays of shape \(2,\), \(3,\): shape mismatch"),
        ([[True, False]], "gather: .* boolean index did not match"),
        ([0.5], "getitem: an index array has dtype float64; expected integers or booleans"),
        (1.0, "getitem: an index array has dtype float64"),
    ],
    ids=str,
)
def test_a_wrong_index_is_explained(index, message):
    with pytest.raises(IndexError, match=message):
        tg.tensor(M)[index]


def test_a_name_as_index_is_a_type_error():
    with pytest.raises(TypeError, match="str"):
        tg.tensor(M)["name"]


def test_index_arrays_must_be_on_the_device_of_x():
    x = tg.tensor(M, device="strict")
    for index in (np.array([0, 1]), tg.tensor([0, 1]), (slice(None), tg.tensor([0]))):
        with pytest.raises(ValueError, match="getitem: x is on strict and an index array on cpu; move one with .to"):
            x[index]


# --- take, embedding, one_hot -------------------------------------------------------------------------------


@pytest.mark.parametrize("indices", [TOKENS % 3, [2, 0, -1], 1, -2, np.int64(2), [], np.array(1)], ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_take_equals_numpy(indices, axis):
    y = tg.take(tg.tensor(M), indices, axis)
    np.testing.assert_array_equal(y.data, np.take(M, np.array(indices, dtype=int), axis))
    assert gradcheck(lambda x: x.take(indices, axis), [leaf(M)])


@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3)])
def test_embedding_selects_rows_and_adds_up_their_gradients(shape, device):
    tokens = np.resize(TOKENS, shape)
    weight = leaf(TABLE, device)
    y = tg.embedding(weight, tg.Tensor(to_device(tokens, device)))
    np.testing.assert_array_equal(y.numpy(), TABLE[tokens])
    g = RANDOM.standard_normal(y.shape)
    y.backward(tg.tensor(g, device=device))
    expected = np.zeros_like(TABLE)
    for k in np.ndindex(shape):
        expected[tokens[k]] += g[k]
    np.testing.assert_allclose(weight.grad.numpy(), expected, atol=1e-14)


def test_the_padding_row_of_an_embedding_is_a_constant(device):
    weight = np.random.default_rng(0).standard_normal((5, 2, 3))
    for tokens, padding in [(TOKENS, 1), (2, 2), (2, -3), (2, 1)]:
        w = tg.Tensor(to_device(weight.copy(), device))
        w.requires_grad = True
        y = tg.embedding(w, tokens if type(tokens) is int else tg.Tensor(to_device(tokens, device)), padding)
        np.testing.assert_array_equal(y.numpy(), weight[tokens])
        (y * y).sum().backward()
        expected = np.zeros_like(weight)
        np.add.at(expected, tokens, 2 * weight[tokens])
        expected[padding] = 0
        np.testing.assert_allclose(w.grad.numpy(), expected)
    assert gradgradcheck(lambda w: tg.embedding(w, [0, 1, 1], -1) ** 3, [leaf(weight)])


def test_embedding_of_any_rank_has_second_derivatives():
    for weight in (TABLE[:, 0], TABLE, TABLE.reshape(5, 2, 1)):
        assert gradcheck(lambda w: tg.embedding(w, TOKENS), [leaf(weight)])
        assert gradgradcheck(lambda w: tg.embedding(w, TOKENS) ** 2, [leaf(weight)])


OUT_OF_RANGE = {
    "embedding: the indices range from -1 to 3; expected 0 to 4": lambda x, i: tg.embedding(x, i([3, -1])),
    "embedding: the indices range from 0 to 5; .*weight has 5 rows": lambda x, i: tg.embedding(x, i([[0], [5]])),
    "one_hot: the labels range from 0 to 3; expected 0 to 2": lambda x, i: tg.one_hot(i([0, 3]), 3),
    "one_hot: the labels range from -1 to -1; .*num_classes=3": lambda x, i: tg.one_hot(i([-1]), 3),
    r"take: the indices range from 5 to 5; expected -5 to 4 \(axis 0": lambda x, i: tg.take(x, i([5]), axis=0),
    r"take: the indices range from -3 to 0; expected -2 to 1 \(axis 1": lambda x, i: tg.take(x, i([-3, 0]), axis=1),
}


@pytest.mark.parametrize("message", OUT_OF_RANGE)
def test_labels_and_tokens_out_of_range_are_found_on_the_cpu(message):
    with pytest.raises(IndexError, match=message):
        OUT_OF_RANGE[message](tg.tensor(TABLE), tg.tensor)


ON_DEVICE = {
    "embedding": (lambda x, i: tg.embedding(x, i), [[3, -1], [5, 0]], [[True, False], [False, True]]),
    "embedding of int8": (lambda x, i: tg.embedding(x, i.astype("int8")), [3, -1, 127], [True, False, False]),
    "take, axis 0": (lambda x, i: tg.take(x, i, axis=0), [5, -5, 4, -6], [False, True, True, False]),
    "take, axis 1": (lambda x, i: tg.take(x, i, axis=1).T, [1, 2, -2, -3], [True, False, True, False]),
    "take": (lambda x, i: tg.take(x, i), [9, 10, -10, -11], [True, False, True, False]),
}


@pytest.mark.parametrize("case", ON_DEVICE)
@pytest.mark.parametrize("where", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_out_of_range_on_a_device_gives_nan_without_gradient_and_waits_for_nothing(case, where):
    """Where CuPy alone would wrap around in silence."""
    call, indices, known = ON_DEVICE[case]
    x, expected = leaf(TABLE, require(where)), leaf(TABLE)
    inside = np.array(known)
    with forbid_sync():
        y = call(x, tg.tensor(indices, device=where))
        y.backward(tg.ones_like(y))
    values = y.numpy()
    assert np.isnan(values[~inside]).all() and np.isfinite(values[inside]).all()
    good = call(expected, tg.tensor(np.array(indices)[inside]))
    good.sum().backward()
    np.testing.assert_array_equal(values[inside], good.numpy())
    np.testing.assert_array_equal(x.grad.numpy(), expected.grad.numpy())


def test_on_a_device_labels_out_of_range_have_no_one_and_integers_are_looked_at():
    with forbid_sync():
        y = tg.one_hot(tg.tensor([0, 3, -1], device="strict"), 3)
    assert y.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(IndexError, match="take: the indices range from 2 to 2"):  # integers have no NaN
        tg.take(tg.tensor([1, 2], device="strict"), tg.tensor([2], device="strict"))


def test_a_python_index_out_of_range_is_found_too():
    for call in (lambda: tg.embedding(TABLE, 5), lambda: tg.take(TABLE, 5, axis=0)):
        with pytest.raises(IndexError, match="index 5 is out of bounds for axis 0 with size 5"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: tg.embedding(TABLE, [0.5]),
        lambda: tg.take(TABLE, np.array([True]), axis=0),
        lambda: tg.take_along_axis(TABLE, np.zeros((5, 2)), 0),
    ],
)
def test_indices_that_are_no_integers_are_refused(call):
    with pytest.raises(IndexError, match="expected integers"):
        call()


def test_one_hot_is_float32_unless_told_otherwise(device):
    labels = tg.tensor([2, 0], device=device)
    y = tg.one_hot(labels, 3)
    assert y.tolist() == [[0, 0, 1], [1, 0, 0]] and y.dtype == np.float32 and y.device == device
    assert tg.one_hot(labels, 3, dtype="int64").dtype == np.int64
    with pytest.raises(TypeError, match="one_hot: the labels are float64; expected integers"):
        tg.one_hot(np.array([1.0]), 3)


# --- assignment ---------------------------------------------------------------------------------------------


def test_index_update_leaves_its_argument_alone():
    x = leaf(M)
    y = tg.index_update(x, (0, slice(1, 3)), 7.0)
    assert y.data[0].tolist() == [M[0, 0], 7, 7, M[0, 3]]
    np.testing.assert_array_equal(x.data, M)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [[1, 0, 0, 1], [1] * 4, [1] * 4])


@pytest.mark.parametrize(
    "index", [1, slice(0, 2), (..., -1), [2, 0], tg.tensor([2, 0]), M > 0], ids=lambda i: type(i).__name__
)
def test_index_update_and_index_add_have_both_gradients(index):
    shape = M[np.asarray(index) if isinstance(index, tg.Tensor) else index].shape
    for value in (RANDOM.standard_normal(shape), np.array(0.5)):
        for function in (tg.index_update, tg.index_add):
            assert gradcheck(lambda x, v: function(x, index, v), [leaf(M), leaf(value)])
            assert gradgradcheck(lambda x, v: function(x, index, v) ** 2, [leaf(M), leaf(value)])


def test_index_add_adds_repeated_places(device):
    x = tg.zeros(3, device=device)
    y = tg.index_add(x, [1, 1, 2], tg.tensor([1.0, 2.0, 4.0], device=device))
    assert y.tolist() == [0, 3, 4]
    assert tg.index_add(x, [1, 1], 0.5).tolist() == [0, 1, 0]
    assert tg.index_add(x, [2, 2], [1.0, 2.0]).tolist() == [0, 0, 3]
    assert tg.index_update(x, [2, 0], [1.0, 2.0]).tolist() == [2, 0, 1]
    assert tg.index_add(np.zeros(3), 1, 0.1)[1] == 0.1
    assert x.tolist() == [0, 0, 0]


def test_values_take_the_dtype_of_x():
    assert tg.index_update(tg.zeros(3), 0, np.float64(0.1)).dtype == np.float32
    assert tg.index_add(tg.zeros(3), 0, np.ones((), np.float64)).dtype == np.float32
    assert tg.index_update(tg.tensor([1, 2]), 0, 5).tolist() == [5, 2]
    for function in (tg.index_update, tg.index_add):
        for value in (0.5, [0.5], tg.tensor(0.5), np.array(0.5)):
            with pytest.raises(TypeError, match=f"{function.__name__}: x is int64 and would cut off the fractions"):
                function(tg.tensor([1, 2]), 0, value)


def test_a_value_that_does_not_fit_is_explained():
    with pytest.raises(ValueError, match=r"index_update: value has shape \(3,\), which does not broadcast to \(4,\)"):
        tg.index_update(tg.tensor(M), 0, np.zeros(3))
    with pytest.raises(ValueError, match=r"broadcast_to: x has shape \(3,\), which does not broadcast to \(4,\)"):
        tg.index_add(tg.tensor(M), 0, np.zeros(3))


# --- order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sort_equals_numpy_and_carries_gradients(axis, device):
    x = tg.tensor(M, device=device)
    np.testing.assert_array_equal(x.sort(axis).numpy(), np.sort(M, axis))
    np.testing.assert_array_equal(x.sort(axis, descending=True).numpy(), -np.sort(-M, axis))
    assert gradcheck(lambda x: tg.sort(x, axis), [leaf(M)])


def test_equal_elements_keep_their_order():
    x = leaf(np.array([1.0, 0.0, 1.0, 0.0]))
    (x.sort(descending=True) * tg.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [1, 3, 2, 4]


def test_take_along_axis_picks_what_argmax_found():
    x = leaf(M)
    y = tg.take_along_axis(x, x.argmax(axis=1, keepdims=True), axis=1)
    np.testing.assert_array_equal(y.data, M.max(axis=1, keepdims=True))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, M.max(axis=1, keepdims=True) == M)


@pytest.mark.parametrize(
    "shape, indices, axis",
    [
        ((3, 4), [[0, 0, -1]] * 3, 1),
        ((3, 4), [[2, 1, 0, 0]], 0),
        ((2, 1, 3), np.zeros((2, 4, 2), int), 2),
        ((3,), [1, 1], 0),
    ],
)
def test_take_along_axis_equals_numpy(shape, indices, axis):
    x = RANDOM.standard_normal(shape)
    y = tg.take_along_axis(tg.tensor(x), indices, axis)
    np.testing.assert_array_equal(y.data, np.take_along_axis(x, np.asarray(indices), axis))
    assert gradgradcheck(lambda x: tg.take_along_axis(x, indices, axis) ** 2, [leaf(x)])


def test_take_along_axis_wants_as_many_axes():
    with pytest.raises(ValueError, match=r"take_along_axis: indices has shape \(2,\) and x \(3, 4\); expected as many"):
        tg.take_along_axis(M, [0, 1], 0)


def test_nonzero_gives_one_vector_for_each_axis():
    rows, columns = tg.nonzero(tg.tensor([[0, 2], [3, 0]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("op", [tg.index_update, tg.index_add])
@pytest.mark.parametrize("change", ["tensor", "array"])
def test_an_index_that_changes_before_backward_changes_no_gradient(op, change):
    """Also where the value alone wants a gradient."""
    for tracked in ("x", "value"):
        gradients = []
        for changed in (False, True):
            x, value = tg.tensor(M), tg.tensor(M[:2] + 1)
            (x if tracked == "x" else value).requires_grad = True
            index = np.array([0, 1])
            index = tg.tensor(index) if change == "tensor" else index
            y = (op(x, index, value) ** 2).sum()
            if changed:
                index[0] = 2
            y.backward()
            gradients.append((x if tracked == "x" else value).grad.numpy())
        np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_repeat_are_added_in_one_order_with_and_without_scipy(dtype, monkeypatch):
    """The gradients of take and of x[i, j], with negative indices, are the same bit for bit."""
    pytest.importorskip("scipy")
    random = np.random.default_rng(0)
    i, j = random.integers(-50, 50, 3000), random.integers(-7, 7, 3000)
    weights = random.standard_normal((3000, 32)).astype(dtype)
    assert weights.size >= added_rows.LARGE

    def results():
        x = tg.tensor(np.ones((50, 32), dtype), requires_grad=True)
        y = tg.tensor(np.ones((50, 7, 32), dtype), requires_grad=True)
        (tg.take(x, i, axis=0) * weights).sum().backward()
        (y[i, j] * weights).sum().backward()
        return x.grad.numpy(), y.grad.numpy()

    with_scipy = results()
    assert added_rows._sparse_matrix() is not None
    monkeypatch.setattr(added_rows, "_sparse_matrix", lambda: None)
    for got, expected in zip(with_scipy, results(), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, expected)
