"""Functions of rows: large matrices, whose rows are computed block by block, give what whole arrays give."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import fused, row_blocks

N = 90
FUNCTIONS = {  # of x, a weight and a bias
    "softmax": lambda x, w, b: tg.softmax(x),
    "log_softmax": lambda x, w, b: tg.log_softmax(x, axis=1),
    "layer_norm": lambda x, w, b: tg.layer_norm(x, w, b),
    "layer_norm alone": lambda x, w, b: tg.layer_norm(x),
    "layer_norm of constants": lambda x, w, b: tg.layer_norm(x, w.detach(), b.detach()),
    "layer_norm of constant x": lambda x, w, b: tg.layer_norm(x.detach(), w, b),
    "rms_norm": lambda x, w, b: tg.rms_norm(x, w),
    "two axes": lambda x, w, b: tg.layer_norm(x.reshape((-1, 9, 10)), axes=(1, 2)),
    "a bias for each element": lambda x, w, b: tg.layer_norm(x, w, tg.stack([b] * len(x))),
    "narrow rows": lambda x, w, b: tg.layer_norm(x.reshape((-1, 18)), w[:18], b[:18]),
}
ODD = [np.inf, -np.inf, np.nan, 1e30, 1e-30, 0.0]


@pytest.fixture(autouse=True)
def numpy_alone(monkeypatch):
    monkeypatch.setitem(fused._state, "on", False)


def data(dtype):
    return (5 + 3 * np.random.default_rng(0).normal(size=(1000, N))).astype(dtype)


def results(function, x):
    """The value and all gradients."""
    arrays = x, np.linspace(-1, 2, N), np.linspace(3, 1, N)
    leaves = [tg.tensor(a.astype(x.dtype), requires_grad=True) for a in arrays]
    with np.errstate(all="ignore"):
        y = function(*leaves)
        if y.requires_grad:
            y.backward(np.random.default_rng(1).normal(size=y.shape).astype(x.dtype))
    return [y.numpy()] + [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_blocks_give_what_whole_arrays_give(name, dtype, odd, monkeypatch):
    x = data(dtype)
    if odd:
        for row, value in zip(range(0, 600, 100), ODD):
            x[row] = value
            x[row + 1, 7] = value
    blocks = results(FUNCTIONS[name], x)
    monkeypatch.setattr(row_blocks, "as_matrices", lambda *given, **least: None)
    whole = results(FUNCTIONS[name], x)
    digits = dict(rtol=1e-5, atol=5e-5) if dtype == "float32" else dict(rtol=1e-12, atol=1e-12)
    for found, right in zip(blocks, whole, strict=True):
        np.testing.assert_allclose(found, right, **digits)


def test_which_arrays_are_computed_in_blocks():
    x = data("float32")
    assert row_blocks.softmax(np, x, -1) is not None
    assert len(list(row_blocks.in_parts(x))) > 1
    columns, few, short = np.asfortranarray(x), x[:9], x.reshape((-1, 1))
    for other in (x.astype("float16"), columns, few, short):
        assert row_blocks.softmax(np, other, -1) is None
    assert row_blocks.softmax(np, x, 0) is None
    assert row_blocks.softmax(np, x, (0, 1)) is None
    assert row_blocks.normalize(np, x, np.ones((1, N), "f"), 0.0, (-1,), 1e-5, True) is None


@pytest.mark.parametrize("function", [tg.softmax, tg.log_softmax])
def test_an_axis_out_of_bounds_is_an_error(function):
    for axis in (2, 3, -3):
        with pytest.raises(ValueError, match="axis"):
            function(tg.tensor(data("float32")), axis=axis)
