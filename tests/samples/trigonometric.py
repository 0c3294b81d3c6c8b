"""Samples of trigonometric and hyperbolic functions."""

import numpy as np

from tests.samples import Sample
from tests.samples.comparisons import inf, nan, pairs
from tests.samples.elementwise import edge, integers, unary

pi = np.pi


def pole(reference, notes="0"):
    return edge([0.0], [-inf], lambda x: np.array([inf]), notes)


def both_signs(reference, low, high):
    """For functions with a pole at 0."""
    return [*unary(reference, low, high), *unary(reference, -high, -low), integers(None)]


SAMPLES = {
    "sin": [*unary(np.sin), integers(np.sin)],
    "cos": [*unary(np.cos), integers(np.cos)],
    "tan": [*unary(np.tan, -1.2, 1.2), *unary(np.tan, 1.9, 4.0), integers(np.tan)],
    "cot": [*both_signs(lambda x: np.cos(x) / np.sin(x), 0.3, 2.7), pole("cot")],
    "sec": [*unary(lambda x: 1 / np.cos(x), -1.2, 1.2), integers(None)],
    "csc": [*both_signs(lambda x: 1 / np.sin(x), 0.3, 2.7), pole("csc")],
    "asin": [
        *unary(np.arcsin, -0.8, 0.8),
        integers(np.arcsin, np.array([-1, 0, 1])),
        edge([-1.0, 1.0, 2.0], [inf, inf, nan], np.arcsin, "edges and outside"),
    ],
    "acos": [
        *unary(np.arccos, -0.8, 0.8),
        integers(np.arccos, np.array([-1, 0, 1])),
        edge([-1.0, 1.0, 2.0], [-inf, -inf, nan], np.arccos, "edges and outside"),
    ],
    "atan": [*unary(np.arctan), integers(np.arctan), edge([-inf, inf], [0, 0], np.arctan, "infinity")],
    "acot": [
        *unary(lambda x: pi / 2 - np.arctan(x)),
        integers(None),
        edge([-inf, 0.0, inf, 1e20], [0, -1, 0, 0], lambda x: np.array([pi, pi / 2, 0, 1e-20]), "infinity and far out"),
    ],
    "atan2": [
        *pairs(np.arctan2),
        integers(np.arctan2, np.array([3, -5]), np.array([-4, 12])),
        Sample(
            (np.array([0.0, 0.0, 1e200, 1.0]), np.array([0.0, -1.0, 1e200, 1.0])),
            reference=np.arctan2,
            smooth=False,
            gradient=(np.array([0.0, -1.0, 5e-201, 0.5]), np.array([0.0, 0.0, -5e-201, -0.5])),
            note="origin, cut, no overflow",
        ),
    ],
    "sinh": [*unary(np.sinh), integers(np.sinh)],
    "cosh": [*unary(np.cosh), integers(np.cosh)],
    "tanh": [*unary(np.tanh), integers(np.tanh), edge([-inf, inf], [0, 0], np.tanh, "infinity")],
    "coth": [*both_signs(lambda x: np.cosh(x) / np.sinh(x), 0.3, 2.0), pole("coth")],
    "sech": [
        *unary(lambda x: 1 / np.cosh(x)),
        integers(None),
        edge([-1000.0, 1000.0], [0, 0], lambda x: np.zeros(2), "far out without overflow"),
    ],
    "csch": [
        *both_signs(lambda x: 1 / np.sinh(x), 0.3, 2.0),
        pole("csch"),
        edge([-1000.0, 1000.0], [0, 0], lambda x: np.zeros(2), "far out without overflow"),
    ],
    "asinh": [
        *unary(np.arcsinh),
        integers(np.arcsinh),
        edge([1e200], [1e-200], np.arcsinh, "far out without overflow"),
    ],
    "acosh": [
        *unary(np.arccosh, 1.2, 4.0),
        integers(np.arccosh),
        edge([1.0, 0.5, 1e200], [inf, nan, 1e-200], np.arccosh, "edge, outside, far out"),
    ],
    "tanh_slope": [
        *unary(lambda x: 1 / np.cosh(x) ** 2),
        integers(None),
        Sample((np.linspace(-4, 4, 300),), reference=lambda x: 1 / np.cosh(x) ** 2, note="large"),
    ],
    "sech_slope": [*unary(lambda x: -np.tanh(x) / np.cosh(x)), integers(None)],
    "csch_slope": [*unary(lambda x: -np.cosh(x) / np.sinh(x) ** 2, 0.3, 2.0), integers(None)],
    "coth_slope": [*unary(lambda x: -1 / np.sinh(x) ** 2, 0.3, 2.0)],
    "atanh": [
        *unary(np.arctanh, -0.8, 0.8),
        integers(np.arctanh, np.array([0])),
        edge([-1.0, 1.0, 2.0], [inf, inf, -1 / 3], np.arctanh, "edges and outside"),
    ],
}
