"""Samples of the collectives in a job of one rank, where each is the identity."""

from tests.samples import Sample, normal


def same(x, **constants):
    return x


SAMPLES = {
    "all_reduce": [
        Sample((normal(2, 3),), reference=same),
        Sample((normal(),), reference=same, note="0-d"),
        Sample((normal(0, 3),), {"op": "mean"}, reference=same, note="mean empty"),
    ],
    "broadcast": [Sample((normal(*shape),), {"root": 0}, reference=same) for shape in ((2, 3), (), (0, 3))],
    "reduce_to": [Sample((normal(*shape),), {"root": 0}, reference=same) for shape in ((2, 3), (), (0, 3))],
    "all_gather": [Sample((normal(2, 3),), reference=same), Sample((normal(0, 3),), reference=same)],
    "reduce_scatter": [Sample((normal(2, 3),), reference=same), Sample((normal(0, 3),), reference=same)],
}
