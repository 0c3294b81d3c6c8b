"""Derivatives far out, where the value is rounded to its limit."""

import math
from fractions import Fraction

import numpy as np
import pytest

import tinygrad_ms as tg

e = math.exp
SELU = 1.0507009873554805 * 1.6732632423543772


def bell(x):
    return e(-abs(x)) / (1 + e(-abs(x))) ** 2


CASES = {  # function, derivative, points for float32 and float64
    "sigmoid": (tg.sigmoid, bell, (14, 17, 25, -30), (37, 40, 100, -300)),
    "tanh": (tg.tanh, lambda x: 4 * bell(2 * x), (8, 9, 12, -30), (19.5, 40, -100)),
    "coth": (tg.coth, lambda x: -4 * e(-2 * x) / (1 - e(-2 * x)) ** 2, (9, 20), (40, 100)),
    "expm1": (tg.expm1, e, (-15, -20), (-37, -100)),
    "elu": (tg.elu, e, (-15, -20), (-37, -100)),
    "selu": (tg.selu, lambda x: SELU * e(x), (-15, -20), (-37, -100)),
    "softplus": (tg.softplus, lambda x: e(x) / (1 + e(x)), (-20, -80), (-40, -600)),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("size", [1, 1000, 50_000])
@pytest.mark.parametrize("name", list(CASES))
def test_derivatives_are_not_rounded_to_zero(name, size, create_graph):
    f, slope, *points = CASES[name]
    for dtype, xs in zip(("float32", "float64"), points):
        x = tg.tensor(np.repeat(np.array(xs, dtype), size), requires_grad=True)
        f(x).sum().backward(create_graph=create_graph)
        right = np.repeat([slope(float(v)) for v in xs], size)
        np.testing.assert_allclose(x.grad.numpy(), right, rtol=2e-6 if dtype == "float32" else 2e-15)


def test_gelu_far_out_at_the_left():
    x = np.array([-3.0, -5.0, -8.0, -12.0])
    right = []
    for v in x.tolist():
        z = -v / math.sqrt(2)  # rounded, which erfc would magnify by 2 z^2: taken back
        right.append(v * math.erfc(z) / 2 * e(float(Fraction(z) ** 2 - Fraction(v) ** 2 / 2)))
    np.testing.assert_allclose(tg.gelu(tg.tensor(x)).numpy(), right, rtol=4e-15)
    np.testing.assert_allclose(tg.gelu(tg.tensor(x.astype("float32"))).numpy(), right, rtol=2e-7)


def spacing(right, dtype):
    """The distance of floats at each value."""
    info = np.finfo(dtype)
    return np.maximum(np.exp2(np.floor(np.log2(np.maximum(np.abs(right), float(info.tiny))))) * float(info.eps), 0)


def values_and_slopes(f, x):
    x = tg.tensor(x, requires_grad=True)
    y = f(x)
    y.sum().backward()
    return y.numpy().astype("float64"), x.grad.numpy().astype("float64")


@pytest.mark.parametrize("dtype, limit", [("float16", 0.51), ("float32", 0.51), ("float64", 6)])
def test_erfc_and_its_derivative_have_all_digits_down_to_the_smallest_number(dtype, limit):
    x = np.linspace(-6, {"float16": 4, "float32": 10.05, "float64": 26.5}[dtype], 2001).astype(dtype)
    y, g = values_and_slopes(tg.erfc, x)
    right = np.array([math.erfc(v) for v in x.tolist()])
    assert (abs(y - right) / spacing(right, dtype)).max() <= limit
    slope = []
    for v in x.tolist():  # e^-v^2 with the square exact
        square = Fraction(v) ** 2
        slope.append(-2 / math.sqrt(math.pi) * e(-float(square)) * e(float(Fraction(float(square)) - square)))
    assert (abs(g - slope) / spacing(np.array(slope), dtype)).max() <= max(limit, 2)
    assert tg.erfc(np.array([np.inf, 28.0, -np.inf], dtype)).tolist() == [0, 0, 2]


@pytest.mark.parametrize("dtype, limit", [("float16", 0.51), ("float32", 0.51), ("float64", 3)])
def test_logit_is_accurate_at_both_ends_and_in_the_middle(dtype, limit):
    near = np.concatenate([np.geomspace(float(np.finfo(dtype).tiny), 0.4, 1000), np.linspace(0.2, 0.8, 1001)])
    x = np.concatenate([near, 1 - near]).astype(dtype)
    x = x[(x > 0) & (x < 1) & (x != 0.5)]
    y, g = values_and_slopes(tg.logit, x)
    exact = [Fraction(v) for v in x.tolist()]
    right = []
    for v in exact:  # 2 atanh(2 v - 1) in the middle
        w = 2 * v - 1
        right.append(2 * math.atanh(float(w)) if abs(w) < 0.5 else math.log(float(v)) - math.log(float(1 - v)))
    assert (abs(y - right) / spacing(np.array(right), dtype)).max() <= limit
    with np.errstate(over="ignore"):
        slope = np.array([float(1 / (v * (1 - v))) for v in exact]).astype(dtype).astype("float64")
    finite = np.isfinite(slope)
    assert (abs(g - slope)[finite] / spacing(slope[finite], dtype)).max() <= 2
    np.testing.assert_array_equal(tg.logit(np.array([0.0, 0.5, 1.0], dtype)), [-np.inf, 0, np.inf])


def test_logit_with_a_tiny_eps_is_finite():
    x = tg.tensor([0.0, 1e-12, 1.0], requires_grad=True)
    y = tg.logit(x, eps=1e-9)
    np.testing.assert_allclose(y.numpy(), math.log(1e9) * np.array([-1, -1, 1]), rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 0)
    with pytest.raises(ValueError, match="^logit: eps is 0.7; it must be from 0 to 0.5"):
        tg.logit(x, eps=0.7)
    np.testing.assert_allclose(tg.sigmoid(tg.logit(np.linspace(0.01, 0.99, 99))), np.linspace(0.01, 0.99, 99))
