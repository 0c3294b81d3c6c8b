"""Samples of arithmetic, powers, exponentials and logarithms."""

import math

import numpy as np

from tests.samples import Sample, normal, positive
from tests.samples.comparisons import inf, nan, pairs


def unary(reference, low=-2.0, high=2.0, **constants):
    """One argument, spread over the open interval (low, high): a matrix, 0-d, empty."""
    spread = np.random.default_rng(0).uniform(low, high, (2, 3))
    return [Sample((x,), constants, reference=reference) for x in (spread, np.array(spread[0, 1]), spread[:0])]


def integers(reference, *args):
    """``reference``: the same expression as the op, as float32 is compared to the last digit, or None."""

    def in_float32(*args):
        return reference(*(np.float32(a) if isinstance(a, np.ndarray) else a for a in args))

    return Sample(args or (np.array([1, 2, 3]),), reference=reference and in_float32, note="integers become floats")


def edge(x, gradient, reference, note):
    """A point at the edge of the domain or at a kink, with its documented gradient."""
    return Sample(
        (np.array(x),), reference=reference, smooth=False, gradient=(np.array(gradient, dtype=float),), note=note
    )


def steps(reference):
    return [
        *unary(reference),
        Sample((np.array([-1, 0, 2]),), reference=reference, note="integers"),
        edge([-1.0, 0.0, 1.0, -0.5, 2.5], [0.0] * 5, reference, "no gradient at the jumps either"),
    ]


def log_to_base(x, base):
    return np.log(x) / np.log(base)


