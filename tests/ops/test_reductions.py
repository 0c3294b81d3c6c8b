"""Reductions: conventions, dtypes, special values, norms, errors. The primitives: test_derivatives.py."""

import math

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.testing import gradcheck, gradgradcheck

M = np.random.default_rng(0).standard_normal((3, 4))
BATCH = np.random.default_rng(1).standard_normal((2, 3, 4))
ALL = ["sum", "mean", "prod", "var", "std", "max", "min", "argmax", "argmin", "logsumexp", "norm", "any", "all"]


@pytest.mark.parametrize("name", ALL)
def test_methods_are_the_functions(name):
    x = tg.tensor(M)
    by_method, by_function = (getattr(x, name)(axis=1, keepdims=True), getattr(tg, name)(x, axis=1, keepdims=True))
    np.testing.assert_array_equal(by_method.data, by_function.data)
    assert by_method.shape == (3, 1)


def test_axis_and_options_may_be_positional():
    x = tg.tensor(M)
    np.testing.assert_array_equal(x.sum(0).data, M.sum(0))
    np.testing.assert_array_equal(x.sum((0, 1), True).data, M.sum((0, 1), keepdims=True))
    np.testing.assert_array_equal(x.var(1, 1).data, M.var(1, ddof=1))
    np.testing.assert_array_equal(tg.max(x, np.int64(-1)).data, M.max(-1))
    np.testing.assert_array_equal(tg.cumsum(x, 1).data, M.cumsum(1))


@pytest.mark.parametrize("name", [*ALL, "cumsum", "cumprod", "count_nonzero"])
def test_an_axis_out_of_range_is_named(name):
    with pytest.raises(ValueError, match=rf"^{name.replace('norm', 'euclidean_norm')}: axis 2 is out of bounds"):
        getattr(tg, name)(tg.tensor(M), axis=2)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "var", "logsumexp", "norm", "any"])
def test_an_axis_given_twice_is_an_error(name):
    with pytest.raises(ValueError, match="twice|duplicate"):
        getattr(tg, name)(tg.tensor(M), axis=(0, -2))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_an_extreme_of_no_elements_is_an_error(name):
    with pytest.raises(ValueError, match=rf"^{name}: .*x: float32 \(0, 3\) on cpu"):
        getattr(tg, name)(tg.zeros((0, 3)), axis=0)


def test_no_elements_sum_to_zero_and_multiply_to_one():
    x = tg.zeros((0, 3), requires_grad=True)
    assert x.sum().item() == 0 and x.prod().item() == 1 and x.logsumexp().item() == -math.inf
    assert x.any().item() is False and x.all().item() is True
    with pytest.warns(RuntimeWarning):
        y = x.mean(axis=0)
    assert np.isnan(y.data).all()
    y.sum().backward()
    assert x.grad.shape == (0, 3)


def test_integers_sum_to_integers_and_average_to_the_default_float():
    x = tg.tensor([[1, 2], [3, 5]])
    assert x.sum().dtype == np.int64 and x.prod().dtype == np.int64 and x.max().dtype == np.int64
    for y in (x.mean(), x.var(), x.std(), x.logsumexp(), x.norm(), x.norm(1)):
        assert y.dtype == np.float32
    assert tg.tensor([True, False, True]).sum().item() == 2
    assert tg.tensor(np.array([200, 100], np.uint8)).sum().item() == 300


@pytest.mark.parametrize("name", ["var", "std", "norm"])
def test_squares_of_float16_do_not_overflow(name):
    x = np.array([300.0, -300.0, 299.0, 1000.0], np.float16) if name != "var" else np.array([300.0, -200.0], np.float16)
    reference = np.linalg.norm if name == "norm" else getattr(np, name)
    expected = reference(x.astype(np.float32)).astype(np.float16)
    x = tg.tensor(x / 2, requires_grad=True)
    y = getattr(x * 2, name)()
    y.backward()
    assert y.dtype == x.grad.dtype == np.float16
    assert y.item() == expected and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max"])
