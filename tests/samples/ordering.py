"""Samples of the places that ordering functions take elements from."""

import numpy as np

from tests.samples import Sample, normal


def running_index(x, axis, largest):
    """By a loop over the elements before each one; NaN beats all, the last of equal ones wins."""
    moved = np.moveaxis(x, axis, -1)
    places = np.zeros(moved.shape, int)
    for row in np.ndindex(moved.shape[:-1]):
        best = 0
        for i, value in enumerate(moved[row]):
            held = moved[row][best]
            if np.isnan(value) or (not np.isnan(held) and (value >= held if largest else value <= held)):
                best = i
            places[(*row, i)] = best
    return np.moveaxis(places, -1, axis)


TIES = np.array([[1.0, 3.0, 3.0, 2.0, 3.0], [-1.0, np.nan, 5.0, np.nan, 0.0]])

SAMPLES = {
    "running_index": [
        Sample((x,), {"axis": axis, "largest": largest}, reference=running_index)
        for largest in (True, False)
        for x, axis in ((normal(3, 7), 1), (normal(5, 2), 0), (TIES, 1), (normal(4), 0), (np.zeros((2, 0)), 1))
    ]
}
