"""Samples of special functions."""

import math

import numpy as np

from tests.samples import Sample
from tests.samples.comparisons import inf, nan
from tests.samples.elementwise import edge, integers, unary

math_erf = np.vectorize(math.erf, otypes=[float])
math_erfc = np.vectorize(math.erfc, otypes=[float])


def sinc_by_quadrature(x, order):
    """The integral of (pi t)^n cos(pi x t + n pi / 2) over t from 0 to 1 by Gauss' rule."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    t = (nodes + 1) / 2
    z = np.pi * np.asarray(x)[..., None] * t
    return ((np.pi * t) ** order * np.cos(z + order * np.pi / 2)) @ (weights / 2)


SAMPLES = {
    "erf": [
        *unary(math_erf),
        *unary(math_erf, 1.0, 4.0),
        integers(None),
        edge(
            [-inf, -8.0, 0.0, 1e-300, inf],
            [0, 0, 2 / math.sqrt(math.pi), 2 / math.sqrt(math.pi), 0],
            lambda x: np.array([-1, -1, 0, 2e-300 / math.sqrt(math.pi), 1]),
            "far out and tiny",
        ),
    ],
    "erfc": [
        *unary(math_erfc),
        *unary(math_erfc, 3.0, 8.0),
        integers(None),
        edge(
            [-inf, -8.0, 0.0, 30.0, inf],
            [0, -2 / math.sqrt(math.pi) * math.exp(-64), -2 / math.sqrt(math.pi), 0, 0],
            math_erfc,
            "far out",
        ),
    ],
    "gaussian": [
        *(s for c in (0.5, 1.0) for s in unary(lambda x, c: np.exp(-c * x * x), c=c)),
        Sample((np.array([1, 2]),), {"c": 1.0}, reference=lambda x, c: np.exp(-c * np.float32(x * x)), note="integers"),
    ],
    "logit": [
        *unary(lambda x: np.log(x / (1 - x)), 0.05, 0.95),
        *unary(lambda x, eps: np.log(x / (1 - x)), 0.2, 0.8, eps=0.1),
        Sample((np.array([0, 1]),), {"eps": 0.25}, reference=lambda x, eps: np.log(np.float32([1 / 3, 3]))),
        edge([0.0, 1.0, -0.5, 1.5], [inf, inf, nan, nan], lambda x: np.array([-inf, inf, nan, nan]), "the ends"),
        Sample(
            (np.array([-1.0, 0.0, 0.1, 0.5, 0.95, 1.0, 2.0]),),
            {"eps": 0.1},
            reference=lambda x, eps: np.log(9) * np.array([-1, -1, -1, 0, 1, 1, 1]),
            smooth=False,
            gradient=(np.array([0, 0, 1 / 0.09, 4, 0, 0, 0]),),
            note="clipped",
        ),
    ],
    "normal_cdf": [
        *unary(lambda x: math_erfc(-x / math.sqrt(2)) / 2),
        integers(None),
        edge(
            [-inf, -8.0, 0.0, inf],
            np.exp(-0.5 * np.array([-inf, -8.0, 0.0, inf]) ** 2) / math.sqrt(2 * math.pi),
            lambda x: math_erfc(-x / math.sqrt(2)) / 2,
            "far out",
        ),
    ],
    "sinc": [
        *unary(np.sinc),
        *unary(np.sinc, 3.0, 9.0),
        integers(np.sinc),
        Sample((np.array([0.0, 1e-9, -1e-4, 1e-2]),), reference=np.sinc, order=3, note="smooth at 0"),
    ],
    "sinc_derivative": [
        Sample((x,), {"order": order}, reference=sinc_by_quadrature, noise=1e-14)
        for order in (0, 1, 2, 5)
        for x in (np.array([[0.0, 1e-9, -1e-3], [0.3, -1.0, 4.2]]), np.array(0.7), np.zeros((0, 2)))
    ],
}
