"""Samples of ops/reductions.py."""

import itertools
import math

import numpy as np

from tests.samples import Sample, normal

ZEROS = np.array([[1.5, -2.0, 0.5, 3.0], [1.5, 0.0, 0.5, 3.0], [0.0, -2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]])


def reduced(one):
    """The reference that calls ``one`` with the list of numbers that make each element of the result."""

    def reference(x, axis=None, keepdims=False, **options):
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = [a % x.ndim for a in axes]
        kept = [a for a in range(x.ndim) if a not in axes]
        y = np.zeros([x.shape[a] for a in kept])
        for place in np.ndindex(y.shape):
            index = [slice(None)] * x.ndim
            for a, i in zip(kept, place):
                index[a] = i
            y[place] = one(x[tuple(index)].ravel().tolist(), **options)
        y = np.expand_dims(y, tuple(axes)) if keepdims else y
        return y.astype(y.astype(int).dtype if one in (count, np.argmax, np.argmin) else y.dtype)

    return reference


def count(values):
    return len([v for v in values if v])


def running(one):
    """The reference for running sums and products."""

    def reference(x, axis=None):
        if axis is None:
            return np.array(list(itertools.accumulate(x.ravel(), one)))
        return np.apply_along_axis(lambda row: np.array(list(itertools.accumulate(row, one))), axis, x)

    return reference


def variance(values, correction=0):
    m = math.fsum(values) / len(values)
    return math.fsum((v - m) ** 2 for v in values) / (len(values) - correction)


def deviation(values, correction=0):
    return math.sqrt(variance(values, correction))


def log_of_sum(values):
    return math.log(math.fsum(map(math.exp, values))) if values else -math.inf


def by_powers(p):
    """The vector norm of order p from its definition."""
    return lambda values, ord=p: math.fsum(abs(v) ** p for v in values) ** (1 / p) if values else 0.0


def power_by_logarithm(x, exponent, odd):
    return np.exp(exponent * np.log(np.abs(x))) * (np.copysign(1, x) if odd else 1)


def over_axes(one, data=normal, empty=True, **options):
    """The ways to name axes: none, one, from the end, several, kept."""
    reference = reduced(one)
    cases = [
        Sample((data(2, 3),), options, reference=reference, order=3),
        Sample((data(3, 4),), {"axis": -1, **options}, reference=reference),
        Sample((data(3, 4),), {"axis": 0, "keepdims": True, **options}, reference=reference),
        Sample((data(2, 3, 2),), {"axis": (-1, 0), **options}, reference=reference, note="two axes"),
        Sample(
            (data(2, 3, 2),), {"axis": (1,), "keepdims": True, **options}, reference=reference, note="a tuple of one"
        ),
        Sample((data(3, 2),), {"axis": (), **options}, reference=reference, order=1, note="no axis"),
        Sample((data(2, 3),), {"keepdims": True, **options}, reference=reference, note="kept"),
        Sample((data(3, 0),), {"axis": 0, **options}, reference=reference, note="empty result"),
    ]
    if not options:
        cases.append(Sample((data(),), reference=reference, note="0-d"))
    if empty:
        cases.append(Sample((data(0, 3),), {"axis": 0, **options}, reference=reference, note="empty"))
        cases.append(Sample((data(0, 3),), options, reference=reference, note="all empty"))
    return cases


def truth(one):
    data = np.array([[True, False, True], [False, False, False], [True, True, True]])
    reference = reduced(one)
    return [
        Sample((data,), reference=lambda x, **kw: reference(x, **kw).astype(bool)),
        Sample((data,), {"axis": -1}, reference=lambda x, **kw: reference(x, **kw).astype(bool)),
        Sample((normal(2, 3),), {"axis": (0, 1)}, reference=lambda x, **kw: reference(x, **kw).astype(bool)),
        Sample((np.zeros((2, 3)),), {"keepdims": True}, reference=lambda x, **kw: reference(x, **kw).astype(bool)),
        Sample((np.zeros((0, 3), bool),), {"axis": 0}, reference=lambda x, axis: np.array([one([])] * 3), note="empty"),
        Sample((np.array(2.5),), reference=lambda x: np.array(True), note="0-d"),
    ]


