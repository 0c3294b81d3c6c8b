"""Samples of ops/losses.py, ops/targets.py, ops/label_loss.py and ops/classification.py."""

import numpy as np

from tests.samples import Sample, normal

LABELS = np.array([2, 0, 1, 2, 2])


def log_softmax_rows(z):
    """Row by row, in extended precision."""
    z = np.asarray(z, dtype=np.longdouble)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cross_entropy_reference(z, target, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=None):
    """Sample by sample, as the definition says: -sum_c w_c q_c log p_c."""
    classes = z.shape[-1]
    log_p = log_softmax_rows(z)
    soft = target.dtype.kind == "f"
    rows = log_p.reshape(-1, classes)
    w = np.ones(classes) if weight is None else weight
    losses, total = [], 0.0
    for n, row in enumerate(rows):
        if soft:
            q, count = target.reshape(-1, classes)[n], 1.0
        else:
            label = int(target.ravel()[n])
            kept = label != ignore_index
            q, count = (np.eye(classes)[label] if kept else np.zeros(classes)), w[label] * kept
        if soft or kept:
            q = (1 - label_smoothing) * q + label_smoothing / classes
        losses.append(-(w * q * row).sum())
        total += count
    losses = np.array(losses, dtype=np.float64)
    if reduction == "mean":
        value = losses.sum() / (total or 1)
    else:
        value = losses.sum() if reduction == "sum" else losses.reshape(z.shape[:-1])
    return np.float64(value) if reduction != "none" else value, log_p.astype(np.float64)


def cross_entropy_sample(z, target, note="", **kwargs):
    return Sample((z, target), kwargs, reference=cross_entropy_reference, note=note)


def label_reference(z, target, **kwargs):
    return cross_entropy_reference(z, target, **kwargs)[0]


def label_sample(z, target, note="", **kwargs):
    return Sample((z, target), kwargs, reference=label_reference, note=note)


def probabilities(*shape):
    p = np.random.default_rng(3).uniform(0.1, 1.0, shape)
    return p / p.sum(-1, keepdims=True)


def pick_reference(x, labels):
    return np.take_along_axis(x, labels[..., None], -1)[..., 0]


def place_reference(x, labels, classes):
    return np.eye(classes)[labels] * x[..., None]


def huber_reference(x, t, delta=1.0):
    d = np.abs(x - t)
    return np.where(d <= delta, d * d / 2, delta * d - delta**2 / 2)


def logistic_reference(x, t):
    p = 1 / (1 + np.exp(-x))
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


