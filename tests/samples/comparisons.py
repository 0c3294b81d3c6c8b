"""Samples of comparisons and choices."""

import numpy as np

from tests.samples import Sample, normal

inf, nan = np.inf, np.nan
SPECIAL = np.array([-inf, -1.0, -0.0, 0.0, 1.0, inf, nan])


def pairs(reference, **facts):
    """Two arguments: broadcasting, a number on either side, 0-d, empty."""
    matrix, row, column = normal(2, 3), normal(3, seed=1), normal(2, 1, seed=2)
    arguments = [
        (matrix, row),
        (row, column),
        (matrix, np.array(0.3)),
        (matrix, 0.3),
        (0.3, matrix),
        (np.array(1.5), np.array(-0.5)),
        (np.zeros((0, 3)), row),
    ]
    return [Sample(pair, reference=reference, **facts) for pair in arguments]


def booleans(reference):
    """Two arguments of any dtype, with ties and special values."""
    integers = np.array([[0, 1, 2], [3, 0, 5]])
    more = [
        (SPECIAL, SPECIAL[::-1].copy()),
        (SPECIAL[:, None], SPECIAL),
        (integers, integers.T.copy()[0, 0]),
        (integers, 2),
    ]
    return [*pairs(reference), *(Sample(pair, reference=reference) for pair in more)]


def bits(reference):
    integers, masks = np.array([[0, 1, 6], [3, -4, 5]]), np.array([True, False, True])
    return [
        Sample(pair, reference=reference)
        for pair in (
            (integers, np.array([1, 2, 3])),
            (masks, masks[:, None]),
            (integers, 3),
            (np.array(6), np.array(3)),
            (integers[:0], np.array([1, 2, 3])),
        )
    ]


def shifts(reference):
    integers = np.arange(-3, 3).reshape(2, 3)
    return [
        Sample(pair, reference=reference)
        for pair in ((integers, np.array([1, 2, 3])), (integers, 3), (np.array(6), np.array(3)), (integers[:0], 1))
    ]


def flags(reference):
    return [Sample((x,), reference=reference) for x in (SPECIAL, np.array(nan), np.zeros((0, 2)), np.arange(3))]


SAMPLES = {
    "greater": booleans(np.greater),
    "greater_equal": booleans(np.greater_equal),
    "less": booleans(np.less),
    "less_equal": booleans(np.less_equal),
    "equal": booleans(np.equal),
    "not_equal": booleans(np.not_equal),
    "logical_and": booleans(np.logical_and),
    "logical_or": booleans(np.logical_or),
    "logical_xor": booleans(np.logical_xor),
    "logical_not": flags(np.logical_not),
    "bitwise_and": bits(np.bitwise_and),
    "bitwise_or": bits(np.bitwise_or),
    "bitwise_xor": bits(np.bitwise_xor),
    "bitwise_left_shift": shifts(np.left_shift),
    "bitwise_right_shift": shifts(np.right_shift),
    "bitwise_invert": [
        Sample((x,), reference=np.invert)
        for x in (np.arange(-3, 3), np.array([True, False]), np.array(5), np.zeros((0, 3), int))
    ],
    "isnan": flags(np.isnan),
    "isinf": flags(np.isinf),
    "isfinite": flags(np.isfinite),
    "where": [
        Sample((normal(2, 3) > 0, normal(2, 3, seed=1), normal(3, seed=2)), reference=np.where),
        Sample((normal(2, 1) > 0, normal(3, seed=1), 0.5), reference=np.where),
        Sample((np.array(True), np.array(2.0), np.array(3.0)), reference=np.where),
        Sample((np.zeros((0, 3), bool), normal(3), normal(1)), reference=np.where),
        Sample(
            (np.array([True, False]), np.array([1.0, inf]), np.array([inf, 2.0])),
            reference=np.where,
            smooth=False,
            gradient=(np.array([1.0, 0.0]), np.array([0.0, 1.0])),
            note="infinities that are not chosen",
        ),
        Sample(
            (np.array([0.0, 2.0]), np.array([1.0, 1.0]), np.array([2.0, 2.0])),
            reference=np.where,
            smooth=False,
            gradient=(np.zeros(2), np.array([0.0, 1.0]), np.array([1.0, 0.0])),
            note="a condition of numbers",
        ),
    ],
    "maximum": [
        *pairs(np.maximum),
        Sample(
            (np.array([1.0, 2.0, -inf]), np.array([1.0, 3.0, -inf])),
            reference=np.maximum,
            smooth=False,
            gradient=(np.array([0.5, 0.0, 0.5]), np.array([0.5, 1.0, 0.5])),
            note="ties share the gradient",
        ),
    ],
    "minimum": [
        *pairs(np.minimum),
        Sample(
            (np.array([1.0, 2.0, inf]), np.array([1.0, 3.0, inf])),
            reference=np.minimum,
            smooth=False,
            gradient=(np.array([0.5, 1.0, 0.5]), np.array([0.5, 0.0, 0.5])),
            note="ties share the gradient",
        ),
    ],
    "isclose": [
        *pairs(np.isclose),
        Sample(
            (np.array([1.0, inf, nan]), np.array([1.0 + 1e-6, inf, nan])), {"equal_nan": True}, reference=np.isclose
        ),
        Sample((np.array([1.0, 2.0]), np.array([1.5, 2.1])), {"rtol": 0.0, "atol": 0.2}, reference=np.isclose),
    ],
    "nan_to_num": [
        Sample((normal(2, 3),), reference=np.nan_to_num),
        Sample((np.zeros((0, 3)),), reference=np.nan_to_num),
        Sample((np.array(-0.7),), reference=np.nan_to_num),
        Sample((np.array([1, 2]),), reference=np.nan_to_num, note="integers"),
        Sample(
            (np.array([-inf, -1.0, nan, 2.0, inf]),),
            {"nan": 0.5, "posinf": 9.0, "neginf": -9.0},
            reference=np.nan_to_num,
            smooth=False,
            gradient=(np.array([0.0, 1.0, 0.0, 1.0, 0.0]),),
            note="special values",
        ),
    ],
    "clip": [
        Sample((normal(2, 3),), {"min": -0.3, "max": 0.3}, reference=np.clip),
        Sample((normal(2, 3),), {"min": -0.3}, reference=lambda x, min: np.maximum(x, min)),
        Sample((normal(2, 3),), {"max": 0.3}, reference=lambda x, max: np.minimum(x, max)),
        Sample((normal(2, 3),), {}, reference=lambda x: x),
        Sample((np.array(2.0),), {"min": -1, "max": 1}, reference=np.clip),
        Sample((np.zeros((0, 3)),), {"min": -1.0, "max": 1.0}, reference=np.clip),
        Sample((np.array([-3, 0, 3]),), {"min": -1, "max": 1}, reference=np.clip, note="integers"),
        Sample(
            (np.array([-1.0, 0.0, 1.0, 1.5, nan]),),
            {"min": -1.0, "max": 1.0},
            reference=np.clip,
            smooth=False,
            gradient=(np.array([1.0, 1.0, 1.0, 0.0, 0.0]),),
            note="the bounds belong to the interval",
        ),
    ],
}