def extreme(one, best):
    ties = np.array([[2.0, 1.0, 2.0], [0.0, 0.0, 0.0]]) * best
    return over_axes(one, empty=False) + [
        Sample(
            (ties,),
            {"axis": 1},
            reduced(one),
            smooth=False,
            gradient=(np.array([[1, 0, 1], [2 / 3] * 3]) / 2,),
            note="ties",
        ),
        Sample(
            (ties,),
            {},
            reduced(one),
            smooth=False,
            gradient=(np.array([[1, 0, 1], [0, 0, 0]]) / 2,),
            note="ties of all",
        ),
        Sample(
            (np.array([[1.0, -np.inf], [np.inf, 2.0]]),),
            {"axis": 1},
            reduced(one),
            smooth=False,
            gradient=(np.array([[1.0, 0], [1, 0]])[:, ::best],),
            note="infinite",
        ),
        Sample((np.array([3, 1, 2]),), {}, reduced(one), note="integers"),
    ]


def place_of(one):
    return [
        Sample((normal(2, 3),), reference=lambda x: np.array(one(x.ravel().tolist()))),
        Sample((normal(2, 3),), {"axis": -1}, reference=reduced(one)),
        Sample((normal(2, 3),), {"axis": 0, "keepdims": True}, reference=reduced(one)),
        Sample((np.array([1.0, 2.0, 1.0, 2.0]),), reference=lambda x: np.array(one([1, 2, 1, 2])), note="ties"),
        Sample((np.array(1.0),), reference=lambda x: np.array(0), note="0-d"),
        Sample((normal(2, 0),), {"axis": 0}, reference=lambda x, axis: np.zeros(0, int), note="empty result"),
    ]


def accumulating(one):
    return [
        Sample((normal(5),), {"axis": 0}, reference=running(one), order=3),
        Sample((normal(3, 4),), {"axis": -1}, reference=running(one)),
        Sample((normal(3, 2),), {"axis": 0}, reference=running(one)),
        Sample((normal(2, 3),), {}, reference=running(one), note="flattened"),
        Sample((normal(1),), {"axis": 0}, reference=running(one), note="one"),
        Sample((normal(),), {}, reference=lambda x: x.reshape(1), note="0-d"),
        Sample((normal(2, 0),), {"axis": 1}, reference=lambda x, axis: x, note="empty"),
        Sample((np.array([3, 1, 2]),), {"axis": 0}, reference=running(one), note="integers"),
    ]


