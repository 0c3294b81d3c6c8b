"""Samples of ops/indexing.py."""

import numpy as np

from tests.samples import Sample, normal

MASK = np.array([[True, False, True], [False, False, True]])
I = np.array([2, 0, 2, -1])  # repeated, unsorted, from the end
LOOKS = "the range of the indices is looked at"
COUNTS = "a mask: the size of the result depends on its values"


def picked(x, index):
    """Element by element: an array of the flat places is indexed in place of x."""
    places = np.arange(x.size).reshape(x.shape)[index]
    return np.array([x.ravel()[p] for p in places.ravel()], x.dtype).reshape(places.shape)


def added(g, index, shape):
    """Element by element: the places of x, each receiving what was picked from it."""
    y = np.zeros(shape)
    places = np.broadcast_to(np.arange(y.size).reshape(shape)[index], g.shape)
    for p, value in zip(places.ravel(), g.ravel()):
        y.ravel()[p] += value
    return y


def updated(x, value, index):
    y = x.copy()
    y[index] = value
    return y


def one_hot_loop(indices, num_classes):
    y = np.zeros((*indices.shape, num_classes), np.float32)
    for k in np.ndindex(indices.shape):
        y[(*k, indices[k])] = 1
    return y


BASIC = {
    "number": ((3, 2), 1),
    "negative": ((3, 2), (-1, 0)),
    "slice": ((5, 3), (slice(1, 4),)),
    "negative step": ((5, 3), (slice(None, None, -2), slice(2, 0, -1))),
    "None and Ellipsis": ((2, 3, 4), (None, 1, ..., slice(1, 3), None)),
    "nothing": ((4,), (slice(2, 2),)),
    "everything": ((2, 3), ...),
    "0-d": ((), ()),
    "empty": ((0, 3), (slice(None), 1)),
}
ADVANCED = {
    "rows": ((3, 2), (I,)),
    "columns": ((2, 3), (slice(None), I)),
    "columns of a batch": ((2, 3, 2), (slice(None), I, slice(None))),
    "matrix of rows": ((3, 2), (I.reshape(2, 2),)),
    "pairs": ((3, 4), (I, np.array([1, 1, 1, -2]))),
    "grid": ((3, 4), (I[:, None], np.array([1, 0]))),
    "grid of a batch": ((2, 3, 2, 2), (slice(None), I[:, None], np.array([1, 0]))),
    "around a slice": ((3, 2, 4), (I, slice(None, None, -1), np.array([1, 1, 1, -2]))),
    "with a number": ((3, 2, 4), (0, slice(None), I)),
    "with None and Ellipsis": ((2, 4, 3), (None, ..., I)),
    "small integers": ((3, 2), (I.astype(np.int8),)),
    "0-d array": ((3, 2), (np.array(1),)),
    "0-d array of a vector": ((3,), (np.array(1),)),
    "of a vector": ((3,), (I,)),
    "no index": ((3, 2), (np.zeros((0,), int),)),
    "empty rows": ((3, 0), (I,)),
    "mask": ((2, 3), (MASK,)),
    "mask of rows": ((2, 3), (np.array([False, True]), slice(1, None))),
    "mask and number": ((2, 3), (MASK[:, 0], 1)),
    "mask and array": ((2, 3, 4), (np.array([False, True]), np.array([0, 0]))),
    "false mask": ((2, 3), (np.zeros((2, 3), bool),)),
}


def has_mask(index):
    return any(getattr(i, "dtype", None) == np.bool_ for i in index)


def samples(cases, reference, transposed=False):
    result = []
    for note, (shape, index) in cases.items():
        x, kwargs = normal(*shape), {"index": index}
        if transposed:
            x, kwargs = normal(*np.zeros(shape)[index].shape), {"index": index, "shape": shape}
        sync = COUNTS if isinstance(index, tuple) and has_mask(index) else ""
        result.append(Sample((x,), kwargs, reference=reference, note=note, sync=sync))
    return result


SAMPLES = {
    "getitem": samples(BASIC, picked),
    "place": samples(BASIC, added, transposed=True),
    "gather": samples(ADVANCED, picked),
    "scatter_add": samples(ADVANCED, added, transposed=True),
    "index_update": [
        Sample((normal(4, 2), normal(2, seed=1)), {"index": (slice(1, 3),)}, reference=updated, note="broadcast"),
        Sample((normal(4, 2), normal(2, 2, seed=1)), {"index": (np.array([3, 0]),)}, reference=updated, note="rows"),
        Sample((normal(2, 3), normal(3, seed=1)), {"index": (MASK,)}, reference=updated, note="mask", sync=COUNTS),
        Sample((normal(2, 3), -1.5), {"index": (0, 1)}, reference=updated, note="a number"),
        Sample((normal(), normal(seed=1)), {"index": ()}, reference=updated, note="0-d"),
        Sample((normal(0, 3), normal(3, seed=1)), {"index": (slice(None),)}, reference=updated, note="empty"),
        Sample((np.arange(4), 7), {"index": (slice(1, 3),)}, reference=updated, note="integers"),
    ],
    "one_hot": [
        Sample((np.array([2, 0, 2]),), {"num_classes": 3}, reference=one_hot_loop, sync=LOOKS),
        Sample((np.array([[1], [0]]),), {"num_classes": 4}, reference=one_hot_loop, sync=LOOKS, note="two axes"),
        Sample((np.array(1, np.uint8),), {"num_classes": 2}, reference=one_hot_loop, sync=LOOKS, note="0-d"),
        Sample((np.zeros(0, int),), {"num_classes": 3}, reference=one_hot_loop, sync=LOOKS, note="empty"),
    ],
    "nonzero": [
        Sample(
            (np.array([[0.0, 2.0], [-1.0, 0.0]]),),
            reference=lambda x: (np.array([0, 1]), np.array([1, 0])),
            sync=COUNTS,
        ),
        Sample((np.array([True, False, True]),), reference=lambda x: (np.array([0, 2]),), sync=COUNTS, note="mask"),
        Sample((np.zeros((0, 2)),), reference=lambda x: (np.zeros(0, int),) * 2, sync=COUNTS, note="empty"),
    ],
    "argsort": [
        Sample((normal(3, 4),), reference=lambda x: np.array([sorted(range(4), key=row.__getitem__) for row in x])),
        Sample((normal(3, 4),), {"axis": 0}, reference=lambda x, axis: np.argsort(x.T).T),
        Sample((np.array([1, 0, 1, 0]),), reference=lambda x: np.array([1, 3, 0, 2]), note="ties"),
        Sample((np.array([1, 0, 1, 0]),), {"descending": True}, reference=lambda x, descending: np.array([0, 2, 1, 3])),
        Sample((np.array([2.0, np.nan, 1.0]),), reference=lambda x: np.array([2, 0, 1]), note="nan"),
        Sample((np.zeros((0, 2)),), {"axis": 0}, reference=lambda x, axis: np.zeros((0, 2), int), note="empty"),
    ],
}
