"""Sliding windows, and what is built on them: convolution and pooling, beside loops in NumPy."""

import importlib.util

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.samples import normal
from tinygrad_ms.ops.fused import calls


def correlate(x, weight):
    """Every window of x times every kernel, summed: the convolution of neural networks, in loops."""
    n, _, h, w = x.shape
    k, _, a, b = weight.shape
    y = np.zeros((n, k, h - a + 1, w - b + 1))
    for i, j in np.ndindex(y.shape[2:]):
        y[:, :, i, j] = np.einsum("ncij,kcij->nk", x[:, :, i : i + a, j : j + b], weight)
    return y


@pytest.mark.parametrize("subscripts", ["nchwij,kcij->nkhw", "nchwij,kcij->nhwk", "nchwij,kcij->khwn"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 2, 3), (0, 2, 3, 1)])  # how the memory of x is laid
def test_a_convolution_is_a_sum_over_windows(subscripts, order):
    x = np.transpose(np.transpose(normal(3, 2, 7, 6), order).copy(), np.argsort(order))
    weight = normal(4, 2, 3, 2)
    expected = np.einsum(f"nkhw->{subscripts[-4:]}", correlate(x, weight))
    assert np.allclose(
        tg.einsum(subscripts, tg.sliding_window_view(x, (3, 2), (2, 3)), weight), expected, rtol=0, atol=1e-13
    )
    a, b = (tg.tensor(array, requires_grad=True) for array in (x, weight))

    def convolution(a, b):
        return tg.einsum(subscripts, tg.sliding_window_view(a, (3, 2), (2, 3)), b)

    assert tg.testing.gradcheck(convolution, [a, b])
    assert tg.testing.gradgradcheck(convolution, [a, b])


def test_windows_are_views_and_their_step_is_a_slice():
    x = tg.tensor(np.arange(10.0), requires_grad=True)
    windows = tg.sliding_window_view(x, 4)[::3]
    assert windows.numpy().tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert np.shares_memory(windows.data, x.data)
    windows.sum().backward()
    assert x.grad.numpy().tolist() == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]


def test_a_compiled_convolution_is_the_eager_one_or_refused():
    """The windows of an array are a view of its memory, also where NumPy does not say so: their base is an object that
    stands between. A list that took that memory for free after the forward would give a wrong gradient."""
    weight = tg.tensor(normal(4, 2, 3, 3).astype("float32"), requires_grad=True)
    x = tg.tensor(normal(2, 2, 9, 9).astype("float32"))

    def step(x):
        weight.grad = None
        windows = tg.sliding_window_view(tg.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
        y = tg.relu(tg.einsum("nchwij,kcij->nkhw", windows, weight))
        loss = (tg.tanh(y * y + y) * y).sum()
        loss.backward()
        return loss

    loss, compiled = step(x), tg.compile(step)
    gradient = weight.grad.numpy().copy()
    for _ in range(4):
        try:
            again = compiled(x)
        except RuntimeError as error:
            assert "sliding_window_view cannot be recorded" in str(error)
            return
        assert np.allclose(weight.grad.numpy(), gradient, rtol=1e-5) and again.item() == pytest.approx(loss.item())


@pytest.mark.parametrize(
    "window, axis, message",
    [
        (11, None, r"x has shape \(10,\) and window_shape is \(11,\) along the axes \(0,\)"),
        ((2, 2), 0, "expected one size for each axis"),
        (0, 0, "window_shape is 0, expected an integer of at least 1"),
        (2, 1, "axis 1 is out of bounds for an array of dimension 1"),
    ],
)
def test_windows_that_do_not_fit_are_refused(window, axis, message):
    with pytest.raises(ValueError, match=f"sliding_window_view: .*{message}"):
        tg.sliding_window_view(np.zeros(10), window, axis)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [(3, 5), 5, (-1, -3), 3, (5, 3), (1, 3)])
def test_extremes_of_short_axes_equal_those_of_numpy(name, keepdims, axis):
    """Large arrays with short axes take another way, slice by slice; ties and NaN as ever."""
    x = np.random.default_rng(0).integers(0, 4, (2, 3, 12, 2, 15, 2)).astype("float32")
    x[1, 2, 3, 0, 4, 1] = np.nan
    assert x.size >= 1 << 12
    function = getattr(tg, name)
    assert np.array_equal(
        function(x, axis=axis, keepdims=keepdims), getattr(x, name)(axis=axis, keepdims=keepdims), equal_nan=True
    )
    x[1, 2, 3, 0, 4, 1] = 1.0
    y = getattr(x, name)(axis=axis, keepdims=True)
    ties = (x == y).astype("float32")
    g = normal(*y.shape).astype("float32")
    leaf = tg.tensor(x, requires_grad=True)
    function(leaf, axis=axis, keepdims=True).backward(g)
    assert np.allclose(leaf.grad.numpy(), g * ties / ties.sum(axis=axis, keepdims=True), rtol=1e-6, atol=0)


