"""Samples of activation functions."""

import math

import numpy as np

from tests.samples import Sample, normal
from tests.samples.comparisons import inf, nan, pairs
from tests.samples.elementwise import edge, integers, unary
from tests.samples.special import math_erf

BIG = np.array([-1e4, -100.0, -40.0, 0.0, 40.0, 100.0, 1e4])


def stable_sigmoid(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def along_axis(reference):
    """Functions of a whole axis: every axis, pairs of axes, 0-d, empty, logits of 1e4."""
    return [
        Sample((normal(2, 3),), {}, reference=reference),
        Sample((normal(2, 3),), {"axis": 0}, reference=reference),
        Sample((normal(2, 3, 4),), {"axis": -2}, reference=reference),
        Sample((normal(2, 3, 2),), {"axis": (0, 2)}, reference=reference),
        Sample((normal(5),), {}, reference=reference),
        Sample((np.array(1.5),), {}, reference=reference),
        Sample((np.zeros((0, 3)),), {}, reference=reference),
        Sample((np.zeros((3, 0)),), {}, reference=lambda x: x, note="an empty axis"),
        Sample(
            (np.array([[1e4, -1e4, 0.0], [1e4, 1e4 - 1, 1e4 + 1]]),),
            {},
            reference=reference,
            tolerance=1e-3,
            note="logits of 1e4, where differences are coarse",
        ),
        Sample((np.array([1, 2, 3]),), {}, note="integers become floats"),
    ]


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-inf))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    shifted = x - x.max(axis=axis, keepdims=True, initial=-inf)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def gelu(x, approximate="none"):
    if approximate == "tanh":
        return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + math_erf(x / math.sqrt(2)))


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1))


def selu(x):
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def leaky_relu(x, negative_slope=0.01):
    return np.where(x > 0, x, negative_slope * x)


def softplus(x, beta=1.0):
    return np.logaddexp(beta * x, 0) / beta


def with_constants(reference, **constants):
    return [Sample((x,), constants, reference=reference) for x in (normal(2, 3), np.array(-0.5), np.zeros((0, 3)))]


SAMPLES = {
    "relu": [
        *unary(lambda x: np.maximum(x, 0)),
        Sample((np.array([-1, 0, 2]),), reference=lambda x: np.maximum(x, 0), note="integers"),
        edge([-1.0, -0.0, 0.0, 1.0], [0, 0, 0, 1], lambda x: np.maximum(x, 0), "gradient 0 at 0"),
    ],
    "leaky_relu": [
        *unary(leaky_relu),
        *with_constants(leaky_relu, negative_slope=0.2),
        *with_constants(leaky_relu, negative_slope=1.5),
        edge([-1.0, 0.0, 1.0], [0.01, 0.01, 1], leaky_relu, "the slope of the left at 0"),
    ],
    "hardtanh": [
        *unary(lambda x: np.clip(x, -1, 1)),
        *with_constants(lambda x, min, max: np.clip(x, min, max), min=0, max=6),
        edge([-2.0, -1.0, 0.5, 1.0, nan], [0, 0, 1, 0, 0], lambda x: np.clip(x, -1, 1), "gradient 0 at the bounds"),
    ],
    "elu": [
        *unary(elu),
        *with_constants(elu, alpha=0.5),
        *with_constants(elu, alpha=-0.5),
        edge([-inf, 0.0, 1e4], [0, 1, 1], elu, "far out and 0"),
    ],
    "selu": [
        *unary(selu),
        edge([-inf, 0.0, 1.0], [0, 1.0507009873554805 * 1.6732632423543772, 1.0507009873554805], selu, "-inf and 0"),
    ],
    "sigmoid": [
        *unary(lambda x: 1 / (1 + np.exp(-x))),
        integers(None),
        edge(BIG, np.exp(-np.abs(BIG)) / (1 + np.exp(-np.abs(BIG))) ** 2, stable_sigmoid, "far out"),
    ],
    "sigmoid_slope": [
        *unary(lambda x: 1 / (4 * np.cosh(x / 2) ** 2)),
        integers(None),
        Sample((np.linspace(-9, 9, 300),), reference=lambda x: 1 / (4 * np.cosh(x / 2) ** 2), note="large"),
    ],
    "silu": [
        *unary(lambda x: x / (1 + np.exp(-x))),
        integers(None),
        edge(
            BIG,
            [0, -99 * math.exp(-100), -39 * math.exp(-40), 0.5, 1, 1, 1],
            lambda x: x * stable_sigmoid(x),
            "far out",
        ),
    ],
    "logaddexp": [
        *pairs(np.logaddexp),
        integers(np.logaddexp, np.array([1, 2]), np.array([2, 1])),
        Sample(
            (np.array([1e4, -1e4, -inf, 0.0, inf]), np.array([0.0, 0.0, 0.0, -inf, 1.0])),
            reference=np.logaddexp,
            smooth=False,
            gradient=(np.array([1.0, 0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0, 0.0])),
            note="far apart and infinite",
        ),
    ],
    "softplus": [
        *unary(softplus),
        *with_constants(softplus, beta=2.0),
        integers(None),
        edge(BIG, stable_sigmoid(BIG), lambda x: np.logaddexp(x, 0), "far out"),
        edge([-inf, inf], [0, 1], lambda x: np.array([0, inf]), "infinity"),
    ],
    "mish": [
        *unary(lambda x: x * np.tanh(np.log1p(np.exp(x)))),
        integers(None),
        edge([-100.0, 0.0, 1e4], [-99 * math.exp(-100), 0.6, 1], lambda x: x * np.tanh(np.logaddexp(x, 0)), "far out"),
    ],
    "gelu": [
        *unary(gelu),
        *with_constants(gelu, approximate="tanh"),
        integers(None),
        edge([-100.0, 0.0, 1e4], [0, 0.5, 1], gelu, "far out and 0"),
        Sample(
            (np.array([-100.0, 0.0, 1e4]),),
            {"approximate": "tanh"},
            reference=gelu,
            smooth=False,
            gradient=(np.array([0.0, 0.5, 1.0]),),
            note="far out and 0",
        ),
    ],
    "softmax": along_axis(softmax),
    "log_softmax": along_axis(log_softmax),
}
