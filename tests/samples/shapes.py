"""Samples of ops/shapes.py."""

import numpy as np

from tests.samples import Sample, normal


def reference_pad(x, widths, value=0):
    return np.pad(x, widths, constant_values=value)


def reference_split(x, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def reference_unstack(x, axis):
    return list(np.moveaxis(x, axis, 0))


SAMPLES = {
    "reshape": [
        Sample((normal(2, 3, 4),), {"shape": (4, -1)}, reference=lambda x, shape: np.array(x.ravel()).reshape(4, 6)),
        Sample((normal(),), {"shape": (1, 1)}, reference=np.reshape, note="0-d"),
        Sample((normal(1),), {"shape": ()}, reference=np.reshape, note="to 0-d"),
        Sample((normal(0, 3),), {"shape": (3, 0, 2)}, reference=np.reshape, note="empty"),
    ],
    "transpose": [
        Sample((normal(2, 3),), reference=lambda x: np.einsum("ab->ba", x)),
        Sample((normal(0, 3),), reference=lambda x: x.T, note="empty"),
    ],
    "permute_dims": [
        Sample((normal(2, 3, 4),), {"axes": (1, 2, 0)}, reference=lambda x, axes: np.einsum("abc->bca", x)),
        Sample((normal(2, 3, 4),), {"axes": (-1, 0, -2)}, reference=lambda x, axes: np.einsum("abc->cab", x)),
        Sample((normal(),), {"axes": ()}, reference=lambda x, axes: x, note="0-d"),
        Sample((normal(0, 3),), {"axes": (1, 0)}, reference=lambda x, axes: x.T, note="empty"),
    ],
    "broadcast_to": [
        Sample((normal(2, 1, 3),), {"shape": (4, 2, 5, 3)}, reference=np.broadcast_to),
        Sample((normal(),), {"shape": (2, 3)}, reference=np.broadcast_to, note="0-d"),
        Sample((normal(),), {"shape": ()}, reference=np.broadcast_to, note="0-d to 0-d"),
        Sample((normal(1, 3),), {"shape": (0, 3)}, reference=np.broadcast_to, note="to empty"),
        Sample((normal(0, 1),), {"shape": (2, 0, 3)}, reference=np.broadcast_to, note="empty"),
    ],
    "flip": [
        Sample((normal(2, 3),), {"axis": -1}, reference=lambda x, axis: x[:, ::-1]),
        Sample((normal(2, 3),), {}, reference=lambda x: x[::-1, ::-1]),
        Sample((normal(2, 3, 4),), {"axis": (0, -1)}, reference=lambda x, axis: x[::-1, :, ::-1]),
        Sample((normal(),), {}, reference=lambda x: x, note="0-d"),
        Sample((normal(0, 3),), {"axis": 0}, reference=lambda x, axis: x, note="empty"),
    ],
    "roll": [
        Sample((normal(5),), {"shift": 2}, reference=lambda x, shift: x[[3, 4, 0, 1, 2]]),
        Sample((normal(2, 3),), {"shift": -1, "axis": -1}, reference=lambda x, shift, axis: x[:, [1, 2, 0]]),
        Sample((normal(2, 3),), {"shift": (1, 4), "axis": (0, 1)}, reference=lambda x, shift, axis: x[::-1, [2, 0, 1]]),
        Sample((normal(2, 3),), {"shift": 7}, reference=np.roll, note="flattened"),
        Sample((normal(0, 3),), {"shift": 1, "axis": 0}, reference=np.roll, note="empty"),
        Sample((normal(),), {"shift": 1}, reference=lambda x, shift: x, note="0-d"),
    ],
    "pad": [
        Sample((normal(2, 3),), {"widths": ((1, 2), (0, 3))}, reference=reference_pad),
        Sample((normal(3),), {"widths": ((2, 1),), "value": -1.5}, reference=reference_pad, note="with a value"),
        Sample((normal(),), {"widths": ()}, reference=lambda x, widths: x, note="0-d"),
        Sample((normal(0),), {"widths": ((1, 1),)}, reference=reference_pad, note="empty"),
    ],
    "concat": [
        Sample((normal(2, 3), normal(1, 3, seed=1), normal(2, 3, seed=2)), reference=lambda *xs: np.vstack(xs)),
        Sample((normal(2, 3), normal(2, 1, seed=1)), {"axis": -1}, reference=lambda *xs, axis: np.hstack(xs)),
        Sample((normal(2, 3),), {"axis": 1}, reference=lambda x, axis: x, note="one"),
        Sample((normal(0, 3), normal(2, 3)), {"axis": 0}, reference=lambda a, b, axis: b, note="empty"),
    ],
    "stack": [
        Sample((normal(2, 3), normal(2, 3, seed=1)), reference=lambda a, b: np.array([a, b])),
        Sample(
            (normal(2), normal(2, seed=1), normal(2, seed=2)), {"axis": -1}, reference=lambda *xs, axis: np.array(xs).T
        ),
        Sample((normal(), normal(seed=1)), reference=lambda a, b: np.array([a, b]), note="0-d"),
        Sample(
            (normal(0, 2), normal(0, 2)), {"axis": 1}, reference=lambda a, b, axis: np.zeros((0, 2, 2)), note="empty"
        ),
    ],
    "split": [
        Sample((normal(5, 2),), {"sizes": (2, 0, 3), "axis": 0}, reference=reference_split),
        Sample((normal(2, 4),), {"sizes": (1, 3), "axis": 1}, reference=reference_split),
        Sample((normal(3),), {"sizes": (3,), "axis": 0}, reference=reference_split, note="one part"),
        Sample((normal(0, 2),), {"sizes": (1, 1), "axis": 1}, reference=reference_split, note="empty"),
    ],
    "unstack": [
        Sample((normal(3, 2),), {"axis": 0}, reference=reference_unstack),
        Sample((normal(2, 3, 2),), {"axis": 1}, reference=reference_unstack),
        Sample((normal(3),), {"axis": 0}, reference=reference_unstack, note="to 0-d"),
        Sample((normal(2, 0),), {"axis": 0}, reference=reference_unstack, note="empty parts"),
    ],
}