EQUATIONS = [
    "ij,jk->ik", "ij,jk->ki", "ji,jk->ik", "ij,kj->ki", "bij,bjk->bik", "bij,bjk->ibk", "bij,jk->bik", "bij,jk->bki",
    "nkp,ncp->kc", "nkp,ncp->ck", "npk,npc->kc", "bnkp,bncp->bkc", "nhk,kc->nch", "kc,nhk->nch", "nmhk,kc->nmch",
    "nmhk,kc->nmhc", "abc,bcd->da", "ab,ab->", "ab,ab->a", "ab,cd->acbd", "a,ab->b", "nab,ncb->nca", "ab,nba->n",
]  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_contractions_of_any_order_and_layout_equal_numpys(equation, turned):
    sizes = dict(zip("abcdnmhkpij", (3, 4, 5, 2, 3, 2, 6, 4, 5, 3, 4)))
    left, right = equation.partition("->")[0].split(",")
    arrays = [normal(*(sizes[c] for c in letters), seed=i) for i, letters in enumerate((left, right))]
    if turned:
        arrays = [np.ascontiguousarray(array.T).T for array in arrays]
    expected = np.einsum(equation, *arrays)
    assert np.allclose(tg.einsum(equation, *arrays), expected, rtol=0, atol=1e-13)
    empty = [np.zeros([0 if c == left[0] else sizes[c] for c in letters]) for letters in (left, right)]
    assert np.array_equal(tg.einsum(equation, *empty), np.einsum(equation, *empty))


@pytest.mark.parametrize("turned", ["", "batch last", "backwards", "channels last"])
@pytest.mark.parametrize("batch", [32, 5])
def test_large_convolutions_in_any_layout_equal_numpys(batch, turned):
    """A large batch is copied with its images as neighbours in memory; the gradients, too, are those of NumPy."""
    x, weight = normal(batch, 3, 24, 20), normal(4, 3, 5, 3, seed=1)
    if turned == "backwards":
        x = x[::-1, :, ::-1]
    elif turned:
        axes = (1, 2, 3, 0) if turned == "batch last" else (0, 2, 3, 1)
        x = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 3), (2, 3))
    y = tg.einsum("nchwij,kcij->nkhw", windows, weight)
    assert np.allclose(y, np.einsum("nchwij,kcij->nkhw", windows, weight), rtol=0, atol=1e-12)
    assert (y.strides[0] == y.itemsize) == (turned == "batch last" or (batch == 32 and turned != "backwards"))
    for g in (y, np.ascontiguousarray(y)):
        for equation, a in (
            ("nkhw,nchwij->kcij", windows),
            ("nkhw,nchwij->ijck", windows),
            ("nkhw,kcij->nchwij", weight),
        ):
            assert np.allclose(tg.einsum(equation, g, a), np.einsum(equation, g, a, optimize=True), rtol=0, atol=1e-9)
            found = tg.einsum(equation.replace("nkhw,", "").replace("->", ",nkhw->"), a, g)
            assert np.allclose(found, tg.einsum(equation, g, a), rtol=0, atol=1e-9)


MISSING = importlib.util.find_spec("numba") is None


@pytest.mark.skipif(MISSING, reason='numba is missing: pip install "tinygrad-ms[fast]", or numba')
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_windows_are_added_up_by_a_kernel(dtype, monkeypatch):
    def pulled():
        x = tg.tensor(np.random.default_rng(0).standard_normal((6, 5, 13, 12)).astype(dtype), requires_grad=True)
        windows = tg.sliding_window_view(x, (5, 3), (2, 3))
        weight = np.random.default_rng(1).standard_normal((7, 5, 5, 3)).astype(dtype)
        tg.square(tg.einsum("nchwij,kcij->nkhw", windows, weight)).sum().backward()
        return x.grad.numpy()

    used, find = [], calls.find
    monkeypatch.setattr(calls, "find", lambda name, *arrays: used.append(name) or find(name, *arrays))
    found = pulled()
    monkeypatch.setattr(calls, "find", lambda name, *arrays: None)
    right = pulled()
    assert used == ["overlap_add"]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, right, rtol=20 * eps, atol=20 * eps * abs(right).max())
