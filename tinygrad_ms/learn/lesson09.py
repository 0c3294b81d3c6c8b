"""The four equations of backprop"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise


def sigma(z):
    return 1 / (1 + np.exp(-z))


def prime(z):
    return sigma(z) * (1 - sigma(z))


Z, Y = np.array([[0.7], [-1.2], [0.1]]), np.array([[1.0], [0.0], [0.5]])


@exercise((Z, Y), (2 * Z, 1 - Y), truth=lambda z, y: frame.gradient(lambda z: ((y - sigma(z)) ** 2).sum() / 2, z))
def last_delta(z, y):
    """Equation (80): the error δ at the end of a net whose last layer is a = σ(z) with the sigmoid σ, for the
    cost C = ½ |y - a|². `z` and `y` are columns, and so is δ, the gradient of C by `z`."""
    a = 1 / (1 + np.exp(-z))
    return (a - y) * a * (1 - a)


last_delta.wrong("That is the gradient by a. One more factor leads from a to z.", lambda z, y: sigma(z) - y)
last_delta.wrong("The sign is turned around: y - a has an inner derivative.", lambda z, y: (y - sigma(z)) * prime(z))
last_delta.wrong(
    "σ'(z) is a(1 - a) with a = σ(z); here a went through σ a second time.",
    lambda z, y: (sigma(z) - y) * prime(sigma(z)),
)

W = np.array([[1.2, -0.6, 0.3], [0.4, 0.8, -1.0], [-0.5, 0.2, 0.9]])
D = np.array([[0.3], [-0.1], [0.7]])


@exercise(
    (W, D, Z), (W.T, -D, Z + 1), truth=lambda W, delta, z: frame.gradient(lambda z: (delta * (W @ sigma(z))).sum(), z)
)
def hidden_delta(W, delta, z):
    """Equation (81): the error one layer earlier. `delta` is that of the next layer, `W` leads into the next
    layer, and a = σ(z) is what it was given. All are columns but W, which is square here."""
    a = 1 / (1 + np.exp(-z))
    return (W.T @ delta) * a * (1 - a)


hidden_delta.wrong(
    "Forward the error would go through W; backward it goes the other way.", lambda W, delta, z: (W @ delta) * prime(z)
)
hidden_delta.wrong("That is the gradient by a. One more factor leads from a to z.", lambda W, delta, z: W.T @ delta)
hidden_delta.wrong(
    "σ' comes too early: first W carries the error back to this layer, then σ' of this layer weighs it.",
    lambda W, delta, z: W.T @ (delta * prime(z)),
)


def softmax(Z, axis=1):
    p = np.exp(Z - Z.max(axis=axis, keepdims=True))
    return p / p.sum(axis=axis, keepdims=True)


SCORES = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
LABELS = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


@exercise(
    (SCORES, LABELS), (-2 * SCORES, LABELS[:, ::-1]),
    truth=lambda Z, Y: frame.gradient(lambda Z: -(Y * np.log(softmax(Z))).sum(axis=1).mean(), Z),
)  # fmt: skip
def softmax_delta(Z, Y):
    """The error at the end for softmax with cross-entropy. The rows of `Z` are the scores of the samples, the
    rows of `Y` their labels with a single 1; the cost is the mean over the samples."""
    p = np.exp(Z - Z.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True) - Y) / len(Z)


softmax_delta.wrong("The cost is a mean over the samples: a division is missing.", lambda Z, Y: softmax(Z) - Y)
softmax_delta.wrong("The sign is turned around.", lambda Z, Y: (Y - softmax(Z)) / len(Z))
softmax_delta.wrong(
    "The softmax runs over the samples. The probabilities of one sample, a row, add up to 1.",
    lambda Z, Y: (softmax(Z, axis=0) - Y) / len(Z),
)
