"""The neuron's loss, and the update step"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

X = np.array([[1.0, 2.0], [2.0, -1.0], [-1.0, -2.0], [0.5, 0.5], [-2.0, 1.0]])
Y = np.array([2.0, 1.0, 0.0, 0.5, 0.0])
W = np.array([0.5, 0.5])


def cost(X, y, w, b):
    return np.mean((y - np.maximum(0, X @ w + b)) ** 2)


def slopes(X, y, w, b):
    return frame.gradient(lambda w: cost(X, y, w, b), w), frame.gradient(lambda b: cost(X, y, w, b), b)


def by_hand(X, y, w, b, switched=True):
    z = X @ w + b
    e = np.where(z > 0, z - y, 0.0) if switched else z - y
    return 2 / len(X) * e @ X, 2 / len(X) * e.sum()


@exercise((X, Y, W, 0.1), (X, Y, -W, 0.3), truth=slopes)
def loss_gradient(X, y, w, b):
    """The rows of `X` are inputs of a neuron u = max(0, w · x + b), and C is the mean of (y - u)² over them.
    Return the derivatives of C by `w` and by `b`."""
    z = X @ w + b
    e = np.where(z > 0, z - y, 0.0)
    return 2 / len(X) * e @ X, 2 / len(X) * e.sum()


loss_gradient.wrong(
    "It adds the errors of all inputs. For some of them the neuron is off.",
    lambda X, y, w, b: by_hand(X, y, w, b, switched=False),
)
loss_gradient.wrong(
    "C is a mean, and this is the derivative of a sum: the number of inputs is missing.",
    lambda X, y, w, b: tuple(len(X) * part for part in by_hand(X, y, w, b)),
)
loss_gradient.wrong(
    "It points downhill: y - u has an inner derivative, and that has a sign.",
    lambda X, y, w, b: tuple(-part for part in by_hand(X, y, w, b)),
)

COLUMN, ROW = np.array([[1.0], [-2.0], [0.5]]), np.array([[0.4, 1.0, -3.0]])


def element_by_element(w, row, eta):
    return np.array([[w[i, 0] - eta * row[0, i]] for i in range(len(w))])


@exercise((COLUMN, ROW, 0.1), (-COLUMN, ROW, 0.5), truth=element_by_element)
def update(w, row, eta):
    """One step downhill with the learning rate `eta`. `w` is a column, (n, 1); `row` is the derivative of the
    loss by it as a row, (1, n). Return the new column."""
    return w - eta * row.T


update.wrong("It goes uphill: the gradient points to where the loss grows.", lambda w, row, eta: w + eta * row.T)
update.wrong(
    "A column minus a row is a table: NumPy copies both. One of them has to be turned around first.",
    lambda w, row, eta: w - eta * row,
)
update.wrong("The learning rate is missing.", lambda w, row, eta: w - row.T)


def descend(gradient, late, X, y, w, b, eta, steps):
    for _ in range(steps):
        by_w, by_b = gradient(X, y, w, b)
        w = w - eta * by_w
        b = b - eta * (gradient(X, y, w, b)[1] if late else by_b)
    return w, b


@exercise((X, Y, W, 0.1, 0.1, 3), (X, Y, W, 0.3, 0.05, 5), truth=lambda *case: descend(slopes, False, *case))
def train(X, y, w, b, eta, steps):
    """So many `steps` downhill with the loss of the first exercise, from `w` and `b` on. Return the new w and
    b."""
    for _ in range(steps):
        z = X @ w + b
        e = np.where(z > 0, z - y, 0.0)
        w, b = w - eta * 2 / len(X) * e @ X, b - eta * 2 / len(X) * e.sum()
    return w, b


train.wrong("The bias never moves.", lambda *case: descend(lambda *at: (by_hand(*at)[0], 0.0), False, *case))
train.wrong(
    "The gradient of b is taken after w has moved. Both belong to the same point.",
    lambda *case: descend(by_hand, True, *case),
)
train.wrong(
    "The gradient is computed once, before the loop. It changes with every step.",
    lambda X, y, w, b, eta, steps: descend(by_hand, False, X, y, w, b, steps * eta, 1),
)
