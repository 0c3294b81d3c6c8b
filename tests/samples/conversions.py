"""Samples of copies in another dtype or on another device."""

import numpy as np

from tests.samples import Sample, normal

SAMPLES = {
    "clone": [Sample((x,), reference=np.copy) for x in (normal(2, 3), np.array(1.5), np.zeros((0, 3)), np.arange(3))],
    "cast": [
        Sample((normal(2, 3),), {"dtype": "float64"}, reference=lambda x, dtype: x),
        Sample((np.array(1.5),), {"dtype": "float64"}, reference=lambda x, dtype: x),
        Sample((np.zeros((0, 3)),), {"dtype": np.float64}, reference=lambda x, dtype: x),
        Sample((np.arange(3),), {"dtype": np.float32}, reference=lambda x, dtype: x * np.float32(1)),
    ],
    "cast_discrete": [
        Sample((np.array([-1.5, 0.0, 2.7]),), {"dtype": "int64"}, reference=lambda x, dtype: np.trunc(x).astype(int)),
        Sample((np.array([-1.5, 0.0, 2.7]),), {"dtype": bool}, reference=lambda x, dtype: x != 0),
        Sample((np.array(-1.5),), {"dtype": bool}, reference=lambda x, dtype: x != 0),
        Sample((np.zeros((0, 3)),), {"dtype": "int32"}, reference=lambda x, dtype: np.zeros((0, 3), int)),
    ],
    "copy_to": [
        Sample(
            (x,),
            {"device": "cpu", "source": "cpu"},
            reference=lambda x, device, source: x,
            note="to the same device; tests/ops/test_conversions.py crosses between two",
        )
        for x in (normal(2, 3), np.array(1.5), np.zeros((0, 3)))
    ],
}
