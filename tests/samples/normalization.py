"""Samples of normalize, against the formula with NumPy's mean and variance."""

import numpy as np

from tests.samples import Sample, normal, positive


def reference(x, weight, bias, axes, eps, center):
    centred = x - x.mean(axis=axes, keepdims=True) if center else x
    return weight * centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + eps) + bias


def sample(x, weight, bias=0.0, axes=(-1,), eps=1e-5, center=True, **facts):
    return Sample((x, weight, bias), dict(axes=axes, eps=eps, center=center), reference, **facts)


SAMPLES = {
    "normalize": [
        sample(normal(3, 5), normal(5, seed=1)),
        sample(normal(3, 5), normal(5, seed=1), normal(5, seed=2)),
        sample(normal(3, 5), 1.0, normal(2, 1, 1, seed=2), note="the bias is the larger one"),
        sample(normal(3, 5), normal(5, seed=1), eps=1e-6, center=False),
        sample(normal(2, 3, 4), normal(3, 4, seed=1), axes=(-2, -1), eps=0.1),
        sample(normal(2, 3, 4), positive(3, 1, seed=1), axes=(0, 2), center=False),
        sample(normal(4), 1.0, note="no weight"),
        sample(normal(2, 3), normal(4, 1, 3, seed=1), note="the weight is the larger one"),
        sample(np.ones((2, 3)), normal(3), eps=0.01, note="equal features have variance 0"),
        sample(normal(3, 1), normal(1, seed=1), eps=0.5, note="one feature"),
        sample(np.zeros((0, 3)), normal(3)),
        sample(10 + normal(2, 4), normal(4, seed=1), note="a common offset"),
    ]
}