SAMPLES = {
    "sum": over_axes(math.fsum)
    + [
        Sample((np.array([True, False, True]),), reference=lambda x: np.array(2), note="booleans"),
        Sample((np.array([[1, 2], [3, 4]]),), {"axis": 1}, reference=lambda x, axis: np.array([3, 7]), note="integers"),
    ],
    "mean": over_axes(lambda values: math.fsum(values) / len(values), empty=False)
    + [
        Sample(
            (np.array([[1, 2], [3, 5]]),), {"axis": 1}, reference=lambda x, axis: np.float32([1.5, 4]), note="integers"
        ),
        Sample((np.array([True, False, True, True]),), reference=lambda x: np.float32(0.75), note="booleans"),
    ],
    "prod": over_axes(math.prod)
    + [
        Sample((ZEROS,), {"axis": 1}, reference=reduced(math.prod), order=3, note="zeros"),
        Sample((ZEROS[1:3],), {}, reference=reduced(math.prod), note="zeros in all"),
        Sample((ZEROS[:2].reshape(2, 2, 2),), {"axis": (0, 2)}, reference=reduced(math.prod), note="zeros in two axes"),
        Sample((np.array([3, 1, 2]),), {}, reference=lambda x: np.array(6), note="integers"),
    ],
    "cumsum": accumulating(lambda a, b: a + b),
    "cumprod": accumulating(lambda a, b: a * b)
    + [
        Sample((ZEROS,), {"axis": 1}, reference=running(lambda a, b: a * b), order=3, note="zeros"),
        Sample((ZEROS[1:3],), {}, reference=running(lambda a, b: a * b), note="zeros in all"),
    ],
    "max": extreme(max, 1),
    "min": extreme(min, -1),
    "argmax": place_of(np.argmax),
    "argmin": place_of(np.argmin),
    "var": over_axes(variance, empty=False)
    + over_axes(variance, empty=False, correction=1)[1:3]
    + [Sample((np.array([1, 2, 4]),), reference=lambda x: np.var([1, 2, 4]).astype(np.float32), note="integers")],
    "std": [s for s in over_axes(deviation, empty=False) if s.note not in ("0-d", "no axis")]
    + over_axes(deviation, empty=False, correction=1)[1:3]
    + [
        Sample(
            (np.full((2, 3), 0.5),),
            {"axis": 1},
            reduced(deviation),
            smooth=False,
            gradient=(np.zeros((2, 3)),),
            note="all equal",
        ),
        Sample((normal(),), {}, reduced(deviation), smooth=False, gradient=(np.zeros(()),), note="0-d"),
        Sample((np.array([1, 2, 4]),), reference=lambda x: np.std([1, 2, 4]).astype(np.float32), note="integers"),
    ],
    "logsumexp": over_axes(log_of_sum, empty=False)
    + [
        Sample(
            (normal(0, 3),), {"axis": 0}, reduced(log_of_sum), smooth=False, gradient=(np.zeros((0, 3)),), note="empty"
        ),
        Sample((normal(0, 3),), {}, reduced(log_of_sum), smooth=False, gradient=(np.zeros((0, 3)),), note="all empty"),
        Sample(
            (np.array([[1e4, 1e4 - 1], [-1e4, -1e4 - 1]]),),
            {"axis": 1},
            smooth=False,
            reference=lambda x, axis: np.array([1e4, -1e4]) + math.log1p(math.exp(-1)),
            gradient=(np.array([[math.e, 1], [math.e, 1]]) / (1 + math.e),),
            note="far out",
        ),
        Sample(
            (np.array([[-np.inf, 0.0, 1.0], [-np.inf] * 3]),),
            {"axis": 1},
            smooth=False,
            reference=lambda x, axis: np.array([math.log(1 + math.e), -math.inf]),
            gradient=(np.array([[0, 1, math.e], [0, 0, 0]]) / (1 + math.e),),
            note="minus infinity",
        ),
        Sample((np.array([0, 0]),), reference=lambda x: np.log([2]).astype(np.float32)[0], note="integers"),
    ],
    "euclidean_norm": over_axes(lambda values: math.hypot(*values))
    + [
        Sample(
            (np.array([[3.0, -4.0], [0.0, 0.0]]),),
            {"axis": 1},
            reference=lambda x, axis: np.array([5.0, 0.0]),
            smooth=False,
            gradient=(np.array([[0.6, -0.8], [0, 0]]),),
            note="zero",
        ),
        Sample((np.array([3, 4]),), reference=lambda x: np.float32(5), note="integers"),
    ],
    "signed_power": [
        *(
            Sample((normal(2, 3),), {"exponent": q, "odd": odd}, reference=power_by_logarithm)
            for q in (0, 1, 1.5, 3, -0.5, -2)
            for odd in (False, True)
        ),
        Sample((np.array(-0.7),), {"exponent": 2.5, "odd": True}, reference=power_by_logarithm, note="0-d"),
        Sample((np.zeros((0, 2)),), {"exponent": 2.5, "odd": True}, reference=lambda x, **_: x, note="empty"),
        Sample(
            (np.array([0.0, -0.0]),),
            {"exponent": -0.5, "odd": True},
            reference=lambda x, **_: 0 * x,
            smooth=False,
            gradient=(np.array([-math.inf, -math.inf]),),
            note="0 at 0",
        ),
    ],
    "p_norm": [
        *over_axes(by_powers(3), ord=3),
        *(
            Sample((normal(2, 3),), {"ord": p, "axis": 1}, reference=reduced(by_powers(p)))
            for p in (0.5, 1.5, -1, -2.5)
        ),
        Sample((np.array(-2.0),), {"ord": 1.5}, reference=lambda x, ord: np.array(2.0), note="0-d"),
        Sample(
            (np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]),),
            {"ord": 0.5, "axis": 1},
            reference=lambda x, ord, axis: np.array([7 + 4 * math.sqrt(3), 0.0]),
            smooth=False,
            gradient=(np.array([[1 + 2 / math.sqrt(3), 0, -1 - math.sqrt(3) / 2], [0, 0, 0]]),),
            note="zeros",
        ),
        Sample(
            (np.array([[3.0, 0.0, -4.0], [1.0, -1.0, 0.5]]),),
            {"ord": -1, "axis": 1},
            reference=lambda x, ord, axis: np.array([0.0, 0.25]),
            smooth=False,
            gradient=(np.array([[0, 0, 0], [1 / 16, -1 / 16, 0.25]]),),
            note="a zero, negative order",
        ),
        Sample(
            (np.array([[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]]),),
            {"ord": 0, "axis": 1},
            reference=lambda x, ord, axis: np.array([2.0, 0.0]),
            smooth=False,
            gradient=(np.zeros((2, 3)),),
            note="how many are not 0",
        ),
        Sample((np.array([1, -2, 0]),), {"ord": 3}, reference=lambda x, ord: np.float32(9 ** (1 / 3)), note="integers"),
    ],
    "any": truth(any),
    "all": truth(all),
    "count_nonzero": over_axes(count)
    + [Sample((np.array([True, False, True]),), reference=lambda x: np.array(2), note="booleans")],
}
