"""Samples of ops/affine.py."""

import numpy as np

from tests.samples import Sample, normal


def sample(x, weight, bias, note=""):
    bias = normal(*bias, seed=3) if isinstance(bias, tuple) else bias
    return Sample(
        (normal(*x, seed=1), normal(*weight, seed=2), bias),
        reference=lambda x, weight, bias: np.einsum("...n,mn->...m", x, weight) + bias,
        note=note,
    )


SAMPLES = {
    "affine": [
        sample((5, 3), (4, 3), (4,)),
        sample((3,), (4, 3), (4,), "one vector"),
        sample((2, 5, 3), (4, 3), (4,), "a batch of sequences"),
        sample((2, 3), (4, 3), 0.0, "no bias"),
        sample((2, 3), (4, 3), 1.5, "one number for all"),
        sample((2, 3), (4, 3), (), "a 0-d bias"),
        sample((0, 3), (4, 3), (4,), "no rows"),
        sample((2, 0), (4, 0), (4,), "no features"),
        sample((3, 1), (1, 1), (1,)),
    ]
}
