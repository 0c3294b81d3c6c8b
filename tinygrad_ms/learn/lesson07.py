"""Tensors and broadcasting"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

ROWS = np.array([[1.0, 0.0, 0.5], [2.0, 3.0, 4.0], [-1.0, 0.5, 0.25]])
WIDE = np.arange(12.0).reshape(3, 4) - 4


@exercise(ROWS, -ROWS.T, truth=lambda G: frame.gradient(lambda b: (G * (np.zeros_like(G) + b)).sum(), np.zeros(3)))
def bias_gradient(G):
    """A bias of shape (k,) was added to N rows. `G`, of shape (N, k), arrives at the sum. What arrives at the
    bias?"""
    return G.sum(axis=0)


bias_gradient.wrong(
    "It adds along the wrong axis. Each element of the bias was copied to all rows of its column.",
    lambda G: G.sum(axis=1),
)
bias_gradient.wrong("Copies collect a sum, not a mean.", lambda G: G.mean(axis=0))
bias_gradient.wrong(
    "It has the shape of G. A gradient has the shape of its variable: the copies were made by broadcasting.",
    lambda G: G,
)


@exercise(
    np.array([1.0, -2.0, 4.0]), np.array([0.5, 0.25, 1.0, 3.0]),
    truth=lambda g: frame.gradient(lambda x: (g * (x - x.mean())).sum(), np.zeros(len(g))),
)  # fmt: skip
def centre_gradient(g):
    """y = x - mean(x) for a vector x. `g` arrives at y; what arrives at x?"""
    return g - g.mean()


centre_gradient.wrong("Only the direct path is there. x reaches y a second time, through the mean.", lambda g: g)
centre_gradient.wrong("The mean is a sum divided by n. The division is missing.", lambda g: g - g.sum())
centre_gradient.wrong(
    "Each x gets only its own share back. The mean sends the gradients of all y to each x.",
    lambda g: g * (1 - 1 / len(g)),
)

X = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0], [-2.0, 1.0, 1.0]])
W = np.array([[0.3, -0.4, 1.0], [0.2, 0.9, -0.7], [1.5, 0.1, 0.6]])


def layer(X, W, b, G):
    return (G * (X @ W.T + b)).sum()


@exercise(
    (X, W, np.array([0.1, 0.2, -0.3]), ROWS), (W, X, np.array([1.0, 0.0, 2.0]), WIDE[:, :3]),
    truth=lambda X, W, b, G: (
        frame.gradient(lambda X: layer(X, W, b, G), X), frame.gradient(lambda W: layer(X, W, b, G), W),
        frame.gradient(lambda b: layer(X, W, b, G), b),
    ),
)  # fmt: skip
def layer_gradients(X, W, b, G):
    """A layer Y = X Wᵀ + b: the rows of `X` are samples, the rows of `W` neurons. `G` arrives at Y. Return what
    arrives at X, at W and at b. (The check uses square matrices, so that the shapes alone do not help.)"""
    return G @ W, G.T @ X, G.sum(axis=0)


layer_gradients.wrong(
    "The gradient of W is transposed: W has a row for each neuron, and so has its gradient.",
    lambda X, W, b, G: (G @ W, X.T @ G, G.sum(axis=0)),
)
layer_gradients.wrong(
    "The gradient of X goes through W the wrong way: it goes back through the transpose of what X went through.",
    lambda X, W, b, G: (G @ W.T, G.T @ X, G.sum(axis=0)),
)
layer_gradients.wrong(
    "The gradient of b adds along the wrong axis.", lambda X, W, b, G: (G @ W, G.T @ X, G.sum(axis=1))
)
