"""Shapes: compositions against NumPy, views, outputs nobody used, errors. Primitives: test_derivatives.py."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.testing import forbid_sync, gradcheck

X = np.random.default_rng(0).standard_normal((2, 1, 3, 1))
M = np.random.default_rng(1).standard_normal((3, 4))
COMPOSITIONS = {
    "squeeze": (lambda x: tg.squeeze(x), lambda x: x.squeeze(), X),
    "squeeze one": (lambda x: tg.squeeze(x, -1), lambda x: x.squeeze(-1), X),
    "squeeze two": (lambda x: x.squeeze((1, -1)), lambda x: x.squeeze((1, -1)), X),
    "squeeze 0-d": (lambda x: x.squeeze(), lambda x: x, np.array(1.5)),
    "expand_dims": (lambda x: tg.expand_dims(x, -1), lambda x: x[..., None], M),
    "expand_dims two": (lambda x: x.expand_dims((0, -1)), lambda x: x[None, ..., None], M),
    "unsqueeze": (lambda x: x.unsqueeze(1), lambda x: x[:, None], M),
    "flatten": (lambda x: x.flatten(), np.ravel, X),
    "flatten some": (lambda x: x.flatten(1, -2), lambda x: x.reshape(2, 3, 1), X),
    "flatten 0-d": (lambda x: x.flatten(), np.ravel, np.array(1.5)),
    "flatten empty": (lambda x: tg.flatten(x, 1), lambda x: x.reshape(0, 6), np.zeros((0, 2, 3))),
    "transpose": (tg.transpose, np.transpose, X),
    "transpose axes": (lambda x: tg.transpose(x, (3, 0, 2, 1)), lambda x: np.transpose(x, (3, 0, 2, 1)), X),
    "transpose method": (lambda x: x.transpose(), lambda x: x.transpose(), X),
    "transpose method axes": (lambda x: x.transpose(3, 0, 2, 1), lambda x: x.transpose(3, 0, 2, 1), X),
    "permute": (lambda x: x.permute(1, 0), lambda x: x.T, M),
    "T": (lambda x: x.T, lambda x: x.T, X),
    "mT": (lambda x: x.mT, lambda x: np.swapaxes(x, -1, -2), X),
    "swapaxes": (lambda x: x.swapaxes(0, -2), lambda x: x.swapaxes(0, -2), X),
    "moveaxis": (lambda x: x.moveaxis(0, -1), lambda x: np.moveaxis(x, 0, -1), X),
    "moveaxis two": (lambda x: tg.moveaxis(x, (0, 2), (-1, 0)), lambda x: np.moveaxis(x, (0, 2), (-1, 0)), X),
    "reshape": (lambda x: x.reshape(2, -1), lambda x: x.reshape(2, -1), M),
    "reshape to a vector": (lambda x: x.reshape(-1), np.ravel, M),
    "tile": (lambda x: tg.tile(x, 3), lambda x: np.tile(x, 3), M),
    "tile axes": (lambda x: x.tile((2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), M),
    "tile fewer": (lambda x: tg.tile(x, (2, 3)), lambda x: np.tile(x, (2, 3)), X),
    "tile none": (lambda x: tg.tile(x, 0), lambda x: np.tile(x, 0), M),
    "repeat": (lambda x: x.repeat(2), lambda x: x.repeat(2), M),
    "repeat axis": (lambda x: x.repeat(3, axis=-1), lambda x: x.repeat(3, axis=-1), M),
    "repeat each": (lambda x: x.repeat([2, 0, 1], axis=0), lambda x: x.repeat([2, 0, 1], axis=0), M),
    "pad": (lambda x: tg.pad(x, 2), lambda x: np.pad(x, 2), M),
    "pad sides": (lambda x: tg.pad(x, (1, 2), value=3.0), lambda x: np.pad(x, (1, 2), constant_values=3), M),
    "concat flat": (lambda x: tg.concat([x, x.T], axis=None), lambda x: np.concatenate([x, x.T], axis=None), M),
    "split and join": (lambda x: tg.concat(x.split(2, axis=1)[::-1], axis=1), lambda x: np.roll(x, 2, 1), M),
    "split at": (lambda x: tg.split(x, [1, 3], 1)[1], lambda x: x[:, 1:3], M),
    "split past the end": (lambda x: tg.split(x, [1, 9])[1], lambda x: x[1:], M),
    "unstack": (lambda x: tg.stack(tg.unstack(x, -1)), lambda x: x.T, M),
} | {
    f"pad {mode}": (
        lambda x, mode=mode: tg.pad(x, ((0, 0), (2, 3)), mode),
        lambda x, mode=mode: np.pad(x, ((0, 0), (2, 3)), mode),
        M,
    )
    for mode in ("edge", "reflect", "symmetric", "wrap")
}


@pytest.mark.parametrize("ours, reference, x", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_composition_equals_numpy(ours, reference, x, device):
    with forbid_sync():
        y = ours(tg.Tensor(to_device(x.copy(), device)))
    assert y.device == device
    np.testing.assert_array_equal(y.numpy(), reference(x))


@pytest.mark.parametrize("ours, reference, x", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_composition_has_the_gradient_of_differences(ours, reference, x):
    assert gradcheck(ours, [tg.tensor(x, requires_grad=True)])


def test_lists_become_tensors():
    assert tg.squeeze([[1.0, 2.0]]).tolist() == [1, 2]
    assert tg.concat([[1.0], [2.0, 3.0]]).dtype == np.float32
    assert tg.stack([1.0, 2.0]).tolist() == [1, 2]
    assert [part.tolist() for part in tg.split([1, 2, 3, 4], 2)] == [[1, 2], [3, 4]]


def test_arrays_give_arrays():
    for y in (tg.transpose(M), tg.flatten(M), tg.concat([M, M]), tg.pad(M, 1), *tg.split(M, 3), *tg.unstack(M)):
        assert type(y) is np.ndarray
    assert isinstance(tg.concat([M, tg.tensor(M)]), tg.Tensor)


VIEWS = {
    "reshape": lambda x: x.reshape(4, 3),
    "T": lambda x: x.T,
    "squeeze": lambda x: x.expand_dims(0).squeeze(),
    "flip": lambda x: x.flip(),
    "broadcast_to": lambda x: x.broadcast_to((2, 3, 4)),
    "split": lambda x: x.split(3)[1],
    "unstack": lambda x: x.unstack()[2],
    "a row": lambda x: x[1],
    "an element": lambda x: x[1, 2],
    "a slice": lambda x: x[::-2, 1:],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_share_memory_and_the_count_of_changes(view):
    """A change of the base in place is noticed where a view of it was saved."""
    x = tg.tensor(M)
    v = view(x)
    assert np.shares_memory(v.data, x.data)
    w = tg.tensor(2.0, requires_grad=True)
    y = (v * w).sum()
    x[0] = 0.0
    with pytest.raises(RuntimeError, match="multiply .* was changed in place"):
        y.backward()


def test_gradients_of_split_reach_only_the_parts_that_were_used():
    x = tg.tensor(M, requires_grad=True)
    _, second, _, fourth = x.split(4, axis=1)
    (second.sum() + 3 * fourth.sum()).backward()
    np.testing.assert_array_equal(x.grad.data, [[0, 1, 0, 3]] * 3)


def test_split_is_one_node_and_one_step_back(visits):
    x = tg.tensor(np.zeros((100, 2)), requires_grad=True)
    total = 0.0
    for row in x:
        total = total + row.sum()
    with tg.hooks(visits):
        total.backward()
    assert visits.count("unstack") == 1
    assert "getitem" not in visits
    np.testing.assert_array_equal(x.grad.data, 1)


@pytest.fixture
def visits():
    """The names of the ops whose rules ran."""

    class Visits(list):
        def before_rule(self, node, gradient):
            self.append(node.op)

    return Visits()


def test_iteration_gives_rows_and_elements():
    assert [row.tolist() for row in tg.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    assert [element.shape for element in tg.tensor([1.0, 2.0])] == [(), ()]
    assert list(tg.zeros((0, 2))) == []
    a, b = tg.tensor([5.0, 6.0])
    assert (a.item(), b.item()) == (5, 6)
    with pytest.raises(TypeError, match="0-d"):
        list(tg.tensor(1.0))


ERRORS = [
    (lambda x: x.reshape(5), r"reshape: cannot reshape array of size 12 into shape \(5,\) \(x: float64"),
    (lambda x: x.broadcast_to((2, 4)), r"broadcast_to: x has shape \(3, 4\), which does not broadcast to \(2, 4\)"),
    (lambda x: x.squeeze(0), r"squeeze: axis 0 of x, of shape \(3, 4\), has a size other than one"),
    (lambda x: x.squeeze(2), "squeeze: axis 2 is out of bounds for an array of dimension 2"),
    (lambda x: x.expand_dims(4), "expand_dims: axis 4 is out of bounds"),
    (lambda x: x.permute(0, 0), "permute_dims: .*repeated axis"),
    (lambda x: x.transpose(0, 1, 2), "permute_dims: axes don't match array"),
    (lambda x: x.swapaxes(0, 2), "swapaxes: axis 2 is out of bounds"),
    (lambda x: x.moveaxis((0, 1), 0), "moveaxis: .* different numbers of axes"),
    (lambda x: x.moveaxis((0, 0), (0, 1)), "moveaxis: .* names an axis twice"),
    (lambda x: x[0].mT, r"matrix_transpose: x has shape \(4,\); expected a matrix"),
    (lambda x: x.flatten(1, 0), "flatten: start_axis 1 comes after end_axis 0"),
    (lambda x: x.flip(2), "flip: axis 2 is out of bounds"),
    (lambda x: x.roll(1, 5), "roll: axis 5 is out of bounds"),
    (lambda x: tg.pad(x, -1), "pad: .*negative"),
    (lambda x: tg.pad(x, ((1, 2, 3),)), r"pad: pad_width .* does not fit x of shape \(3, 4\)"),
    (lambda x: tg.pad(x, 1, "mirror"), "pad: mode 'mirror' is unknown; expected constant, edge"),
    (lambda x: x.repeat(-1), "repeat: repeats must be an int or a list of ints"),
    (lambda x: x.repeat([1, 2], axis=0), "repeat: repeats has 2 entries for 3 elements along axis 0"),
    (lambda x: tg.concat([x, x.T]), r"concat: .*xs\[0\]: float64 \(3, 4\) .*, xs\[1\]: float64 \(4, 3\)"),
    (lambda x: tg.concat([]), "concat: the sequence xs is empty"),
    (lambda x: tg.stack([]), "stack: the sequence xs is empty"),
    (lambda x: tg.concat([x, x], 2), "concat: axis 2 is out of bounds"),
    (lambda x: tg.stack([x, x.T]), "stack: all input arrays must have the same shape"),
    (lambda x: x.split(5, axis=1), "split: x has 4 elements along axis 1, which is no 5 equal parts"),
    (lambda x: x.split([3, 1]), r"split: the places \[3, 1\] decrease"),
    (lambda x: x.unstack(2), "unstack: axis 2 is out of bounds"),
]


@pytest.mark.parametrize("call, message", ERRORS, ids=[message.split(":")[0] for _, message in ERRORS])
def test_errors_name_the_op_and_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(tg.tensor(M))


def test_arrays_on_different_devices_are_not_joined():
    with pytest.raises(ValueError, match="concat: arguments on different devices"):
        tg.concat([tg.ones(2), tg.ones(2, device="strict")])