SAMPLES = {
    "add": [*pairs(np.add), Sample((np.arange(3), 2), reference=np.add)],
    "subtract": [*pairs(np.subtract), Sample((np.arange(3), 2), reference=np.subtract)],
    "multiply": [*pairs(np.multiply), Sample((np.arange(3), 2), reference=np.multiply)],
    "divide": [
        Sample((normal(2, 3), positive(3)), reference=np.divide),
        Sample((normal(3), -positive(2, 1)), reference=np.divide),
        Sample((2.0, positive(2, 3)), reference=np.divide),
        Sample((normal(2, 3), 3), reference=np.divide),
        Sample((np.array(3.0), np.array(-2.0)), reference=np.divide),
        Sample((np.zeros((0, 3)), positive(3)), reference=np.divide),
        integers(np.divide, np.array([1, 2, 3]), np.array([2, 4, 5])),
        Sample(
            (np.array([1.0, -1.0]), 0),
            reference=np.divide,
            smooth=False,
            gradient=(np.array([inf, inf]),),
            note="division by the number 0",
        ),
    ],
    "negative": [*unary(np.negative), Sample((np.arange(3),), reference=np.negative)],
    "reciprocal": [
        *unary(lambda x: 1 / x, 0.5, 3.0),
        *unary(lambda x: 1 / x, -3.0, -0.5),
        integers(lambda x: 1 / x),
        edge([0.0], [-inf], lambda x: np.array([inf]), "0"),
    ],
    "abs": [
        *unary(np.abs, 0.1, 2.0),
        *unary(np.abs, -2.0, -0.1),
        Sample((np.array([-1, 0, 2]),), reference=np.abs),
        edge([-2.0, -0.0, 0.0, 2.0], [-1, 0, 0, 1], np.abs, "gradient 0 at 0"),
    ],
    "remainder": [
        Sample((np.array([[5.3, -5.3, 0.4], [1.1, -0.2, 7.7]]), np.array([3.0, 2.0, -1.5])), reference=np.remainder),
        Sample((np.array([5.3, -5.3]), 3), reference=np.remainder),
        Sample((7.3, np.array([2.0, -3.0])), reference=np.remainder),
        Sample((np.array(5.5), np.array(2.0)), reference=np.remainder),
        Sample((np.zeros((0, 2)), np.array([1.0, 2.0])), reference=np.remainder),
        Sample((np.array([5, -5]), 3), reference=np.remainder),
        Sample(
            (np.array([6.0, -6.0]), np.array([3.0, 4.0])),
            reference=np.remainder,
            smooth=False,
            gradient=(np.array([1.0, 1.0]), np.array([-2.0, 2.0])),
            note="at a jump",
        ),
    ],
    "floor_divide": [
        Sample((np.array([[5.3, -5.3, 0.4], [1.1, -0.2, 7.7]]), np.array([3.0, 2.0, -1.5])), reference=np.floor_divide),
        Sample((np.array([5.3, -5.3]), 3), reference=np.floor_divide),
        Sample((7.3, np.array([2.0, -3.0])), reference=np.floor_divide),
        Sample((np.array(5.5), np.array(2.0)), reference=np.floor_divide),
        Sample((np.zeros((0, 2)), np.array([1.0, 2.0])), reference=np.floor_divide),
        Sample((np.array([5, -5]), 3), reference=np.floor_divide),
    ],
    "sign": steps(np.sign),
    "floor": steps(np.floor),
    "ceil": steps(np.ceil),
    "trunc": steps(np.trunc),
    "round": [*steps(np.round), Sample((np.array([1.234, -5.678]),), {"decimals": 2}, reference=np.round)],
    "power": [
        Sample((positive(2, 3), normal(3)), reference=np.power),
        Sample((positive(3), normal(2, 1)), reference=np.power),
        Sample((np.array(1.5), np.array(-2.5)), reference=np.power),
        Sample((positive(0, 3), normal(3)), reference=np.power),
        *(
            Sample((normal(2, 3), n), reference=np.power, note=f"x^{n}, x of both signs")
            for n in (3, 2.0, 1, 0, -2, -1.0)
        ),
        *(Sample((positive(2, 3), n), reference=np.power) for n in (0.5, -1.5, math.pi)),
        *(Sample((a, normal(2, 3)), reference=np.power, note=f"{a}^x") for a in (2, 0.5, math.e)),
        Sample((np.arange(4), 2), reference=np.power, note="integers"),
        Sample((2, np.arange(4)), reference=np.power, note="integers"),
        Sample(
            (np.array([0.0, 0.0, 0.0, 0.0, 0.0]), np.array([0.0, 1.0, 2.0, 0.5, -1.0])),
            reference=np.power,
            smooth=False,
            gradient=(np.array([0, 1, 0, inf, -inf]), np.array([0, 0, 0, 0, -inf])),
            note="0^p",
        ),
        Sample(
            (np.array([-2.0, -2.0, 3.0]), np.array([3.0, 0.0, 0.0])),
            reference=np.power,
            smooth=False,
            gradient=(np.array([12.0, -0.0, 0.0]), np.array([nan, nan, math.log(3)])),
            note="negative bases",
        ),
        *(
            Sample((np.zeros(1), n), reference=np.power, smooth=False, gradient=(np.array([slope]),), note=f"0^{n}")
            for n, slope in ((0, 0.0), (0.0, 0.0), (1, 1.0), (2, 0.0), (3.0, 0.0), (0.5, inf), (-1.0, -inf))
        ),
    ],
    "square": [*unary(np.square), Sample((np.arange(3),), reference=np.square)],
    "sqrt": [
        *unary(np.sqrt, 0.2, 3.0),
        integers(np.sqrt),
        edge([0.0], [inf], np.sqrt, "0"),
        edge([-1.0], [nan], np.sqrt, "< 0"),
    ],
    "cbrt": [
        *unary(np.cbrt, 0.2, 3.0),
        *unary(np.cbrt, -3.0, -0.2),
        integers(np.cbrt),
        edge([0.0], [inf], np.cbrt, "0"),
    ],
    "hypot": [
        *pairs(np.hypot),
        integers(np.hypot, np.array([3, 5]), np.array([4, 12])),
        Sample(
            (np.array([0.0, 1e300]), np.array([0.0, 0.0])),
            reference=np.hypot,
            smooth=False,
            gradient=(np.array([nan, 1.0]), np.array([nan, 0.0])),
            note="NaN at the origin, no overflow far out",
        ),
    ],
    "exp": [*unary(np.exp), integers(np.exp), edge([-inf], [0.0], np.exp, "-inf")],
    "expm1": [*unary(np.expm1), integers(np.expm1), edge([-inf, 1e-20], [0.0, 1.0], np.expm1, "-inf and tiny")],
    "exp2": [*unary(np.exp2), integers(np.exp2), edge([-inf], [0.0], np.exp2, "-inf")],
    "log": [
        *unary(np.log, 0.3, 3.0),
        integers(np.log),
        edge([0.0, -1.0, inf], [inf, -1.0, 0.0], np.log, "0, negative, inf"),
    ],
    "log1p": [
        *unary(np.log1p, -0.7, 2.0),
        integers(np.log1p),
        edge([-1.0, 1e-20], [inf, 1.0], np.log1p, "-1 and tiny"),
    ],
    "log2": [*unary(np.log2, 0.3, 3.0), integers(np.log2), edge([0.0], [inf], np.log2, "0")],
    "log10": [*unary(np.log10, 0.3, 3.0), integers(np.log10), edge([0.0], [inf], np.log10, "0")],
    "log_base": [
        *(Sample((positive(2, 3), base), reference=log_to_base) for base in (2, 10.0, 0.5, math.e)),
        Sample((positive(2, 3), 1 + positive(3, seed=1)), reference=log_to_base),
        Sample((3.0, 1 + positive(2, 1)), reference=log_to_base),
        Sample((np.array(8.0), np.array(2.0)), reference=log_to_base),
        Sample((np.ones((0, 2)), 3), reference=log_to_base),
        integers(None, np.array([1, 8, 64]), 2),
        Sample((np.zeros(1), 2), reference=log_to_base, smooth=False, gradient=(np.array([inf]),), note="0"),
    ],
}
