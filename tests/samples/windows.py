"""Samples of ops/windows.py."""

import numpy as np

from tests.samples import Sample, normal


def reference_windows(x, window, axes):
    return np.lib.stride_tricks.sliding_window_view(x, window, axes)


def reference_overlap_add(g, shape, window, axes):
    y = np.zeros(shape)
    for place in np.ndindex(g.shape):
        position, offset = list(place[: len(shape)]), place[len(shape) :]
        for axis, step in zip(axes, offset):
            position[axis] += step
        y[tuple(position)] += g[place]
    return y


SAMPLES = {
    "sliding_window_view": [
        Sample((normal(2, 6, 5),), {"window": (3, 2), "axes": (1, 2)}, reference=reference_windows),
        Sample((normal(4, 5),), {"window": (2,), "axes": (0,)}, reference=reference_windows),
        Sample((normal(3),), {"window": (3,), "axes": (0,)}, reference=reference_windows, note="one window"),
        Sample((normal(0, 4),), {"window": (2,), "axes": (1,)}, reference=reference_windows, note="empty"),
        Sample((normal(),), {"window": (), "axes": ()}, reference=reference_windows, note="0-d"),
    ],
    "overlap_add": [
        Sample(
            (normal(2, 4, 4, 3, 2),), {"shape": (2, 6, 5), "window": (3, 2), "axes": (1, 2)},
            reference=reference_overlap_add,
        ),
        Sample(
            (normal(3, 4, 2),), {"shape": (3, 5), "window": (2,), "axes": (1,)}, reference=reference_overlap_add
        ),
        Sample((normal(0, 3, 2),), {"shape": (0, 4), "window": (2,), "axes": (1,)}, reference=reference_overlap_add,
               note="empty"),
    ],
}  # fmt: skip
