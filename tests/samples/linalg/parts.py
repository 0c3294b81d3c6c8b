"""Samples of ops/linalg/parts.py."""

import numpy as np

from tests.samples import Sample, normal


def diagonal_reference(x, offset=0, axis1=-2, axis2=-1):
    return np.diagonal(x, offset, axis1, axis2)


def embed_reference(x, shape, offset=0, axis1=-2, axis2=-1):
    y = np.zeros(shape)
    matrices = np.moveaxis(y, (axis1, axis2), (-2, -1))
    for k in range(x.shape[-1]):
        matrices[..., k + max(-offset, 0), k + max(offset, 0)] = x[..., k]
    return y


def triangle_reference(keep):
    def reference(x, k=0):
        i, j = np.indices(x.shape[-2:])
        return np.where(keep(j - i, k), x, 0.0)

    return reference


def triangle_samples(keep):
    reference = triangle_reference(keep)
    return [
        Sample((normal(3, 3),), reference=reference),
        Sample((normal(2, 3, 4),), {"k": 1}, reference=reference),
        Sample((normal(4, 2),), {"k": -1}, reference=reference),
        Sample((normal(0, 3),), reference=reference, note="empty"),
    ]


SAMPLES = {
    "diagonal": [
        Sample((normal(3, 3),), reference=diagonal_reference),
        Sample((normal(2, 3, 4),), {"offset": 1}, reference=diagonal_reference),
        Sample((normal(4, 3),), {"offset": -2}, reference=diagonal_reference),
        Sample((normal(3, 2, 3),), {"axis1": 0, "axis2": 2}, reference=diagonal_reference),
        Sample((normal(0, 0),), reference=diagonal_reference, note="empty"),
    ],
    "embed_diagonal": [
        Sample((normal(3),), {"shape": (3, 3)}, reference=embed_reference),
        Sample((normal(2, 3),), {"shape": (2, 3, 4), "offset": 1}, reference=embed_reference),
        Sample((normal(2, 2),), {"shape": (2, 4, 3), "offset": -2}, reference=embed_reference),
        Sample((normal(2, 3),), {"shape": (3, 2, 3), "axis1": 0, "axis2": 2}, reference=embed_reference),
        Sample((normal(0),), {"shape": (0, 0)}, reference=embed_reference, note="empty"),
    ],
    "tril": triangle_samples(lambda distance, k: distance <= k),
    "triu": triangle_samples(lambda distance, k: distance >= k),
}