def test_float16_is_reduced_as_numpy_does(name):
    x = (np.arange(3000) % 7 / 8).astype(np.float16)
    y = getattr(tg, name)(tg.tensor(x))
    expected = getattr(np, name)(x)
    assert y.dtype == np.float16
    assert y.item() == float(expected)


def test_scalars_lists_and_arrays():
    assert tg.sum([[1.0, 2.0], [3.0, 4.0]]).item() == 10
    assert isinstance(tg.sum([1, 2]), tg.Tensor)
    assert not isinstance(tg.sum(M), tg.Tensor)
    assert tg.norm([3.0, 4.0]).item() == 5
    assert tg.max(2.5).item() == 2.5


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "logsumexp", "norm", "cumsum", "cumprod"])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_a_0d_tensor_may_be_reduced_over_axis_0_where_numpy_allows_it(name, axis):
    x = tg.tensor(3.0, requires_grad=True)
    y = getattr(tg, name)(x, axis=axis)
    y.backward()
    assert (y.item(), x.grad.item()) == (3, 1)


def test_correction_is_zero_unless_given():
    x = tg.tensor(M)
    np.testing.assert_allclose(x.var(axis=0).data, np.var(M, axis=0))
    np.testing.assert_allclose(x.var(axis=0, correction=1).data, np.var(M, axis=0, ddof=1))
    np.testing.assert_allclose(x.std(axis=0, correction=1).data, np.std(M, axis=0, ddof=1))


def test_variance_of_one_element_with_correction_is_nan():
    x = tg.tensor([2.0], requires_grad=True)
    with pytest.warns(RuntimeWarning):
        y = x.var(correction=1)
        y.backward()
    assert math.isnan(y.item()) and math.isnan(x.grad.item())


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_is_the_extreme(name):
    assert math.isnan(getattr(tg, name)(tg.tensor([1.0, math.nan, 2.0])).item())


@pytest.mark.parametrize("size", [300.0, 1e4, 1e30])
def test_logsumexp_of_huge_numbers(size):
    x = tg.tensor([[size, size], [-size, -size], [size, -size]], requires_grad=True)
    with np.errstate(all="raise", under="ignore"):
        y = x.logsumexp(axis=1)
        y.sum().backward()
    np.testing.assert_allclose(y.data, np.array([size, -size, size]) + [math.log(2), math.log(2), 0], rtol=1e-6)
    np.testing.assert_allclose(x.grad.data, [[0.5, 0.5], [0.5, 0.5], [1, 0]], atol=1e-7)


def test_logsumexp_of_minus_infinity_is_silent(device):
    """A masked row: no warning, no NaN, no gradient."""
    x = tg.tensor([[-math.inf, -math.inf], [-math.inf, 1.0]], device=device, requires_grad=True)
    with np.errstate(all="raise"):
        y = x.logsumexp(axis=1)
        y[1].backward()
    assert y.tolist() == [-math.inf, 1]
    assert x.grad.tolist() == [[0, 0], [0, 1]]


def test_logsumexp_of_infinity_is_infinity():
    assert tg.logsumexp(tg.tensor([math.inf, 1.0])).item() == math.inf
    assert math.isnan(tg.logsumexp(tg.tensor([math.nan, 1.0])).item())


