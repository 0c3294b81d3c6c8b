"""Samples of the ops that the engine itself stands on."""

import numpy as np

from tests.samples import Sample, normal, positive


def pairs(f, b=normal):
    return [
        Sample((normal(2, 3), b(2, 3, seed=1)), reference=f, order=3),
        Sample((normal(2, 1), b(3, seed=1)), reference=f, note="broadcast"),
        Sample((normal(), b(2, seed=1)), reference=f, note="0-d"),
        Sample((normal(0, 3), b(1, 3, seed=1)), reference=f, note="empty"),
        Sample((2.0, b(3, seed=1)), reference=f, note="a number"),
    ]


SAMPLES = {
    "add": pairs(np.add),
    "subtract": pairs(np.subtract),
    "multiply": pairs(np.multiply),
    "divide": pairs(np.divide, positive),
    "negative": [Sample((normal(2, 3),), reference=np.negative)],
    "exp": [
        Sample((normal(2, 3),), reference=np.exp, order=3),
        Sample((np.array(0.5),), reference=np.exp, note="0-d"),
        Sample((normal(0, 2),), reference=np.exp, note="empty"),
    ],
    "greater": pairs(np.greater),
}
