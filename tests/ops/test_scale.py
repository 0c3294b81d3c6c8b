"""Homogeneous functions are so in value and gradient over the whole range of the dtype."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.optim import clip_grad_norm

V = np.array([[3.0, -4.0, 12.0], [1.0, 2.0, -2.0]])
EXPONENTS = {"float32": (-140, -120, -70, 0, 70, 120), "float64": (-1040, -900, -600, 0, 600, 1000)}
FUNCTIONS = {  # of degree 1
    "norm": tg.norm,
    "norm of rows": lambda x: tg.norm(x, axis=1),
    "matrix_norm": tg.matrix_norm,
    "norm 1": lambda x: tg.norm(x, 1, axis=1),
    "norm inf": lambda x: tg.norm(x, np.inf, axis=0),
    **{f"norm {p}": lambda x, p=p: tg.norm(x, p, axis=1) for p in (0.5, 1.5, 3, 10, -1, -np.inf)},
    "std": lambda x: x.std(axis=1),
    "std with correction": lambda x: x.std(axis=0, correction=1, keepdims=True),
    "hypot": lambda x: tg.hypot(x[0], x[1]),
}
DEGREE_0 = {
    "rms_norm": lambda x: tg.rms_norm(x, eps=0.0),
    "layer_norm": lambda x: tg.layer_norm(x, eps=0.0),
    "layer_norm with a weight": lambda x: tg.layer_norm(x, np.array([1.0, 2.0, 3.0], x.dtype), eps=0.0),
}


def value_and_gradient(f, x, seed=None):
    x = tg.tensor(x, requires_grad=True)
    y = f(x)
    seed = np.linspace(1, 2, y.size).reshape(y.shape).astype(y.dtype) if seed is None else seed.astype(y.dtype)
    y.backward(tg.tensor(seed))
    return y.numpy(), x.grad.numpy()


@pytest.mark.parametrize("dtype", list(EXPONENTS))
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_of_degree_1(name, dtype):
    value, gradient = value_and_gradient(FUNCTIONS[name], V)
    for k in EXPONENTS[dtype]:
        x = np.ldexp(V, k).astype(dtype)
        with np.errstate(all="raise", under="ignore"):
            y, g = value_and_gradient(FUNCTIONS[name], x)
        digits = 1e-5 if dtype == "float32" or k < -1000 else 1e-12
        digits = 0.05 if (dtype, k) == ("float32", -140) else digits  # subnormal: few digits are left
        np.testing.assert_allclose(np.ldexp(y.astype("float64"), -k), value, rtol=digits)
        np.testing.assert_allclose(g, gradient, rtol=digits, atol=digits)


@pytest.mark.parametrize("dtype", list(EXPONENTS))
@pytest.mark.parametrize("name", list(DEGREE_0))
def test_functions_of_degree_0(name, dtype):
    value, gradient = value_and_gradient(DEGREE_0[name], V)
    for k in EXPONENTS[dtype][1:-1]:
        x = np.ldexp(V, k).astype(dtype)
        with np.errstate(all="raise", under="ignore"):
            y, g = value_and_gradient(DEGREE_0[name], x)
        digits = 2e-6 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(y, value, rtol=digits, atol=digits)
        scaled = np.ldexp(g.astype("float64"), k)
        np.testing.assert_allclose(scaled, gradient, rtol=10 * digits, atol=10 * digits)


@pytest.mark.parametrize("norm", [tg.rms_norm, tg.layer_norm])
def test_normalisation_of_large_rows_with_the_usual_eps(norm):
    x = np.array([[3e30, -4e30, 1e30], [3.0, -4.0, 1.0], [3e-30, -4e-30, 1e-30]], "float32")
    y, g = value_and_gradient(norm, x)
    right, slope = value_and_gradient(norm, x.astype("float64"))
    np.testing.assert_allclose(y, right, rtol=1e-5)
    np.testing.assert_allclose(g, slope, rtol=1e-4, atol=1e-38)
    pushed = tg.jvp(norm, (tg.tensor(x),), (tg.tensor(x),))[1].numpy()
    np.testing.assert_allclose(pushed[:2], 0, atol=1e-4)  # along x itself nothing changes


def test_one_large_element_beside_small_ones():
    y, g = value_and_gradient(tg.norm, np.array([1e20, 1, 1], "float32"), np.ones(()))
    np.testing.assert_allclose(y, 1e20, rtol=1e-6)
    np.testing.assert_allclose(g, [1, 1e-20, 1e-20], rtol=1e-6)


def test_rows_of_very_different_scale():
    x = np.array([[3e30, 4e30], [3.0, 4.0], [3e-30, 4e-30], [0, 0]], "float32")
    y, g = value_and_gradient(lambda t: tg.norm(t, axis=1), x, np.ones(4))
    np.testing.assert_allclose(y, [5e30, 5, 5e-30, 0], rtol=1e-6)
    np.testing.assert_allclose(g, [[0.6, 0.8]] * 3 + [[0, 0]], rtol=1e-6)


def test_infinity_and_nan_stay():
    y = tg.norm(tg.tensor([[np.inf, 1e30], [np.nan, 1.0], [3.0, 4.0]]), axis=1).numpy()
    assert y[0] == np.inf and np.isnan(y[1]) and y[2] == 5


def test_the_second_derivative_of_a_small_and_of_a_large_norm():
    for s in (1e-100, 1.0, 1e100):
        h = tg.hessian(tg.norm)(tg.tensor(np.array([3.0, 4.0]) * s)).numpy()
        np.testing.assert_allclose(h * s, np.array([[16, -12], [-12, 9]]) / 125, rtol=1e-12)


def test_norms_of_empties_are_zero():
    x = tg.tensor(np.zeros((0, 3), "float32"), requires_grad=True)
    y = tg.norm(x, axis=0)
    y.sum().backward()
    assert (y.numpy() == 0).all() and y.shape == (3,) and x.grad.shape == (0, 3)
    assert tg.norm(x).item() == 0


@pytest.mark.parametrize("dtype, size", [("float16", 6e4), ("float32", 1e30), ("float64", 1e200), ("float64", 1e-200)])
@pytest.mark.parametrize("order", [2, np.inf])
def test_gradients_of_any_scale_are_clipped(dtype, size, order):
    parameters = [tg.tensor(np.zeros(50_000, dtype), requires_grad=True) for _ in range(2)]
    for p in parameters:
        p.grad = tg.tensor(np.full(50_000, size).astype(dtype))
    size = float(parameters[0].grad.numpy()[0])
    bound = min(size, 1.0) / 100
    found = float(clip_grad_norm(parameters, bound, norm_type=order))
    right = size * 100_000**0.5 if order == 2 else size
    np.testing.assert_allclose(found, right, rtol=1e-6)
    expected = size * bound / (right + 1e-6)  # the formula of the docstring
    for p in parameters:
        np.testing.assert_allclose(
            p.grad.numpy().astype("float64"), expected, rtol=1e-3 if dtype == "float16" else 1e-6
        )


@pytest.mark.parametrize("dtype", list(EXPONENTS))
@pytest.mark.parametrize("axis", [None, 1])
def test_moments_of_numbers_whose_sum_leaves_the_range(dtype, axis):
    """Rows near the largest number, of one sign and of both, and an ordinary one."""
    most = float(np.finfo(dtype).max)
    x = np.array([[0.875, 0.9375, 1.0], [1.0, 0.5, 0.25], [1.0, -0.5, 0.25], [-1.0, -1.0, -0.875]]) * most
    x = (x[:2] if axis is None else np.concatenate([x, np.ones((1, 3))])).astype(dtype)
    with np.errstate(all="raise", under="ignore"):
        for f in (tg.mean, tg.std):
            y, g = value_and_gradient(lambda t: f(t, axis=axis), x)
            right, slope = value_and_gradient(lambda t: f(t, axis=axis), np.ldexp(x, -60))
            np.testing.assert_allclose(np.ldexp(y, -60), right, rtol=1e-6)
            np.testing.assert_allclose(g, slope, rtol=1e-5, atol=1e-6)
        constant = np.full((4, 1024), 0.75 * most, dtype)
        np.testing.assert_array_equal(tg.mean(constant, axis=axis), constant.max(axis=axis))
        np.testing.assert_array_equal(tg.var(constant, axis=axis), 0)
    assert tg.mean(np.array([np.inf, 1, most], dtype)) == np.inf
    assert np.isnan(tg.mean(np.array([np.nan, most, most], dtype)))