def test_gradient_of_a_maximum_counts_every_tie():
    x = tg.tensor([3.0, 1.0, 3.0, 3.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_allclose(x.grad.data, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)


def test_hessian_of_a_product_with_zeros():
    """d^2 y / dx_i dx_j is the product of the others: of (2, 0, 3) it is 3 at (0, 1) and 2 at (1, 2)."""
    x = tg.tensor([2.0, 0.0, 3.0], requires_grad=True)
    x.prod().backward(create_graph=True)
    g, rows = x.grad, []
    np.testing.assert_array_equal(g.data, [0, 6, 0])
    for i in range(3):
        x.zero_grad()
        g[i].backward(retain_graph=True)
        rows.append(x.grad.tolist())
    assert rows == [[0, 3, 0], [3, 0, 2], [0, 2, 0]]


def test_products_of_many_factors_take_few_steps_back():
    """The rule of cumprod is a scan: the tape of its gradient grows with log n, not with n."""
    sizes = []
    for n in (64, 4096):
        x = tg.tensor(np.full(n, 1.001), requires_grad=True)
        x.cumprod(axis=0).sum().backward(create_graph=True)
        sizes.append(len(x.grad.tape()))
    assert sizes[1] < 2.5 * sizes[0]


# --- norms --------------------------------------------------------------------------------------------------

NORMS = [(M, ord, None) for ord in (None, "fro", 1, math.inf)]
NORMS += [(M[0], ord, None) for ord in (None, 2, 1, math.inf, -math.inf, 0, 0.5, 3, -2)]
NORMS += [(BATCH, ord, axis) for ord in (None, 2, 1, math.inf) for axis in (0, -1, (1,))]
NORMS += [(BATCH, ord, axis) for ord in (None, "fro", 1, -1, math.inf, -math.inf) for axis in ((0, 1), (-1, 0), (2, 1))]
NORMS += [(BATCH, None, None), (np.zeros((0, 3)), None, 0), (np.array(-2.0), None, None)]
each_norm = pytest.mark.parametrize("x, ord, axis", NORMS, ids=lambda v: "" if isinstance(v, np.ndarray) else repr(v))


@pytest.mark.parametrize("keepdims", [False, True])
@each_norm
def test_norm_equals_numpy(x, ord, axis, keepdims, device):
    y = tg.norm(tg.Tensor(to_device(x.copy(), device)), ord, axis, keepdims)
    expected = np.linalg.norm(x, ord, axis[0] if axis == (1,) else axis, keepdims)
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-14)


@each_norm
def test_norm_has_the_gradient_of_differences(x, ord, axis):
    assert gradcheck(lambda x: tg.norm(x, ord, axis), [tg.tensor(x, requires_grad=True)])
    assert gradgradcheck(lambda x: tg.norm(x, ord, axis), [tg.tensor(x, requires_grad=True)])


ZEROS = [(ord, 3) for ord in (None, 2, 1, math.inf, -math.inf, 0, 0.5, 1.5, 3, -1)] + [("fro", (2, 2)), (1, (2, 2))]


@pytest.mark.parametrize("ord, shape", ZEROS)
def test_the_gradient_of_a_norm_at_zero_is_zero(ord, shape):
    x = tg.zeros(shape, requires_grad=True)
    x.norm(ord).backward()
    np.testing.assert_array_equal(x.grad.data, 0)


def test_the_largest_elements_share_the_gradient_of_the_maximum_norm():
    x = tg.tensor([2.0, -2.0, 1.0], requires_grad=True)
    x.norm(math.inf).backward()
    np.testing.assert_array_equal(x.grad.data, [0.5, -0.5, 0])


@pytest.mark.parametrize("ord", [0, 0.5, 1, 2, 3, -1, math.inf, -math.inf])
def test_vector_norm_takes_any_axes_together(ord, device):
    x = tg.Tensor(to_device(BATCH.copy(), device))
    for axis, rows in [(None, BATCH.reshape(1, -1)), ((0, 2), np.moveaxis(BATCH, 1, 0).reshape(3, -1))]:
        expected = np.linalg.norm(rows, ord, axis=1)
        np.testing.assert_allclose(tg.vector_norm(x, ord, axis).numpy().reshape(-1), expected, rtol=1e-14)
        assert tg.vector_norm(x, ord, axis, keepdims=True).ndim == 3


@pytest.mark.parametrize("ord", [0, 0.5, 1, 1.5, 2, 3, -1, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_norms_of_low_precision_are_those_of_float64_rounded(ord, dtype):
    """1,000 small numbers: the powers of float16 would be lost."""
    x = np.random.default_rng(2).uniform(1, 2, 1000).astype(dtype) * np.array(2**-10, dtype)
    y, right = tg.vector_norm(x, ord), np.linalg.norm(x.astype("float64"), ord)
    assert y.dtype == dtype and abs(float(y) - right) <= 3 * np.finfo(dtype).eps * max(right, np.finfo(dtype).tiny)


def test_norms_with_infinite_and_missing_elements():
    inf, nan = math.inf, math.nan
    for ord, value in [(0, 3), (0.5, inf), (3, inf), (-1, 2 / 3), (inf, inf), (-inf, 1)]:
        np.testing.assert_allclose(tg.vector_norm([inf, 1.0, -2.0], ord).item(), value, rtol=1e-6)
    for ord in (0.5, 1, 3, -1, inf, -inf):
        assert math.isnan(tg.vector_norm([nan, 1.0], ord).item())
    assert [tg.vector_norm(np.zeros(0), ord).item() for ord in (0, 0.5, 1, 2, 3)] == [0] * 5
    for ord in (-1, inf, -inf):
        with pytest.raises(ValueError, match="no elements|zero-size"):
            tg.vector_norm(np.zeros(0), ord)


@pytest.mark.parametrize("ord", [math.nan, "fro", None, [2]])
def test_an_unknown_vector_norm_is_named(ord):
    with pytest.raises(ValueError, match="^vector_norm: ord=.* is unknown; expected a number, inf or -inf"):
        tg.vector_norm([1.0], ord)


@pytest.mark.oracle
@pytest.mark.parametrize("ord", [0.3, 0.5, 1, 1.5, 2, 3, -1, -2.5, math.inf, -math.inf])
def test_gradients_of_vector_norms_at_zeros_and_ties_are_those_of_pytorch(ord):
    torch = pytest.importorskip("torch")
    rows = np.array([[0.0, 0, 0], [0, 1, -2], [2, 2, -2], [0, 0, 3], [1, -3, 0.5]])
    x, z = tg.tensor(rows, requires_grad=True), torch.tensor(rows, requires_grad=True)
    y, w = tg.vector_norm(x, ord, axis=1), torch.linalg.vector_norm(z, ord, dim=1)
    np.testing.assert_allclose(y.numpy(), w.detach().numpy(), rtol=1e-14)
    y.sum().backward()
    w.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize(
    "x, ord, axis, message",
    [
        (
            M[0],
            "fro",
            None,
            r"norm: ord='fro' of vectors \(x has shape \(4,\), axis=None\) .*; expected None or a number",
        ),
        (M, "spectral", None, "norm: ord='spectral' of matrices .*; expected None, 'fro', 1, -1, inf"),
        (BATCH, 1, None, "norm: ord=1 of 3 axes together"),
        (BATCH, 1, (0, 3), "norm: axis 3 is out of bounds"),
    ],
)
def test_an_unknown_norm_is_named(x, ord, axis, message):
    with pytest.raises(ValueError, match=message):
        tg.norm(tg.tensor(x), ord, axis)


@pytest.mark.parametrize(
    "shape, axis",
    [((1 << 15,), None), ((1 << 15,), 0), ((2, 1 << 14), -1), ((2, 1 << 14), 1), ((40, 1000), 1), ((6, 50, 128), -1)],
)
@pytest.mark.parametrize("contiguous", [True, False])
def test_running_sums_of_long_rows_are_as_good_as_those_one_by_one(shape, axis, contiguous):
    rng = np.random.default_rng(0)
    a, v = (rng.standard_normal(shape).astype("float32") for _ in range(2))
    x = tg.tensor(a if contiguous else np.repeat(a, 2, axis=-1)[..., ::2], requires_grad=True)
    y = tg.cumsum(x, axis)
    (y * v).sum().backward()
    exact = np.cumsum(a.astype("float64"), axis)
    back = np.flip(np.cumsum(np.flip(v.astype("float64"), axis or -1), axis or -1), axis or -1)
    assert np.abs(y.numpy() - exact).max() <= np.abs(np.cumsum(a, axis) - exact).max()
    np.testing.assert_allclose(x.grad.numpy(), back, atol=np.abs(back).max() * 3e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
@pytest.mark.parametrize("place", [0, 17, 20_000])
def test_running_sums_before_what_is_no_number_are_numbers(value, place):
    a = np.ones(1 << 15, "float32")
    a[place], a[place + 5] = value, abs(value)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(tg.cumsum(tg.tensor(a)).numpy(), np.cumsum(a))