SAMPLES = {
    "squared_error": [
        Sample((normal(3, 2), normal(3, 2, seed=1)), reference=lambda x, t: x * x - 2 * x * t + t * t),
        Sample((normal(3, 2), 0.5), reference=lambda x, t: (x - t) ** 2, note="one target for all"),
        Sample((np.array(2.0), np.array(-1.0)), reference=lambda x, t: np.array(9.0), note="0-d"),
        Sample((normal(0), normal(0)), reference=lambda x, t: np.zeros(0), note="empty"),
    ],
    "absolute_error": [
        Sample((normal(3, 2), normal(3, 2, seed=1)), reference=lambda x, t: np.maximum(x - t, t - x)),
        Sample(
            (np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])),
            reference=lambda x, t: np.array([0.0, 1.0, 1.0]),
            smooth=False,
            gradient=(np.array([0.0, -1.0, 1.0]), np.array([0.0, 1.0, -1.0])),
            note="equality",
        ),
        Sample((np.array(2.0), np.array(-1.0)), reference=lambda x, t: np.array(3.0), note="0-d"),
        Sample((normal(0), normal(0)), reference=lambda x, t: np.zeros(0), note="empty"),
    ],
    "huber_error": [
        Sample((3 * normal(3, 2), normal(3, 2, seed=1)), reference=huber_reference),
        Sample((normal(4), normal(4, seed=1)), {"delta": 0.3}, reference=huber_reference),
        Sample(
            (np.array([1.0, -1.0, 3.0]), np.zeros(3)),
            reference=huber_reference,
            smooth=False,
            gradient=(np.array([1.0, -1.0, 1.0]), np.array([-1.0, 1.0, -1.0])),
            note="at delta",
        ),
        Sample((np.array(0.25), np.array(1.0)), reference=huber_reference, note="0-d"),
        Sample((normal(0), normal(0)), reference=huber_reference, note="empty"),
    ],
    "logistic_error": [
        Sample((normal(3, 2), probabilities(3, 2)), reference=logistic_reference),
        Sample((3 * normal(4), np.array([0.0, 1.0, 1.0, 0.0])), reference=logistic_reference, note="hard targets"),
        Sample((np.array(0.25), np.array(0.5)), reference=logistic_reference, note="0-d"),
        Sample((normal(2, 3), 1.0), reference=logistic_reference, note="one target for all"),
        Sample(
            (np.array([1e4, -1e4, 1e4, -1e4]), np.array([1.0, 0.0, 0.0, 1.0])),
            reference=lambda x, t: np.array([0.0, 0.0, 1e4, 1e4]),
            tolerance=1e-4,
            note="logits of 1e4",
        ),
        Sample(
            (np.array([0.0, -0.0]), np.array([0.25, 1.0])), reference=lambda x, t: np.full(2, np.log(2)), note="zero"
        ),
        Sample((normal(0), normal(0)), reference=lambda x, t: np.zeros(0), note="empty"),
    ],
    "sigmoid_minus": [
        Sample((3 * normal(4, 2), probabilities(4, 2)), reference=lambda x, t: 1 / (1 + np.exp(-x)) - t),
        Sample((normal(2, 3), 1.0), reference=lambda x, t: -1 / (1 + np.exp(x)), note="one target for all"),
        Sample((np.array(0.0), np.array(0.25)), reference=lambda x, t: np.array(0.25), note="0-d, zero"),
        Sample((normal(0), normal(0)), reference=lambda x, t: np.zeros(0), note="empty"),
    ],
    "pick_label": [
        Sample((normal(5, 3),), {"labels": LABELS}, reference=pick_reference),
        Sample(
            (normal(2, 2, 3),), {"labels": np.array([[0, 2], [1, 1]])}, reference=pick_reference, note="two batch axes"
        ),
        Sample((normal(3),), {"labels": np.array(1)}, reference=pick_reference, note="one sample"),
        Sample((normal(0, 3),), {"labels": np.zeros(0, int)}, reference=pick_reference, note="empty"),
    ],
    "place_label": [
        Sample((normal(5),), {"labels": LABELS, "classes": 3}, reference=place_reference),
        Sample((normal(2, 2),), {"labels": np.array([[0, 2], [1, 1]]), "classes": 3}, reference=place_reference),
        Sample((np.array(2.0),), {"labels": np.array(1), "classes": 3}, reference=place_reference, note="one sample"),
        Sample((normal(0),), {"labels": np.zeros(0, int), "classes": 3}, reference=place_reference, note="empty"),
    ],
    "softmax_minus_one_hot": [
        Sample(
            (normal(5, 1, seed=1), np.log(probabilities(5, 3))),
            {"labels": LABELS},
            reference=lambda s, l, labels: s * (np.exp(l) - np.eye(3)[labels]),
        ),
        Sample(
            (normal(1, 1, seed=1), np.log(probabilities(5, 3))),
            {"labels": LABELS},
            reference=lambda s, l, labels: s * (np.exp(l) - np.eye(3)[labels]),
            note="one scale for all",
        ),
        Sample(
            (normal(0, 1), normal(0, 3)),
            {"labels": np.zeros(0, int)},
            reference=lambda s, l, labels: np.zeros((0, 3)),
            note="empty",
        ),
    ],
    "softmax_cross_entropy": [
        label_sample(normal(5, 3), LABELS),
        label_sample(normal(5, 3), LABELS.astype("int8"), reduction="sum"),
        label_sample(normal(20, 3), np.arange(20) % 3, reduction="none", note="columns"),
        label_sample(normal(3, 70), np.array([0, 69, 7]), note="rows"),
        label_sample(normal(2, 2, 3), np.array([[0, 2], [1, 1]]), reduction="none", note="two batch axes"),
        label_sample(normal(3), np.array(1), note="one sample"),
        label_sample(np.array([[1e4, -1e4, 0.0], [0.0, 1e4, 9.99e3]]), np.array([1, 2]), note="logits of 1e4"),
        label_sample(normal(0, 3), np.zeros(0, int), note="no samples: the mean is 0"),
    ],
    "cross_entropy": [
        cross_entropy_sample(normal(5, 3), LABELS),
        cross_entropy_sample(normal(5, 3), LABELS, reduction="sum"),
        cross_entropy_sample(normal(5, 3), LABELS, reduction="none"),
        cross_entropy_sample(normal(2, 2, 3), np.array([[0, 2], [1, 1]]), reduction="none", note="two batch axes"),
        cross_entropy_sample(normal(3), np.array(1), note="one sample"),
        cross_entropy_sample(normal(5, 3), np.array([2, -1, 1, -1, 0]), ignore_index=-1, note="ignored labels"),
        cross_entropy_sample(normal(5, 3), LABELS, ignore_index=2, reduction="none", note="an ignored class"),
        cross_entropy_sample(normal(2, 3), np.array([-1, -1]), ignore_index=-1, note="all ignored"),
        cross_entropy_sample(normal(5, 3), LABELS, label_smoothing=0.1),
        cross_entropy_sample(normal(5, 3), LABELS, label_smoothing=0.2, ignore_index=0, reduction="sum"),
        cross_entropy_sample(normal(5, 3), probabilities(5, 3), note="soft targets"),
        cross_entropy_sample(normal(5, 3), probabilities(5, 3), reduction="none", label_smoothing=0.3),
        cross_entropy_sample(np.array([[1e4, -1e4, 0.0], [0.0, 1e4, 9.99e3]]), np.array([1, 2]), note="logits of 1e4"),
        cross_entropy_sample(normal(0, 3), np.zeros(0, int), note="no samples: the mean is 0"),
    ]
    + [
        Sample(
            (normal(5, 3), target),
            {"weight": np.array([0.5, 2.0, 1.0]), **kwargs},
            reference=cross_entropy_reference,
            note="class weights",
        )
        for target, kwargs in [
            (LABELS, {}),
            (LABELS, {"ignore_index": 0}),
            (LABELS, {"label_smoothing": 0.1}),
            (probabilities(5, 3), {"reduction": "none"}),
        ]
    ],
}
