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
